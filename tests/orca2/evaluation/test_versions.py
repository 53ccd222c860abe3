"""A benchmark's version changes whenever a score could: its prompt, its reading and its scores are pinned by a digest.

Where a test here fails because of a change that is meant: raise `version` in the benchmark's YAML, and copy the line
that the failure prints into `versions.json`. Scores of two versions are never compared.
"""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from orca2.evaluation.benchmark import Benchmark, Sample, flatten
from orca2.evaluation.benchmarks.kinds import KINDS
from orca2.evaluation.benchmarks.stored import StoredBenchmark
from orca2.evaluation.stand_ins import gold_wordings
from orca2.settings import build

CONF = Path(__file__).parents[3] / "conf"
STORED = Path(__file__).with_name("versions.json")
GROUPS = ("orca2", "bbh_free", "procedural")

ROWS: dict[str, list[dict[str, Any]]] = {
    "choice": [
        {"passage": "P.", "question": "Q?", "options": ["a ring", "a field", "none"], "labels": None, "index": 1},
        {"question": "Q (B)?", "options": ["yes", "no"], "labels": ["yes", "no"], "label": "no"},
        {"question": "Q?", "scores": {"true": 1, "f1": 0, "f2": 0}},
        {"question": "Q?", "options": ["1,000", "2"], "labels": ["1", "2"], "onehot": [0, 1]},
    ],
    "number": [{"question": "How many?", "answer": "2 + 2 = 4\n#### 1,004.50"}],
    "span": [{"passage": "Spain beat Italy 3 to 2.", "question": "Who?", "answers": [["Spain", "Italy"], ["3 goals"]]}],
    "word": [{"text": "Once upon a time"}, {"context": "Once upon a", "continuation": "time"}],
    "list": [
        {"question": "Sort: b a", "answer": "a b"},
        {"question": "Close: ( [", "answer": "] )"},
    ],
    "order": [{"sentences": ["one", "two", "three"]}],
    "text": [{"document": "D.", "query": "Sum up.", "answers": ["It is short.", "Short."]}],
    "chat": [{"turns": ["Hi?", "Why?"], "category": "c", "reference": ["r"]}],
}
"""Rows of every kind of answer, in every form that a row may have."""
TEXTS = (
    "",
    "Answer: B",
    "Answer: (A) because it fits",
    "A ring is closed. Let's think: (C) or B?\n\n**Final answer:** no",
    "So the correct answer is option B.",
    "Answer: A\nAnswer: B",
    "The answer is not (A).",
    "Answer: 2 + 2 = 1,004.50",
    "There are 3 and 4.\nTherefore, it comes to $1004.5 in the end.",
    "\\boxed{2}",
    "#### 2",
    "Answer: Italy; Spain",
    "Answer: time",
    "a b",
    "Answer: ] )",
    "Answer: C, A, B",
    "Answer: **a b**.\n\n#### Explanation\nIt is short.",
    "#### 5 million",
    "One might think the answer is (A).",
    "It is short.",
    "Answer: yes or no",
    "no",
    "The answer is B, a place for cows.",
    "The answer is (A).\nThe answer is (B).",
    "Therefore, the answer (in goals) is\n$$\nx = 15\\%\n$$",
    "Answer: most likely 1 004.5",
    "Answer: 10+Tom's age",
)


def benchmarks() -> dict[str, Benchmark]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        groups = [build(compose(overrides=[f"+benchmark={name}"]).benchmark) for name in GROUPS]
    return {name: one for group in groups for name, one in flatten(group).items()}


BENCHMARKS = benchmarks()


def samples(one: Benchmark) -> list[Sample]:
    if not isinstance(one, StoredBenchmark):
        return [row for row in one.samples(None) if isinstance(row, Sample)][::20]
    found = []
    for number, row in enumerate(ROWS[one.kind]):
        if set(row) - KINDS[one.kind].columns:
            raise AssertionError(f"{one.kind} knows no {set(row) - KINDS[one.kind].columns}")
        found.append(one._sample(f"{one.name}/pinned/{number}", "pinned", row))
    return found


def behaviour(one: Benchmark) -> list[Any]:
    """What is asked, and what is read and scored, of fixed rows and texts."""
    done: list[Any] = [one.max_new_tokens, one.domain, one.judgement, list(one.metrics)]
    overlap = "rouge1" in one.metrics  # needs packages that are extras, and is theirs to pin
    for sample in samples(one):
        texts = (*TEXTS, sample.turns[0], *gold_wordings(sample))
        read = [one.read(text, sample) for text in texts]
        scores = [] if overlap else [one.score(found, sample) for found in read]
        done += [sample.turns, sample.gold, dict(sample.choices), sample.document, [list(one) for one in read], scores]
    if isinstance(one, StoredBenchmark):
        # Which columns of which files: another column is another test.
        done += [dict(one.tasks), {name: dict(layout) for name, layout in one.layouts.items()}]
    return done


def digest(one: Benchmark) -> str:
    return hashlib.sha256(json.dumps(behaviour(one), sort_keys=True).encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_a_change_raises_the_version(name: str) -> None:
    """Two runs would be compared that asked, read or scored differently."""
    one = BENCHMARKS[name]
    stored = json.loads(STORED.read_text())
    line = f'"{name}": {{"version": {one.version}, "digest": "{digest(one)}"}}'
    assert name in stored, f"a new benchmark; add to {STORED.name}: {line}"
    if stored[name]["digest"] != digest(one):
        assert one.version > stored[name]["version"], (
            f"scores of {name} could change: raise `version` in conf/benchmark/{name}.yaml, then store its digest in "
            f"{STORED.name}"
        )
    assert stored[name] == {"version": one.version, "digest": digest(one)}, f"store in {STORED.name}: {line}"


def test_every_kind_is_pinned_and_nothing_old_is_stored() -> None:
    """A kind without rows here would have a digest of nothing."""
    assert set(ROWS) == set(KINDS) and set(json.loads(STORED.read_text())) == set(BENCHMARKS)


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "{question}\n{options}\n\n{hint}"},
        {"max_new_tokens": 512},
        {"shuffle": True},
        {"tasks": {"x": "y"}},
    ],
)
def test_the_digest_sees_a_change(change: dict[str, Any]) -> None:
    """A digest that a new prompt leaves as it was guards nothing."""
    one = BENCHMARKS["arc_easy"]
    assert isinstance(one, StoredBenchmark)
    assert digest(replace(one, **change)) != digest(one) == digest(replace(one))
