"""How much is tried: `pytest -m slow tests/fuzz` is one run over every reader, the renderers and what servers send."""

from tests.fuzz import test_benchmarks, test_collections, test_rows, test_texts

WANTED = 100_000
"""Inputs in all; ours."""


def test_a_run_tries_enough() -> None:
    """Counts that are lowered one by one must not end in a fuzz of nothing."""
    assert sum(module.INPUTS for module in (test_rows, test_collections, test_benchmarks, test_texts)) >= WANTED
