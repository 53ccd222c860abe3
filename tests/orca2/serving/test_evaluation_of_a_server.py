"""`evaluate.py backend=openai` as a whole: what was answered is kept, and only the rest is asked."""

import contextlib
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from orca2.asking.budget import BudgetStop
from orca2.errors import ConfigError, ModelError
from orca2.evaluation.evaluation_job import EvaluationJob, run_evaluation
from orca2.generation import Chat
from orca2.processes.ranks import Ranks
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


def texts(folder: Path) -> list[str]:
    lines = (folder / "samples.jsonl").read_text().splitlines()
    return [turn["output"] for line in lines for turn in json.loads(line)["turns"]]


def test_a_second_evaluation_asks_nothing(tmp_path: Path) -> None:
    """Fails if an evaluation in another folder, or under another version of the report, pays for its answers again."""
    cache = f"cache={tmp_path / 'answers.sqlite'}"
    with loopback.serving(loopback.Faults(error=0.1)) as server:
        first = evaluate(tmp_path / "one", server.url, cache)
        asked = server.counters()["requests"]
        # Neither the server's address nor the caps are part of a question.
        server.url = server.url.replace("127.0.0.1", "localhost")
        second = evaluate(tmp_path / "two", server.url, cache, "max_requests=1")
        assert server.counters()["requests"] == asked > 0
        third = evaluate(tmp_path / "three", server.url, cache, "student=owner/another")
        assert server.counters()["requests"] > asked
    assert first == second != {} and third is not None
    assert texts(tmp_path / "one") == texts(tmp_path / "two")


def test_what_was_answered_before_a_kill_is_in_the_cache(tmp_path: Path) -> None:
    """Fails if answers that were paid for and not yet written down are asked again."""
    with loopback.serving() as server:
        assert evaluate(tmp_path, server.url) is not None
        asked = server.counters()["requests"]
        for name in ("samples.jsonl", "results.json", "DONE"):
            (tmp_path / name).unlink()
        assert evaluate(tmp_path, server.url) is not None and server.counters()["requests"] == asked


def test_a_cap_is_never_passed(tmp_path: Path) -> None:
    """Fails if an evaluation takes more than it may, loses what it took, or does not say how to go on."""
    with loopback.serving() as server:
        for cap in (6, 6, 10):
            with pytest.raises(BudgetStop, match=rf"max_requests={cap} (could be passed.*higher|is used up.*raise it)"):
                evaluate(tmp_path, server.url, f"max_requests={cap}")
            assert server.counters()["requests"] <= cap
        assert records(tmp_path) == server.counters()["answered"] == 10
        with pytest.raises(ConfigError, match=r"max_usd=1.*price of 'owner/model' is not known"):
            evaluate(tmp_path, server.url, "max_usd=1")
        results = evaluate(tmp_path, server.url)
        assert results is not None and server.counters()["repeated_answers"] == 0
    assert sum(value for key, value in results.items() if key.endswith("/n")) == server.counters()["answered"]


def test_ranks_share_a_cap(tmp_path: Path) -> None:
    """Fails if each process of an evaluation takes as much as all of them may."""
    with loopback.serving() as server, contextlib.ExitStack() as stack:
        cfg = compose_config("evaluate", (*HABITS, f"backend.model.base_url={server.url}", "max_requests=9"))
        job = EvaluationJob(**build_all(cfg, leave_out=("out_dir",)))
        for rank in range(2):
            # On two machines: sqlite locks on one only, so each has a file of its own.
            place = Ranks(rank=rank, world=2, node=rank)
            backend = stack.enter_context(job.backend_of(place, tmp_path).open(job.backend.find("m"), job.format, 0))
            chats = [Chat(system="", user=f"{rank}, {i}", max_new_tokens=5) for i in range(9)]
            with pytest.raises(BudgetStop, match="max_requests=4"):
                list(backend.answer(chats))
        assert server.counters()["requests"] == 8
        assert sorted(path.name for path in tmp_path.glob("*.sqlite")) == [
            "student_cache-1.sqlite",
            "student_cache.sqlite",
        ]


def test_a_cap_in_usd_holds(tmp_path: Path) -> None:
    """Fails if the price of the served model does not reach the budget."""
    price = ("backend.model.usd_per_million.prompt=1000", "backend.model.usd_per_million.completion=1000")
    with loopback.serving() as server:
        with pytest.raises(BudgetStop, match=r"max_usd=2\.0 .*USD"):
            evaluate(tmp_path, server.url, *price, "max_usd=2.0")
        counters = server.counters()
    assert 0 < (counters["prompt_tokens"] + counters["completion_tokens"]) / 1000 <= 2.0


def test_caps_are_for_models_that_are_paid(tmp_path: Path) -> None:
    """Fails if a cap is silently without effect."""
    cfg = compose_config("evaluate", ("backend=gold", "max_usd=1", "cache=x.sqlite"))
    with pytest.raises(ConfigError, match="cache, max_usd: for models that are asked"):
        EvaluationJob(**build_all(cfg, leave_out=("out_dir",)))


def test_a_setting_that_was_wrong_can_be_mended_in_the_same_folder(tmp_path: Path) -> None:
    """Fails if the cache of an evaluation that got no answer makes its folder one of another config."""
    with loopback.serving(loopback.Faults(need_key=True)) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORCA2_TEST_KEY", "wrong")
        key = "backend.model.api_key_env=ORCA2_TEST_KEY"
        with pytest.raises(ModelError, match=r"backend\.model=vllm_server cannot be used: HTTP 401.*is kept"):
            evaluate(tmp_path, server.url, key, "backend.model.token_limit_field=max_completion_tokens")
        patch.setenv("ORCA2_TEST_KEY", loopback.KEY)
        assert evaluate(tmp_path, server.url, key) is not None


def test_a_batch_service_is_evaluated_too(tmp_path: Path) -> None:
    """Fails if a file of conf/teacher that asks a server cannot stand behind a backend."""
    batch = ("teacher@backend.model=openai_batch", "backend.model.api_key_env=null", "backend.model.poll_s=0.02",
             "backend.model.linger_s=0.1")  # fmt: skip
    with loopback.serving() as server:
        results = evaluate(tmp_path, server.url, *batch)
        counters = server.counters()
    assert results is not None and counters["batches"] == 2  # one for each system message
    assert sum(value for key, value in results.items() if key.endswith("/n")) == counters["unique_answered"]


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
