"""Readers of task collections: each file holds one format, each gives `TaskItem`s and counted `Rejected`
rows.

natural_instructions.py   Natural Instructions v2, both schemas: one JSON file a task
flan_tables.py            chain-of-thought tables of the FLAN collection: question, answer, rationale
mathematics.py            GSM8K and AQuA-RAT in their authors' JSON lines
mapped.py                 any JSON lines or hub data set, by naming its columns (FLAN's own layout among them)
questions.py              a file of one's own questions, with or without gold answers
procedural_tasks.py       the generated task families of `orca2.tasks`
gym.py                    the generators of the library reasoning-gym (extra `gym`)
fields.py                 what they share
gold_kinds.py             how an answer is checked, read off the gold answers
"""
