"""The run directory: start, continue, done, another config; whole files only; no secrets."""

import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from orca2.errors import CheckpointError
from orca2.files import atomic_write_json, atomic_write_text
from orca2.runs import RunDirectory, differing, signature, without_secrets

CONFIG: dict[str, Any] = {
    "name": "tiny-mixed",
    "run_dir": "runs/tiny-mixed",
    "seed": 17,
    "model": {"name": "tiny", "max_len": 128},
    "trainer": {"name": "cpu", "accelerator": "cpu", "precision": "32-true"},
    "logger": {"mode": "auto", "api_key": "hunter2"},
    "workers": 0,
}


def changed(**values: Any) -> dict[str, Any]:
    return {**CONFIG, **values}


def test_a_run_is_new_then_resumes_then_is_done(tmp_path: Path) -> None:
    """The three answers that a repeated command depends on."""
    run = RunDirectory(tmp_path / "run")
    assert run.open_or_resume(CONFIG, ["seed=17"]) == "new"
    assert run.open_or_resume(CONFIG, ["seed=17"]) == "resume"
    assert not run.is_done
    run.mark_done()
    assert run.is_done
    assert run.open_or_resume(CONFIG, ["seed=17"]) == "done"


def test_a_new_run_records_config_overrides_and_provenance(tmp_path: Path) -> None:
    """What a later reader needs to repeat the run."""
    run = RunDirectory(tmp_path)
    run.open_or_resume(CONFIG, ["seed=17", "logger.api_key=hunter2", "+model.end_token=<|end|>"])
    assert yaml.safe_load(run.config.read_text()) == without_secrets(CONFIG)
    assert run.overrides.read_text() == "seed=17\nlogger.api_key=(not stored)\n+model.end_token=<|end|>\n"
    manifest = json.loads(run.manifest.read_text())
    assert set(manifest) == {"config_signature", "git", "versions", "hardware", "resumed"}
    assert manifest["config_signature"] == signature(without_secrets(CONFIG))
    assert manifest["versions"]["torch"].startswith("2.")
    assert manifest["hardware"]["cores"] >= 1 and manifest["hardware"]["memory_gib"] > 0
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and "hunter2" in path.read_text()]


def test_operational_keys_may_change(tmp_path: Path) -> None:
    """A run must resume on another machine, and the record then says how it is computed now."""
    run = RunDirectory(tmp_path)
    run.open_or_resume(CONFIG, [])
    trainer = {"name": "one_gpu", "accelerator": "gpu", "precision": "32-true"}
    elsewhere = changed(workers=4, logger={"mode": "off"}, trainer=trainer, run_dir="/scratch/x")
    assert run.open_or_resume(elsewhere, ["workers=4"]) == "resume"
    assert yaml.safe_load(run.config.read_text())["workers"] == 4
    (resumed,) = json.loads(run.manifest.read_text())["resumed"]
    assert resumed["overrides"] == ["workers=4"] and resumed["hardware"]


def test_another_config_is_refused_with_the_keys_that_differ(tmp_path: Path) -> None:
    """Continuing with other numbers would make a run that no config describes."""
    run = RunDirectory(tmp_path)
    run.open_or_resume(CONFIG, [])
    run.mark_done()
    before = run.config.read_text()
    other = changed(seed=18, model={"name": "tiny"}, trainer={**CONFIG["trainer"], "precision": "bf16-mixed"})
    with pytest.raises(CheckpointError) as caught:
        run.open_or_resume(other, [])
    assert str(caught.value) == (
        f"run_dir = {tmp_path} holds a run of another config:\n"
        "  - model.max_len: 128 in the folder, None now\n"
        "  - seed: 17 in the folder, 18 now\n"
        "  - trainer.precision: '32-true' in the folder, 'bf16-mixed' now\n"
        "Give the values of the folder to continue that run, choose another folder with run_dir=<folder> "
        "(or another name=<name>), or delete the folder to start anew."
    )
    assert run.config.read_text() == before


def test_a_null_is_not_told_beside_the_entries_of_the_other() -> None:
    """`families: None in the folder, None now` says nothing."""
    some, none = {"source": {"families": {"sorting": 2}}}, {"source": {"families": None}}
    assert differing(some, none) == {"source.families.sorting": (2, None)}
    assert differing(none, some) == {"source.families.sorting": (None, 2)}
    assert differing(none, {"source": {"families": {}}}) == {"source.families": (None, {})}
    assert differing({"source": {"a": 1, "b": None}}, {"source": {"a": 1}}) == {"source.b": (None, None)}


@pytest.mark.parametrize(
    "kept", ["checkpoints/step-00000010/progress.json", "student/config.json", "1-a/DONE", "x.csv"]
)
def test_a_start_that_got_nowhere_is_replaced_and_any_work_is_not(tmp_path: Path, kept: str) -> None:
    """A mistyped path fails on its data; the same command with the right one was refused as another config."""
    run = RunDirectory(tmp_path / "run")
    run.open_or_resume(CONFIG, [])
    for name in ("metrics.csv", "samples.jsonl", "rejected.jsonl", "rejected.1.jsonl", "job.log", "wandb/x"):
        (run.path / name).parent.mkdir(exist_ok=True)
        (run.path / name).write_text("")
    with RunDirectory(run.path / "1-stage").locked(), pytest.raises(CheckpointError, match="another config"):
        run.open_or_resume(changed(seed=18), [])
    assert run.open_or_resume(changed(seed=18), ["seed=18"]) == "new"
    assert yaml.safe_load(run.config.read_text())["seed"] == 18
    assert json.loads(run.manifest.read_text())["config_signature"] == signature(changed(seed=18))
    assert {path.name for path in run.path.iterdir()} == {
        "config.yaml", "overrides.txt", "manifest.json", "job.log", "wandb", "1-stage"
    }  # fmt: skip
    (run.path / kept).parent.mkdir(parents=True, exist_ok=True)
    (run.path / kept).write_text("")
    with pytest.raises(CheckpointError, match="another config"):
        run.open_or_resume(CONFIG, [])


def test_signature_ignores_order_and_operational_keys_only() -> None:
    """Caches and comparisons rest on it."""
    reordered = dict(reversed(CONFIG.items()))
    assert signature(reordered) == signature(CONFIG) == signature(changed(workers=9, name="other"))
    assert signature(changed(seed=18)) != signature(CONFIG)
    assert differing(CONFIG, changed(extra=None)) == {}  # a key that an older version did not have
    assert differing(CONFIG, changed(extra=False)) == {}
    assert differing(CONFIG, changed(extra=1)) == {"extra": (None, 1)}


def test_unreadable_record_is_one_clear_error(tmp_path: Path) -> None:
    """A damaged folder must neither crash with a foreign traceback nor be overwritten."""
    run = RunDirectory(tmp_path)
    run.open_or_resume(CONFIG, [])
    run.config.write_text("{")
    with pytest.raises(CheckpointError, match=r"cannot be read \("):
        run.open_or_resume(CONFIG, [])
    run.config.unlink()
    with pytest.raises(CheckpointError, match="No such file"):
        run.open_or_resume(CONFIG, [])


def test_secrets_are_blanked_and_lookalikes_kept() -> None:
    """`end_token` is part of a format; `hf_token` is a credential."""
    config = {
        "token": "x",
        "WANDB_API_KEY": "x",
        "teacher": {"password": "x", "api_key": "${oc.env:KEY}"},
        "format": {"end_token": "<|im_end|>", "max_tokens": 3},
        "client_secret": None,
    }
    assert without_secrets(config) == {
        "token": "(not stored)",
        "WANDB_API_KEY": "(not stored)",
        "teacher": {"password": "(not stored)", "api_key": "${oc.env:KEY}"},
        "format": {"end_token": "<|im_end|>", "max_tokens": 3},
        "client_secret": None,
    }


def test_failed_write_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash between writing and renaming must cost nothing and leave no litter."""
    path = tmp_path / "results.json"
    atomic_write_json(path, {"a": 1})

    def crash(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="disk full"):
        atomic_write_text(path, "half")
    assert json.loads(path.read_text()) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]


def _try_to_lock(path: Path, answers: Any) -> None:
    try:
        with RunDirectory(path).locked():
            answers.put("locked")
    except CheckpointError as error:
        answers.put(str(error))


def test_two_processes_cannot_work_in_one_run(tmp_path: Path) -> None:
    """Two writers would mix their checkpoints and metrics."""
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    for expected in (f"run_dir = {tmp_path}: another process is running there", "locked"):
        with RunDirectory(tmp_path if expected != "locked" else tmp_path / "free").locked():
            child = context.Process(target=_try_to_lock, args=(tmp_path, answers))
            child.start()
            assert answers.get(timeout=30).startswith(expected)
            child.join(timeout=30)
    _try_to_lock(tmp_path, answers)
    assert answers.get(timeout=30) == "locked"


@pytest.mark.parametrize("where", ["file", "file/run"])
def test_a_run_folder_that_cannot_be_made_is_said(tmp_path: Path, where: str) -> None:
    """A mistyped path that ends in a traceback of `pathlib`, or waits for a lock that nobody holds."""
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be made or written"), RunDirectory(tmp_path / where).locked():
        pass


def test_a_run_from_before_a_group_existed_is_the_same_run(tmp_path: Path) -> None:
    """Every run that was begun before `thinking` existed could not be resumed."""
    drop = {"_target_": "orca2.thinking.Thinking", "name": "drop", "share": 0.0}
    assert signature(changed(thinking=drop)) == signature(CONFIG)
    assert signature(changed(thinking=drop | {"name": "keep"})) != signature(CONFIG)
    run = RunDirectory(tmp_path / "run")
    assert run.open_or_resume(CONFIG, []) == "new"
    assert run.open_or_resume(changed(thinking=drop), []) == "resume"
    assert differing(CONFIG, changed(thinking=drop)) == {}
    assert differing(CONFIG, changed(thinking={"name": "mix"})) == {"thinking.name": (None, "mix")}
