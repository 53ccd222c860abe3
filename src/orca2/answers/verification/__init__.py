"""Is a teacher's answer right? Three outcomes, never two.

    checkers.py      by kind of answer: what was said, compared with the gold answers
    hedges.py        announced but not meant: "not 18", "18 or 19", "18 %", "Wait, that is wrong"
    expressions.py   mathematical equality, in a worker process that can be killed (extra `math`)
    gym_scorer.py    the scorers of reasoning-gym, in another such process (extra `gym`)
    process.py       those processes; *_worker.py is what they run
    presets.py       which outcomes are kept, and the best of several answers

Reading the final answer out of a text is `orca2.answers.extraction`; here it is only judged more strictly: an
evaluation that misreads costs one sample, a filter that lets a wrong answer through teaches it.
"""
