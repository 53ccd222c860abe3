"""Asking a teacher: requests, what they may cost, what was paid for, and the models that answer.

Request ──engine──▶ cache? ──no──▶ budget ──▶ a model of `asking.models` ──▶ Answer ──▶ cache
"""
