"""`strategy=measured`: probes find the known best strategy, are paid for once, and their outcome is used again."""

import asyncio
import io
import re
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from rich.console import Console

from orca2 import progress
from orca2.asking.budget import Budget, BudgetStop
from orca2.asking.cache import Cache
from orca2.asking.engine import asking
from orca2.asking.model import Model
from orca2.asking.models.http import HttpTeacher
from orca2.asking.models.rule import RuleTeacher
from orca2.errors import ConfigError, DataError
from orca2.rows.collections.procedural_tasks import ProceduralTasks
from orca2.rows.items import TaskItem
from orca2.serving.outcomes import Failure, Usage
from orca2.serving.retries import Retry
from orca2.settings import build, build_all, compose_config
from orca2.strategies import StrategyMixture
from orca2.synthesis import measuring
from orca2.synthesis.answering import AskedItem, Failing, ItemOutcome, request_of
from orca2.synthesis.measuring import MeasuredStrategy, Measurement, measured_mixture
from orca2.synthesis.pipeline import pre_flight
from orca2.synthesis.selection import Measured
from orca2.synthesis.synthesis_job import SynthesisJob
from orca2.tasks.catalogue import families

RETRY = Retry(attempts=2, first_seconds=0.0, longest_seconds=0.0)


def measured(*overrides: str) -> MeasuredStrategy:
    return build(compose_config("train", ["strategy=measured", *overrides]).strategy)  # type: ignore[no-any-return]


def measurement(
    teacher: Model, cache: Cache, strategy: MeasuredStrategy, instructions: str = "orca2", **changes: Any
) -> Measurement:
    library = build(compose_config(f"instructions/{instructions}").instructions)
    return replace(
        Measurement(
            strategy=strategy, instructions=library, teacher=teacher, cache=cache, budget=Budget(), retry=RETRY,
            timeout=5.0,
        ),
        **changes,
    )  # fmt: skip


def tasks(rows: int) -> ProceduralTasks:
    return ProceduralTasks(name="procedural", size=rows, seed=3, level=1)


def known_teacher(seed: int) -> tuple[RuleTeacher, dict[str, str]]:
    """A rule teacher whose best strategy per family is drawn, ahead of the others by 15 points or more."""
    rng, rates, best = Random(seed), {}, {}
    for name, family in families().items():
        least, best[name] = rng.uniform(0.02, 0.2), rng.choice(family.strategies)
        rates[name] = {
            strategy: least if strategy == best[name] else least + 0.15 + rng.uniform(0, 0.8 - least)
            for strategy in family.strategies
        }
    return RuleTeacher(name="rule", seed=seed, error_rate=0.0, error_rates=rates), best


def test_the_known_best_is_found_with_less_than_half_of_the_grid() -> None:
    """The acceptance of measured selection: real traces, real extraction and verdicts, known error rates."""
    found = total = calls = grid = 0
    for seed in range(2):
        teacher, best = known_teacher(seed)
        with Cache(":memory:") as cache:
            probes = measurement(teacher, cache, measured(f"strategy.seed={seed}"))
            evidence = asyncio.run(probes.evidence(probes.groups(tasks(14 * 128 * 2).stream()), "run"))
        assert set(evidence) == set(best)
        found += sum(evidence[name].chosen == best[name] for name in best)
        total += len(best)
        calls += sum(one.calls for one in evidence.values())
        grid += sum(one.full_grid for one in evidence.values())
    assert found >= 0.95 * total and total == 28
    assert calls < 0.5 * grid


def test_probes_are_answers_of_the_synthesis(loopback: Any, tmp_path: Path) -> None:
    """A probe under another request than the synthesis sends is paid for twice."""
    with loopback.serving() as server, Cache(tmp_path / "cache.sqlite") as cache:
        teacher = http_teacher(server.url)
        probes = measurement(teacher, cache, measured("strategy.probes=2", "strategy.round_size=2"))
        items = list(tasks(14).stream())
        evidence = asyncio.run(probes.evidence(probes.groups(items), "run"))
        before = server.counters()["requests"]
        assert before == sum(one.calls for one in evidence.values()) > 14
        mixture = probes.strategy.mixture({name: str(one.chosen) for name, one in evidence.items()})
        wanted = [request_of(AskedItem(item, probes.instructions.instruct(item, mixture)), teacher) for item in items]  # type: ignore[arg-type]

        async def ask_all() -> None:
            async with asking(teacher, cache, Budget(), "run", RETRY) as asked:
                await asyncio.gather(*map(asked.ask, wanted))

        asyncio.run(ask_all())
        assert server.counters()["requests"] == before


def test_probes_count_against_the_budget(loopback: Any, tmp_path: Path) -> None:
    """A grid of strategies is the most expensive part of a small data set."""
    with loopback.serving() as server, Cache(tmp_path / "cache.sqlite") as cache:
        probes = measurement(http_teacher(server.url), cache, measured(), budget=Budget(max_requests=5))
        with pytest.raises(BudgetStop, match="max_requests=5"):
            asyncio.run(probes.evidence(probes.groups(tasks(28).stream()), "run"))
        assert server.counters()["requests"] == 5


def test_an_outage_is_no_evidence(loopback: Any, tmp_path: Path) -> None:
    """Probes that a server did not answer, counted as wrong: the choice of a bad hour, frozen for the data set."""
    strategy, items = measured("strategy.probes=2", "strategy.round_size=2"), list(tasks(14).stream())
    with Cache(tmp_path / "cache.sqlite") as cache:
        with loopback.serving(loopback.Faults(error=0.3)) as server:
            probes = measurement(http_teacher(server.url), cache, strategy)
            with pytest.raises(DataError, match=r"no answer: exhausted.*nothing is chosen"):
                asyncio.run(probes.evidence(probes.groups(items), "run"))
            kept = len(cache)
        with loopback.serving() as server:
            probes = measurement(http_teacher(server.url), cache, strategy)
            evidence = asyncio.run(probes.evidence(probes.groups(items), "run"))
            calls = sum(one.calls for one in evidence.values())
            assert server.counters()["requests"] == calls - kept < calls


def test_an_answer_that_was_cut_off_costs_its_tokens() -> None:
    """A strategy whose answers are too long would look free, and win the ties."""
    item = next(row for row in tasks(1).stream() if isinstance(row, TaskItem))
    usage = Usage(prompt_tokens=1, completion_tokens=40)
    failure = Failure(kind="truncated", reason="length", usage=usage)
    answered = ItemOutcome(item=item, strategy="direct", failures=(Failing(0, failure),))
    assert measuring._measured(answered) == Measured("wrong", 40)


def test_probes_and_rest_are_estimated_before_any_is_paid() -> None:
    """`estimate=true` that ends in an error, and a grid of probes that is paid before its price is told."""
    cfg = compose_config(
        "synthesize", ["strategy=measured", "teacher=vllm_server", "teacher.model=m", "size=28", "out_dir=x"]
    )
    job = SynthesisJob(**build_all(cfg, leave_out=("out_dir",)))
    printed = Console(file=io.StringIO(), width=200)
    with Cache(":memory:") as cache:
        pre_flight(job, cache, printed)
    items = [row for row in job.reader.stream() if isinstance(row, TaskItem)]
    grid = sum(len(item.offered or ()) for item in items)
    text = printed.file.getvalue()  # type: ignore[attr-defined]
    assert f"estimate for {grid} probes" in text and f"{grid} requests of teacher vllm_server" in text
    assert "estimate for 28 items: 28 requests" in text


def test_a_stored_outcome_is_used_again(tmp_path: Path) -> None:
    """A resumed synthesis that measures anew may choose otherwise, and mixes two data sets in one."""
    teacher, best = known_teacher(0)
    console = Console(file=io.StringIO())
    with Cache(":memory:") as cache:
        probes = measurement(teacher, cache, measured("strategy.probes=16"))
        first = measured_mixture(probes, tasks(14 * 16).stream(), "measured_x", tmp_path, "run", console)
        second = measured_mixture(probes, (), "measured_x", tmp_path, "run", console)
    assert first == second and isinstance(first, StrategyMixture) and set(first.by_task) == set(best)
    option = tmp_path / "strategy" / "measured_x.yaml"
    assert option.is_file() and option.with_suffix(".md").is_file()
    assert "| **chosen** |" in option.with_suffix(".md").read_text()


def test_probes_say_how_far_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half an hour without a word looks like a process that hangs."""
    monkeypatch.setattr(progress, "PLAIN_S", 0.0)
    console = Console(file=io.StringIO(), width=1000)
    with Cache(":memory:") as cache:
        probes = measurement(known_teacher(0)[0], cache, measured("strategy.probes=32"))
        measured_mixture(probes, tasks(14 * 32).stream(), "measured_x", tmp_path, "run", console)
    *lines, last = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    asked, most = (int(one.replace(",", "")) for one in re.findall(r"[\d,]+", last)[:2])
    assert len(lines) == asked < most, "one line for each probe at this pause"
    assert lines[0].startswith(f"measuring strategies: 1 probes of at most {most:,}, 0 of 14 groups settled  left at")
    settled = [int(line.split(", ")[1].split()[0]) for line in lines]
    assert settled == sorted(settled) and settled[-1] > 0


def test_what_cannot_be_measured_is_said(tmp_path: Path) -> None:
    """Evidence about messages that are drawn at random, or a mixture that silently falls back to its default."""
    with Cache(":memory:") as cache:
        teacher = RuleTeacher(name="rule", seed=0, error_rate=0.0)
        probes = measurement(teacher, cache, measured(), instructions="orca1")
        with pytest.raises(ConfigError, match="instructions=orca2"):
            asyncio.run(probes.evidence(probes.groups(tasks(14).stream()), "run"))
    with pytest.raises(ConfigError, match=r"has yet to be measured.*strategy=<out_dir>"):
        measured().accepts("addition", "direct")
    with pytest.raises(ConfigError, match="nobody is asked"):
        measured("strategy.ask_teacher=false")
    with pytest.raises(ConfigError, match="probes is 2"):
        measured("strategy.probes=2")


def test_a_student_is_named_on_the_command_line(tmp_path: Path) -> None:
    """Any teacher may stand in for the student, so that a checkpoint behind a server can be measured as well."""
    cfg = compose_config("train", ["strategy=measured", "teacher@strategy.student=transformers_server"])
    assert cfg.strategy.student.name == "transformers_server"


def http_teacher(url: str) -> HttpTeacher:
    return HttpTeacher(
        name="loopback", model="m", base_url=url, api_key_env=None, max_tokens=40, temperature=0.0, top_p=None,
        seed=None, timeout_s=5.0, concurrency=16, start_concurrency=16, requests_per_minute=None,
        tokens_per_minute=None, token_limit_field="max_tokens", usd_per_million={"prompt": 1.0, "completion": 2.0},
    )  # fmt: skip
