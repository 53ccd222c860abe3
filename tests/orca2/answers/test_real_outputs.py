"""What others' models wrote, with their authors' labels, is read rightly; skipped where the outputs are not here.

bbh_codex.jsonl.gz      code-davinci-002 on BIG-Bench Hard: right where what it announces is the target, word for word
gsm8k_openai.jsonl.gz   four models on GSM8K with the authors' verdict; outputs end in `A: 18`, here `Answer: 18`
"""

import gzip
import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hydra import compose, initialize_config_dir

from orca2.answers.verification.checkers import Verifier
from orca2.evaluation.benchmark import Benchmark, Sample, flatten
from orca2.evaluation.benchmarks.stored import StoredBenchmark
from orca2.records import AnswerKind
from orca2.rows.forms import FORMS
from orca2.rows.items import Option, TaskItem
from orca2.settings import build

ROOT = Path(__file__).parents[3]
OUTPUTS = Path(os.environ.get("ORCA2_SHARED_DATA", ROOT.parent / "shared" / "data")) / "real_outputs"
pytestmark = pytest.mark.skipif(not OUTPUTS.is_dir(), reason="no real outputs; set ORCA2_SHARED_DATA")

NUMBERS = ("multistep_arithmetic_two", "object_counting")
SEQUENCES = ("dyck_languages", "word_sorting")
KINDS: dict[str, AnswerKind] = {"bbh": "choice", "bbh_numbers": "number", "bbh_sequences": "list", "gsm8k": "number"}
LEAST = 0.999
PARTS = {"cot": 6508, "direct": 6508, "gsm8k": 5276}
"""Part to its outputs. Three questions of BIG-Bench Hard have broken options, see docs/benchmarks.md."""
SECONDS = 60.0


class Case(NamedTuple):
    """One output."""

    sample: Sample
    output: str
    right: bool


def rows(name: str) -> Iterator[dict[str, Any]]:
    with gzip.open(OUTPUTS / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


@pytest.fixture(scope="module")
def benchmarks() -> dict[str, Benchmark]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        groups = [build(compose(overrides=[f"+benchmark={name}"]).benchmark) for name in ("orca2", "bbh_free")]
    return {name: one for group in groups for name, one in flatten(group).items()}


def sample(benchmarks: dict[str, Benchmark], name: str, row: dict[str, Any]) -> Sample:
    one = benchmarks[name]
    assert isinstance(one, StoredBenchmark)
    return one._sample(f"{name}/real", "real", row)


def cases(part: str, benchmarks: dict[str, Benchmark]) -> Iterator[Case]:
    if part == "gsm8k":
        for row in rows("gsm8k_openai"):
            gold = row["ground_truth"].rpartition("A:")[2]
            output = re.sub(r"^A:", "Answer:", row["output"], flags=re.MULTILINE)
            question = {"question": row["question"], "answer": f"#### {gold}"}
            yield Case(sample(benchmarks, part, question), output, row["right"])
        return
    for row in rows("bbh_codex"):
        if row["prompting"] != part:
            continue
        name = "bbh_numbers" if row["task"] in NUMBERS else "bbh_sequences" if row["task"] in SEQUENCES else "bbh"
        question = {"question": row["question"], "answer": row["target"]}
        if name == "bbh":
            question = next(FORMS["bbh"].rows([{"input": row["question"], "target": row["target"]}]))
            if "broken" in question:
                continue
        said = row["output"].rpartition("answer is ")[2].strip().removesuffix(".") if part == "cot" else row["output"]
        right = said.strip() == row["target"].strip() and (part == "direct" or "answer is " in row["output"])
        yield Case(sample(benchmarks, name, question), row["output"], right)


def item(one: Sample) -> TaskItem:
    options = tuple(Option(label, text) for label, text in one.choices.items())
    return TaskItem(
        id=one.id, collection="x", task="y", category="c", user=one.turns[0], gold=(" ".join(one.gold[0]),),
        answer_kind=KINDS[one.benchmark], options=options,
    )  # fmt: skip


@pytest.mark.parametrize("reading", ["evaluation", "verification"])
@pytest.mark.parametrize("part", PARTS)
def test_real_outputs_are_read_as_their_labels_say(part: str, reading: str, benchmarks: dict[str, Benchmark]) -> None:
    """Readers proven only on texts made for them: on real ones they gave points, or took them, by their own slips."""
    counts: Counter[tuple[bool, bool]] = Counter()
    wrong = []
    start = time.process_time()
    with Verifier(timeout=5) as verifier:
        for case in cases(part, benchmarks):
            if reading == "evaluation":
                one = benchmarks[case.sample.benchmark]
                found = one.score(one.read(case.output, case.sample), case.sample)["accuracy"] == 1
            else:
                found = verifier.check(item(case.sample), case.output).outcome == "right"
            counts[found, case.right] += 1
            if found != case.right:
                wrong.append((found, case.sample.gold, case.output[-200:]))
    assert counts.total() == PARTS[part]
    assert counts[True, True] / (counts[True, True] + counts[True, False]) >= LEAST, wrong[:20]
    assert counts[True, True] / (counts[True, True] + counts[False, True]) >= LEAST, wrong[:20]
    assert time.process_time() - start < SECONDS
