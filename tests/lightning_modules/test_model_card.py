"""The model card: a header that the hub can read, and text from configs that stays text."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from lightning_modules.card import base_of, write_card
from lightning_modules.training_job import NOT_OF_THE_JOB, TrainingJob
from orca2.erasing import FixedErasing
from orca2.runs import RunDirectory
from orca2.settings import build_all, compose_config

COUNTS = {"rows": 1200, "kept": 1100, "broken": 60, "too_long": 30, "left_out": 10} | {
    "useful_tokens": 90_000,
    "label_tokens": 40_000,
}
HOSTILE = 'x | y\n---\nlicense: mit\n---\n# <script>alert("1")</script> [a](javascript:b) `c` \x1b[31m'


def job_of(*overrides: str) -> TrainingJob:
    return TrainingJob(**build_all(compose_config("train", ["trainer=cpu", *overrides]), leave_out=NOT_OF_THE_JOB))


def card(job: TrainingJob, tmp_path: Path, metrics: dict[str, Any] | None = None) -> ModelCard:
    run = RunDirectory(tmp_path / "run")
    run.student.mkdir(parents=True, exist_ok=True)
    write_card(job, run, job.name, COUNTS, 70, metrics or {})
    return ModelCard.load(run.student / "README.md")


def base_folder(tmp_path: Path, header: str | None) -> Path:
    folder = tmp_path / "my base"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    if header is not None:
        (folder / "README.md").write_text(header)
    return folder


def test_a_card_says_where_the_student_comes_from(tmp_path: Path) -> None:
    """Fails if base, data, recipe, licence or scores are missing, or are not those of the run."""
    folder = base_folder(tmp_path, "---\nlicense: apache-2.0\nbase_model: owner/base\n---\n# Base\n")
    source = ["source=jsonl", f"source.path={tmp_path / 'rows.jsonl'}"]
    job = job_of("model=hub", f"model.weights={folder}", *source, "epochs=2", "seed=7")
    found = card(job, tmp_path, {"held_out/cautious/accuracy": 0.5, "held_out.sort/cautious/accuracy": 0.4})
    header = found.data.to_dict()
    assert (header["license"], header["base_model"], header["library_name"]) == (
        "apache-2.0",
        "owner/base",
        "transformers",
    )
    assert "datasets" not in header and str(tmp_path) not in found.content, "a path of this machine"
    for said in ("`my base`", "apache-2.0", "rows.jsonl", "1,200 rows: 1,100 trained on", "| 2 epochs |", "2e-05"):
        assert said in found.text, said
    assert "| optimizer steps | 70 |" in found.text and "| seed | 7 |" in found.text
    assert "| held_out/cautious/accuracy | 50.0% |" in found.text and "sort" not in found.text
    assert job.erasing.inference in found.text


def test_a_student_that_kept_its_instructions_says_so(tmp_path: Path) -> None:
    """Its card said that it chooses the strategy itself, and is asked under a message that it never saw."""
    kept, erased = card(job_of("erasing=keep"), tmp_path).text, card(job_of(), tmp_path).text
    assert "with that instruction in its prompt (`erasing=keep`), so that it learns to follow it" in kept
    assert "It never trained under that message" in kept and "choose the strategy itself" not in kept
    assert "choose the strategy itself" in erased and "never trained under" not in erased


def test_a_card_before_and_without_scores(tmp_path: Path) -> None:
    """Fails if a run that was killed between export and scores has no card, or one that promises figures."""
    assert "Not measured yet." in card(job_of(), tmp_path).text
    assert "None were measured." in card(job_of(), tmp_path, {"data/rows": 3, "samples": "answers.jsonl"}).text


def test_random_weights_have_no_licence_to_name(tmp_path: Path) -> None:
    """Fails if a card invents a base or a licence."""
    found = card(job_of(), tmp_path)
    assert {"license", "base_model"}.isdisjoint(found.data.to_dict())
    assert "random weights: there is no base model" in found.text


@pytest.mark.parametrize(
    "header", [None, "# no header\n", "---\nlicense: [a, b]\n---\n", "---\n: {\n---\n", "---\nlicense: other\n---\n"]
)
def test_an_unknown_licence_is_called_so(header: str | None, tmp_path: Path) -> None:
    """Fails if a base without a readable card ends the run, or passes for free."""
    folder = base_folder(tmp_path, header)
    assert base_of(str(folder)).licence is None
    found = card(job_of("model=hub", f"model.weights={folder}"), tmp_path)
    assert (found.data.to_dict()["license"], found.data.to_dict()["license_name"]) == ("other", "see-base-model")
    assert "unknown, see the base model" in found.text


def test_the_hub_s_base_is_named_also_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if the card needs the hub to be there, or leaves out a base and a data set that have names."""
    monkeypatch.setattr("lightning_modules.card.hf_hub_download", unreachable)
    job = job_of("model=smollm2_135m", "source=hub", "source.path=owner/set", f"source.revision={'0' * 40}")
    header = card(job, tmp_path).data.to_dict()
    assert (header["base_model"], header["datasets"]) == ("HuggingFaceTB/SmolLM2-135M", ["owner/set"])


def unreachable(*_: Any) -> str:
    raise OSError("no network")


def test_texts_of_a_config_stay_texts(tmp_path: Path) -> None:
    """Fails if a name or a system message ends a table or a fence, or writes a header, a heading or HTML."""
    message = f"Be careful.\n```\n# Not a heading\n{HOSTILE}"
    job = replace(job_of(), name=HOSTILE, erasing=FixedErasing(name="cautious", message=message))
    found = card(job, tmp_path, {HOSTILE: 0.5})
    assert yaml.safe_load(found.content.split("---\n")[1]) == found.data.to_dict()
    assert "license" not in found.data.to_dict()
    outside = found.text.split("````")
    assert len(outside) == 3 and message.replace("\x1b", "\ufffd") in outside[1]
    assert "\x1b" not in found.text and "\\<script" in outside[0] and "\\<script" in outside[2]
    headings = [line for line in (outside[0] + outside[2]).splitlines() if line.startswith("#")]
    assert len(headings) == 5 and "Not a heading" not in str(headings)
