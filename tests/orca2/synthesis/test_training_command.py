"""The command that synthesize.py prints at its end trains on every row that it kept."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lightning_modules.job import open_data
from lightning_modules.training_job import NOT_OF_THE_JOB, TrainingJob
from orca2.modelling.build import build_tokenizer
from orca2.rendering.renderer import Renderer
from orca2.runs import RunDirectory
from orca2.settings import build_all, check_command_line, compose_config
from orca2.settings.option_files import options_by_name

CONF = Path(__file__).parents[3] / "conf"
OWN = """\
_target_: orca2.strategies.Strategy
name: of_my_own
instruction: Think of a number, then take another one.
"""


@pytest.mark.parametrize("strategy", ["direct", "mixed", "random", "measured", "of_my_own"])
def test_every_row_that_was_kept_is_used(strategy: str, tmp_path: Path, data_sets: Any, loopback: Any) -> None:
    """`strategy=direct` printed a command that used 22 % of the rows, and a strategy of one's own one that failed."""
    folder, own = tmp_path / "set of mine", tmp_path / "strategy" / "of_my_own.yaml"
    own.parent.mkdir()
    own.write_text(OWN)
    if strategy == "of_my_own":
        rows = tmp_path / "questions.jsonl"
        rows.write_text(
            "".join(json.dumps({"question": f"{n} + 1?", "answer": f"#### {n + 1}"}) + "\n" for n in range(40))
        )
        named = options_by_name([f"strategy={own}"], CONF)
        with loopback.serving() as server:
            served = ("teacher=vllm_server", "teacher.model=m", f"teacher.base_url={server.url}")
            printed = data_sets.make(folder, "tasks=gsm8k", f"tasks.path={rows}", *served, *named)
    else:
        fewer = ["strategy.probes=8"] if strategy == "measured" else []
        printed = data_sets.make(folder, "size=120", f"strategy={strategy}", *fewer)
    kept = data_sets.record(folder)["examples"]
    assert kept > 20
    (line,) = [line for line in printed.splitlines() if line.startswith("train on it: ")]
    python, script, *overrides = shlex.split(line.removeprefix("train on it: "))
    assert (python, script) == ("python", "train.py")
    check_command_line("train", overrides, CONF)
    cfg = compose_config("train", [*overrides, f"source.cache_dir={tmp_path}"])
    job = TrainingJob(**build_all(cfg, leave_out=NOT_OF_THE_JOB))
    renderer = Renderer(build_tokenizer(job.model, job.format), job.format)
    run = RunDirectory(tmp_path / "run")
    with run.locked():
        run.open_or_resume({"seed": 1}, [])
    data = open_data(job, renderer, run, Console(quiet=True))
    assert data.survey is not None and (data.survey.kept, data.survey.left_out.total()) == (kept, 0)
    for batch in data.train_dataloader():
        data.report.add(batch)
    assert data.report.kept == kept
