"""The default name of a run, which decides its folder."""

import pytest

from orca2.settings import compose_config


def run_dir(*overrides: str) -> str:
    return str(compose_config("train", overrides).run_dir)


def test_the_demo_has_the_name_of_the_readme() -> None:
    """The README loads the demo's student by this path."""
    assert run_dir() == "runs/tiny-mixed-cautious"
    assert run_dir("curriculum=smoke") == "runs/tiny-smoke"


@pytest.mark.parametrize(
    ("source", "path", "named"),
    [
        ("jsonl", "mine.jsonl", "jsonl-mine"),
        ("jsonl", "a/mine.jsonl", "jsonl-a-mine"),
        ("jsonl", "b/mine.jsonl.gz", "jsonl-b-mine"),
        ("gsm8k", "gsm8k.jsonl", "gsm8k"),
        ("hub", "owner/a set", "hub-owner-a-set"),
        ("synthesized", "synthesized/mine", "synthesized-mine"),
        ("jsonl", "x-${oc.env:HOME}", "jsonl"),
        ("jsonl", "a" * 40 + "/" + "b" * 40 + "/c.jsonl", "jsonl-" + "b" * 40 + "-c"),
    ],
)
def test_a_name_follows_the_data(source: str, path: str, named: str) -> None:
    """Two data sets in one folder: the second run would be refused, or go on with the student of the first."""
    assert run_dir(f"source={source}", f"source.path={path}") == f"runs/tiny-{named}-mixed-cautious"


def test_a_source_without_its_path_has_a_name() -> None:
    """The path is asked for later, with everything else that is missing."""
    assert run_dir("source=jsonl") == "runs/tiny-jsonl-mixed-cautious"


@pytest.mark.parametrize(
    ("weights", "named"),
    [
        ("owner/name", "hub-owner-name"),
        ("other/name", "hub-other-name"),
        ("models/Llama-3.2-1B", "hub-models-Llama-3.2-1B"),
    ],
)
def test_a_name_follows_the_weights_of_any_model(weights: str, named: str) -> None:
    """Two students of the hub in one folder: the second would be refused."""
    assert run_dir("model=hub", f"model.weights={weights}") == f"runs/{named}-mixed-cautious"
    assert run_dir("model=hub", f"model.weights={weights}", "curriculum=smoke") == f"runs/{named}-smoke"
    assert run_dir("model=smollm2_135m", f"model.weights={weights}") == "runs/smollm2_135m-mixed-cautious"


def test_a_name_does_not_tell_where_a_person_keeps_files() -> None:
    """Names are shown by W&B and in model cards; an absolute path in one would publish a user's name."""
    named = {path: run_dir("source=jsonl", f"source.path={path}") for path in ("/home/ann/rows.jsonl", "/b/rows.jsonl")}
    assert len(set(named.values())) == 2
    for name in named.values():
        assert name.startswith("runs/tiny-jsonl-rows-") and "ann" not in name
    weights = [run_dir("model=hub", f"model.weights={path}") for path in ("/home/ann/base", "/b/base", "../base")]
    assert len(set(weights)) == 3 and all(name.startswith("runs/hub-base-") for name in weights)
