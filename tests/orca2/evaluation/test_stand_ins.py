"""The evaluator measures three answerers whose score is known beforehand."""

import os
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from orca2.evaluation.benchmark import Benchmark, Sample, flatten
from orca2.evaluation.stand_ins import GoldAnswers, RandomAnswers, Silent, gold_wordings
from orca2.records import Rejected
from orca2.settings import build

ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("ORCA2_SHARED_DATA", ROOT.parent / "shared" / "data")) / "benchmarks"
with_data = pytest.mark.skipif(not DATA.is_dir(), reason="no benchmark files; set ORCA2_SHARED_DATA")

# Rows and rejected rows in the files; a rejected row is a broken one, or stands for one task's absent file.
COUNTS = {
    "agieval": (1512, 9 + 2),
    "bbh": (4330, 3 + 5),
    "bbh_numbers": (500, 0),
    "bbh_sequences": (500, 0),
    "drop": (800, 0),
    "crass": (43, 0),
    "gsm8k": (1000, 0),
    "mmlu": (4598, 11),
    "arc_easy": (2376, 0),
    "arc_challenge": (1172, 0),
    "hellaswag": (800, 0),
    "lambada": (5153, 0),
    "truthfulqa": (817, 0),
    "mt_bench": (80, 0),
    "qmsum": (281, 0),
    "aci_bench": (80, 1),
}


@pytest.fixture(scope="module")
def benchmarks() -> dict[str, Benchmark]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        groups = [
            build(compose(overrides=[f"+benchmark={name}"]).benchmark) for name in ("orca2", "bbh_free", "procedural")
        ]
    return {name: one for group in groups for name, one in flatten(group).items()}


def samples_of(one: Benchmark, expected: tuple[int, int]) -> list[Sample]:
    rows = list(one.samples(DATA))
    samples = [row for row in rows if isinstance(row, Sample)]
    assert (len(samples), sum(isinstance(row, Rejected) for row in rows)) == expected
    assert len({sample.id for sample in samples}) == len(samples)
    return samples


@with_data
@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_known_answerers_get_their_known_scores(name: str, stride: int, benchmarks: dict[str, Benchmark]) -> None:
    """A wrong reader, extractor or score cannot give gold 1, silence 0 and guessing chance all at once."""
    one = benchmarks[name]
    hits = chance = variance = 0.0
    for sample in samples_of(one, COUNTS[name])[::stride]:
        gold = one.read(GoldAnswers().answer(sample, 0), sample)
        assert gold.ok, sample.id
        silence = one.read(Silent().answer(sample, 0), sample)
        assert not silence.ok and not any(one.score(silence, sample).values())
        if sample.kind in ("text", "chat"):
            continue
        assert one.score(gold, sample)["accuracy"] == 1, sample.id
        assert not one.read(sample.turns[0], sample).ok, f"{sample.id}: an echo of the prompt is no answer"
        guess = one.read(RandomAnswers().answer(sample, 0), sample)
        assert guess.ok
        if sample.choices:
            hits += one.score(guess, sample)["accuracy"]
            chance += 1 / len(sample.choices)
            variance += (1 - 1 / len(sample.choices)) / len(sample.choices)
    assert abs(hits - chance) <= 2.576 * variance**0.5  # the 99 % interval of guessing


def test_procedural_families(benchmarks: dict[str, Benchmark]) -> None:
    """A wrong reader or score of the task families would give gold less than 1, or silence an answer."""
    one = benchmarks["procedural"]
    samples = [row for row in one.samples(None) if isinstance(row, Sample)]
    assert len(samples) > 500
    for sample in samples:
        assert all(one.score(one.read(text, sample), sample)["accuracy"] == 1 for text in gold_wordings(sample))
        assert not one.read("", sample).ok


@with_data
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in COUNTS if name not in ("qmsum", "aci_bench", "mt_bench")])
def test_every_wording_of_every_right_answer(name: str, benchmarks: dict[str, Benchmark]) -> None:
    """Ten and more phrasings a row; one that is missed costs a real student points."""
    one = benchmarks[name]
    for sample in samples_of(one, COUNTS[name]):
        wordings = gold_wordings(sample)
        assert len(wordings) >= 10
        for text in wordings:
            found = one.read(text, sample)
            assert found.ok and one.score(found, sample)["accuracy"] == 1, (sample.id, text)


@with_data
def test_reasoning_about_other_options_never_scores(benchmarks: dict[str, Benchmark]) -> None:
    """Texts that name options, or are about something else, must not be read as a choice."""
    for name in ("mmlu", "agieval"):
        one = benchmarks[name]
        for sample in samples_of(one, COUNTS[name])[::7]:
            listed = "\n".join(f"({label}) {text}" for label, text in sample.choices.items())
            for text in (
                listed,
                f"Let's think. {listed}",
                "A first thought is that (A) and B are close, while C is not. I would look at D again.",
                "If the answer is (A), the rest must fail. The answer is not (B).",
            ):
                assert not one.read(text, sample).ok, (sample.id, text)


def test_stand_ins_do_not_depend_on_order() -> None:
    """A resumed run must get the same answers."""
    sample = Sample(
        id="x/y/1", benchmark="x", task="y", turns=("Q?",), kind="choice", gold=(("B",),), choices={"A": "a", "B": "b"}
    )
    assert GoldAnswers().answer(sample, 0) == GoldAnswers().answer(sample, 0)
    assert {RandomAnswers(seed).answer(sample, 0) for seed in range(20)} == {"Answer: A", "Answer: B"}
    assert Silent().answer(sample, 0) == ""
