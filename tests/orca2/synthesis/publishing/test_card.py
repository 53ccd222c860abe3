"""The data set card: all that was counted stands in it, and no name from the data breaks it."""

from typing import Any

import yaml

from orca2.synthesis.publishing.data_card import card

RECORD: dict[str, Any] = {
    "examples": 1200,
    "few_shot": 100,
    "strategies": {"direct": 900, "step_by_step": 300},
    "verdicts": {"right": 1100, "undecided": 100},
    "teachers": {"big-model@abc": 1200},
    "usage": {"prompt_tokens": 5000, "completion_tokens": 7000},
    "sources": {
        "gsm8k": {"examples": 1000, "licences": {"MIT": 1000}, "tasks": {"gsm8k": 1000}},
        "odd|name": {"examples": 200, "licences": {"mit": 200}, "tasks": {"<img src=x>\n# x": 200}},
    },
    "answers_not_kept": 50,
    "not_asked": {"clean": 12, "read": 3},
    "failures": {"truncated": 4},
    "items_read": 1300,
    "spending": {"requests": 1350, "tokens": 12345, "usd": 3.456, "unsure_requests": 0, "price_known": True},
    "cleaning": {
        "cleaning": "standard",
        "duplicates": {"exact": 7, "near": 2},
        "leaks": {"checked": 1250, "leaked": 5, "examples": {}},
        "contamination": {
            "checked": 1291, "threshold": 0.5, "lineage": True, "ngrams": False, "in_domain": ["gsm8k"], "unread": [],
            "benchmarks": {"mmlu": {"lineage": 3, "ngrams": 0, "answers": 1, "examples": []}},
        },
    },
}  # fmt: skip
CONFIG: dict[str, Any] = {
    "tasks": {"name": "orca2"},
    "strategy": {"name": "mixed"},
    "instructions": {"name": "orca2"},
    "teacher": {"name": "openai", "temperature": 0.0, "max_tokens": 2048, "api_key_env": "OPENAI_API_KEY"},
    "verification": {"name": "verified", "samples": 4, "keep": {"right": True, "wrong": False, "undecided": True}},
    "cleaning": {"name": "standard"},
    "seed": 7,
}


def test_the_header_is_what_the_hub_reads() -> None:
    """A header that does not parse leaves the hub without a viewer, or with the rejected answers as data."""
    _, header, _ = card("my data", RECORD, CONFIG).split("---\n", 2)
    read = yaml.safe_load(header)
    assert (read["pretty_name"], read["license"], read["size_categories"]) == ("my data", "mit", ["1K<n<10K"])
    assert [one["config_name"] for one in read["configs"]] == ["default", "rejected_answers"]
    assert read["configs"][0]["data_files"][0]["path"] == "data/train-*.parquet"


def test_everything_counted_is_said() -> None:
    """Sources, licences, strategies, verification, contamination and cost are what a card is for."""
    text = card("my data", RECORD, CONFIG)
    for fact in (
        "1,200 examples of 2 tasks", "big-model@abc", "100 of them show", "| gsm8k | 1,000 | 1 | MIT |",
        "| direct | 900 | 75.0% |", "at most 4 answers a question; kept are those that are right, undecided",
        "| right | 1,100 | 91.7% |", "50 answers were not kept", "4 requests had no answer (truncated 4)",
        "15 rows were not asked (clean 12, read 3)", "7 exact and 2 near", "5 of 1,250 answers quoted",
        "1,291 rows looked at, by the names of their tasks and **not by n-grams", "allowed as in-domain: gsm8k",
        "| mmlu | 3 | 0 | 1 |", "1,350 paid requests, 12,345 tokens, 3.46 USD", "| teacher.temperature | 0.0 |",
    ):  # fmt: skip
        assert fact in text, fact
    assert "OPENAI_API_KEY" not in text


def test_names_from_the_data_stay_in_their_cells() -> None:
    """A task called `| # <img …` would break the table, or become a picture on the hub."""
    text = card("my data", RECORD, CONFIG)
    assert "| odd\\|name | 200 |" in text
    assert "| \\<img src=x\\> \\# x | odd\\|name | 200 |" in text


def test_unknown_prices_and_licences_are_no_claims() -> None:
    """`0.00 USD` for a bill that nobody knows, and one collection's licence for all of them."""
    spending = RECORD["spending"] | {"price_known": False}
    sources = RECORD["sources"] | {"x": {"examples": 1, "licences": {"unknown": 1}, "tasks": {"x": 1}}}
    text = card("my data", RECORD | {"spending": spending, "sources": sources}, CONFIG)
    assert "USD" not in text and "at a price that was not given" in text
    assert yaml.safe_load(text.split("---\n", 2)[1])["license"] == "other"
