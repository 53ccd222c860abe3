"""From tasks to a verified data set: what the teacher is told, which answers are kept, and the files that remain.

instructions.py   what the teacher is told           builders/      several calls for one example
measuring.py      strategies by their performance    selection.py   how few probes are enough
answering.py      one item's way to one example      pipeline.py    all items', by one process or several
cleaning/         before and after the teacher       publishing/    card, browser, hub
merging.py        the rows of all ranks -> files     spending.py    what was taken, and what is left to each

`orca2.asking` asks, `orca2.answers` judges, `orca2.rows` reads the tasks.
"""
