"""Asking a model (a teacher, a judge, a served student): requests, what they cost, what was paid for, and who answers.

Request ──engine──▶ cache? ──no──▶ budget ──▶ a model of `asking.models` ──▶ Answer ──▶ cache
"""
