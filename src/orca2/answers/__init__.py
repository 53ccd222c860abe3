"""Answers: read the final one out of free text, compare it with gold answers, say what that proves.

text ──extraction──▶ Extraction ──verification──▶ Verdict (right, wrong, undecided)
text ──grading────▶ Graded: answers of the generated task families, whose layout is known
"""
