"""`evaluate.py backend=openai` as a whole: what was answered is kept, and only the rest is asked."""

import contextlib
import io
from pathlib import Path

import pytest
from rich.console import Console

from orca2.errors import ModelError
from orca2.evaluation.evaluation_job import EvaluationJob, run_evaluation
from orca2.generation import Chat
from orca2.settings import build_all, compose_config, storable
from tests.loopback import server as loopback

HABITS = ("benchmark=procedural", "benchmark.questions_per_family=1", "backend=openai", "backend.first_wait_s=0.01",
          "backend.longest_wait_s=0.05", "student=owner/model")  # fmt: skip


def evaluate(folder: Path, url: str, *overrides: str) -> dict[str, float] | None:
    cfg = compose_config("evaluate", (*HABITS, f"backend.model.base_url={url}", *overrides))
    job = EvaluationJob(**build_all(cfg, leave_out=("out_dir",)))
    return run_evaluation(job, folder, storable(cfg), overrides, (), {}, Console(file=io.StringIO()))


def records(folder: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in folder.glob("shards/*.jsonl"))


@pytest.mark.parametrize("fault", ["malformed", "truncate", "error", "drop"])
def test_a_broken_server_costs_what_it_broke(fault: str, tmp_path: Path) -> None:
    """Fails if half an answer ends an evaluation in a traceback, or what was answered beside it is asked again."""
    with loopback.serving(loopback.Faults(**{fault: 0.2})) as server:
        with pytest.raises(ModelError, match=r"prompts have no answer.*same command again") as error:
            evaluate(tmp_path, server.url, "backend.retries=0")
        kept, asked = records(tmp_path), server.counters()["requests"]
        assert 0 < kept < asked and "and so in 1 more parts" in str(error.value)  # of two system messages
        server.faults = loopback.Faults()
        # How patient the client is does not make another evaluation.
        results = evaluate(tmp_path, server.url, "backend.retries=2", "backend.model.requests_per_minute=100000")
        assert results is not None and server.counters()["requests"] == 2 * asked - kept
    assert (tmp_path / "DONE").exists()


def test_a_broken_server_is_survived_where_it_heals(tmp_path: Path) -> None:
    """Fails if an evaluation asks a server once only, or counts a broken answer as an empty one."""
    faults = loopback.Faults(malformed=0.1, truncate=0.1, error=0.1, rate_limit=0.1, drop=0.1, retry_after="0.01")
    with loopback.serving(faults) as server:
        results = evaluate(tmp_path, server.url, "backend.retries=20")
        counters = server.counters()
    assert results is not None and counters["repeated_answers"] == 0
    samples = [value for key, value in results.items() if key.endswith("/n")]
    # The two messages of students without one of their own differ, so every sample is a request of its own.
    assert sum(samples) == counters["unique_answered"] < counters["requests"]


def test_an_evaluation_that_is_stopped_ends_its_calls(tmp_path: Path) -> None:
    """Fails if a stopped evaluation hangs until its server answers."""
    with loopback.serving(loopback.Faults(freeze_after=3)) as server:
        cfg = compose_config("evaluate", (*HABITS, f"backend.model.base_url={server.url}"))
        job = EvaluationJob(**build_all(cfg, leave_out=("out_dir",)))
        with job.backend.open(job.backend.find("m"), job.format, 0) as backend:
            answers = backend.answer([Chat(system="", user=f"{i}", max_new_tokens=5) for i in range(40)])
            found = [next(answers) for _ in range(3)]
            with contextlib.closing(answers):  # type: ignore[type-var]
                pass
        assert len(found) == 3 and server.counters()["answered"] == 3
