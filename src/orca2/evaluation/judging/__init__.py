"""Judges: a second pass over saved answers by a model, through any teacher, cached, and paid for once.

samples.jsonl ──▶ rubric: what the judge is asked ──▶ teacher ──▶ verdicts.jsonl ──▶ the report
scenarios     ──▶ simulated user ⇄ student        ──▶ samples.jsonl, as above
"""
