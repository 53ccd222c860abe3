"""A synthesis in this process: what is written, in which order, and what a second one may reuse."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orca2.asking.budget import BudgetStop
from orca2.data.procedural import ProceduralSource
from orca2.errors import CheckpointError, ConfigError, DataError
from orca2.records import Example
from orca2.rows.collections.procedural_tasks import ProceduralTasks
from orca2.rows.row_files import FileSource
from orca2.rows.source import survey
from orca2.settings import build, build_all, compose_config
from orca2.synthesis import pipeline
from orca2.synthesis.sampling import TaskMix
from orca2.synthesis.synthesis_job import SynthesisJob
from tests.loopback.modes import FORCED

SERVED = (
    "teacher=vllm_server", "teacher.model=m", "teacher.max_tokens=40", "teacher.timeout_s=2", "teacher.concurrency=64",
    "teacher.start_concurrency=64", "first_wait_s=0.01", "longest_wait_s=0.05", "attempts=12",
)  # fmt: skip

PRICE = ("teacher.usd_per_million.prompt=1", "teacher.usd_per_million.completion=2")


def content(example: Example | dict[str, Any]) -> tuple[str, ...]:
    names = ("task", "strategy", "system", "user", "answer", "gold")
    return tuple(example[name] if isinstance(example, dict) else getattr(example, name) for name in names)


def test_the_rule_teacher_writes_what_the_procedural_source_generates(tmp_path: Path, data_sets: Any) -> None:
    """A student of the stored data set would learn something else than the student of the generated one."""
    data_sets.make(tmp_path / "a", "size=300", "shard_rows=100")
    source = ProceduralSource(name="procedural", size=300, seed=17, split="train", level=1)
    mixed = build(compose_config("train").strategy)
    generated = [source.read(row, mixed) for row in range(300)]
    assert Counter(map(content, data_sets.rows(tmp_path / "a"))) == Counter(
        content(row) for row in generated if isinstance(row, Example)
    )
    stored = build(compose_config("train", ["source=synthesized", f"source.path={tmp_path / 'a'}"]).source)
    assert isinstance(stored, FileSource)
    stored = replace(stored, cache_dir=str(tmp_path / "cache"))
    stored.prepare()
    counts = survey(stored, mixed)
    assert counts is not None and counts.kept == 300
    read = [stored.read(row, mixed) for row in range(stored.size)]
    assert Counter(content(row) for row in read if isinstance(row, Example)) == Counter(
        map(content, data_sets.rows(tmp_path / "a"))
    )
    first = read[0]
    assert isinstance(first, Example) and first.verdict == "right" and first.usage is not None
    assert len({row.id for row in read if isinstance(row, Example)}) == 300


def test_shards_are_cut_from_one_order_and_counted(tmp_path: Path, data_sets: Any) -> None:
    """Another shard size must not shuffle the rows, and the manifest must name every file with its hash."""
    data_sets.make(tmp_path / "a", "size=120", "shard_rows=50")
    data_sets.make(tmp_path / "b", "size=120", "shard_rows=1000")
    shards = sorted(path.name for path in (tmp_path / "a" / "data").iterdir())
    assert shards == [f"train-0000{number}-of-00003.parquet" for number in range(3)]
    assert data_sets.rows(tmp_path / "a") == data_sets.rows(tmp_path / "b")
    record = data_sets.record(tmp_path / "a")
    assert [record["files"][f"data/{name}"]["rows"] for name in shards] == [50, 50, 20]
    assert record["examples"] == record["items_read"] == sum(record["strategies"].values()) == 120
    assert record["sources"]["procedural"]["licences"] == {"generated": 120}
    assert not (tmp_path / "a" / "work").exists() and (tmp_path / "a" / "DONE").exists()


def test_ranks_share_the_work_and_write_the_same_bytes(tmp_path: Path, data_sets: Any) -> None:
    """Two processes that split a data set must neither overlap nor leave a gap, in whatever order they end."""
    data_sets.make(tmp_path / "one", "size=90")
    assert "this share is done; 0-of-2 to come" in data_sets.make(tmp_path / "two", "size=90", "rank=1", "world=2")
    assert not (tmp_path / "two" / "data").exists()
    assert "is done: 90 examples" in data_sets.make(tmp_path / "two", "size=90", "rank=0", "world=2")
    assert data_sets.bytes(tmp_path / "one") == data_sets.bytes(tmp_path / "two")


def test_the_same_folder_is_done_or_refuses(tmp_path: Path, data_sets: Any) -> None:
    """Another config in a finished folder would be a data set that its manifest does not describe."""
    data_sets.make(tmp_path / "a", "size=30")
    before = data_sets.bytes(tmp_path / "a")
    assert "is done" in data_sets.make(tmp_path / "a", "size=30", "max_usd=3", "shard_rows=7")
    with pytest.raises(CheckpointError, match=r"out_dir = .*\n  - size: 30 in the folder, 31 now"):
        data_sets.make(tmp_path / "a", "size=31")
    assert data_sets.bytes(tmp_path / "a") == before


def test_answers_that_are_not_kept_stay_with_their_reasons(tmp_path: Path, data_sets: Any) -> None:
    """Rejected answers are half of a preference pair; lost, they would have to be paid for again."""
    overrides = ("size=180", "verification=verified", "verification.samples=3", "teacher.error_rate=0.5")
    data_sets.make(tmp_path / "a", *overrides)
    kept, others = data_sets.rows(tmp_path / "a"), data_sets.rows(tmp_path / "a", "rejected_answers")
    assert {row["verdict"] for row in kept} == {"right"} and len(kept) > 120
    assert {row["verdict"] for row in others} == {"wrong"}
    assert all(row["reason"].startswith("wrong: read ") and row["answer"] for row in others)
    tries = Counter(row["id"] for row in others)
    assert max(tries.values()) == 3
    answered = {row["id"] for row in kept}
    assert len(answered | set(tries)) == 180
    assert all(tries[one] < 3 for one in answered) and all(tries[one] == 3 for one in set(tries) - answered)


def test_cleaning_leaves_out_refuses_and_is_reported(tmp_path: Path, data_sets: Any, loopback: Any) -> None:
    """Repeated and contaminated rows that are paid for, or removed without a trace in manifest and card."""
    questions = (
        "What answer is two plus two?",
        "what answer is two plus two",
        "Name a river.",
        "What is the DROP one?",
    )
    names = ("t", "t", "t", "x_race_y")
    lines = [{"q": text, "a": "4", "task": name} for text, name in zip(questions, names, strict=True)]
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with loopback.serving() as server:
        data_sets.make(
            tmp_path / "a", *SERVED, f"teacher.base_url={server.url}", "tasks=flan2021", "strategy=direct",
            "strategy.instruction=Answer", f"tasks.folder={tmp_path / 'tasks'}", "tasks.columns.user=q",
            "tasks.columns.gold=a", "tasks.columns.task=task", "~tasks.columns.only",
        )  # fmt: skip
        # The repeated and the contaminated row are never asked.
        assert server.counters()["answered"] == 2
    record = data_sets.record(tmp_path / "a")
    assert (record["examples"], record["answers_not_kept"], record["not_asked"]) == (1, 1, {"clean": 2})
    reasons = {row["reason"] for row in data_sets.lines(tmp_path / "a", "rejected.jsonl")}
    assert any(reason.startswith("repeats flan2021/t/") for reason in reasons)
    assert "its task is made from the benchmark race" in reasons
    turned = data_sets.rows(tmp_path / "a", "rejected_answers")
    assert [(row["user"], row["reason"]) for row in turned] == [
        ("Name a river.", "the answer quotes the erased instruction")
    ]
    assert record["cleaning"]["duplicates"] == {"exact": 1, "near": 0}
    assert record["cleaning"]["contamination"]["benchmarks"]["race"]["lineage"] == 1
    assert record["cleaning"]["leaks"]["leaked"] == 1
    card = (tmp_path / "a" / "README.md").read_text()
    assert "1 of 2 answers quoted" in card and "| race | 1 | 0 | 0 |" in card
    assert "What answer is two plus two?" in (tmp_path / "a" / "browser.html").read_text()


def test_failures_are_typed_and_listed(tmp_path: Path, data_sets: Any, loopback: Any) -> None:
    """A row that vanished with its reason cannot be mended."""
    lines = [{"q": f"What is {n} + 1? {word}", "a": str(n + 1)} for n, word in enumerate(("", *FORCED[:6]))]
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with loopback.serving() as server:
        data_sets.make(
            tmp_path / "a", *SERVED, f"teacher.base_url={server.url}", "tasks=flan2021",
            f"tasks.folder={tmp_path / 'tasks'}", "tasks.columns.user=q", "tasks.columns.gold=a",
                "~tasks.columns.task", "~tasks.columns.only",
        )  # fmt: skip
    listed = data_sets.lines(tmp_path / "a", "failures.jsonl")
    kinds = Counter(row["kind"] for row in listed)
    assert kinds == {"too_long": 1, "filtered": 2, "refused": 1, "truncated": 1, "unparsable": 1}
    assert data_sets.record(tmp_path / "a")["failures"] == kinds
    assert len(data_sets.rows(tmp_path / "a")) == 1


def parts(order: tuple[str, ...], size: int) -> TaskMix:
    readers = {name: ProceduralTasks(name=name, size=size, seed=place, level=1) for place, name in enumerate("ab")}
    shares = dict.fromkeys(order, 1.0)
    return TaskMix(name="mix", parts={name: readers[name] for name in order}, shares=shares, caps={}, size=size, seed=0)


def test_reordered_tasks_give_the_same_bytes_and_cost_nothing(tmp_path: Path, data_sets: Any, loopback: Any) -> None:
    """The order of a config's entries must not decide what is paid for."""
    with loopback.serving() as server:
        served = (*SERVED, f"teacher.base_url={server.url}")
        data_sets.make(tmp_path / "a", *served, tasks=parts(("a", "b"), 60))
        before = server.counters()
        data_sets.make(tmp_path / "b", *served, f"cache={tmp_path / 'a' / 'cache.sqlite'}", tasks=parts(("b", "a"), 60))
        assert server.counters() == before and before["answered"] == before["unique_answered"] > 50
    assert data_sets.bytes(tmp_path / "a") == data_sets.bytes(tmp_path / "b")


def test_few_shot_examples_are_built_from_answered_ones(tmp_path: Path, data_sets: Any) -> None:
    """The paper's 55 of 819 thousand are not read from anywhere: they are made at the end."""
    reader = ProceduralTasks(name="a", size=1, seed=0, level=1)
    mix = TaskMix(
        name="mix", parts={"a": reader}, shares={"a": 9.0, "few_shot": 1.0}, caps={}, size=200, seed=0
    )  # fmt: skip
    data_sets.make(tmp_path / "a", tasks=mix)
    rows = data_sets.rows(tmp_path / "a")
    built = [row for row in rows if row["id"].endswith("/few_shot")]
    assert (len(rows), len(built)) == (200, 20)
    assert all("Now this one\n" in row["user"] and "shots " in row["lineage"] for row in built)
    assert data_sets.record(tmp_path / "a")["few_shot"] == 20


def test_the_estimate_comes_before_the_first_call(tmp_path: Path, data_sets: Any, loopback: Any) -> None:
    """A budget is decided on this figure."""
    with loopback.serving() as server:
        # No call hangs here, and a busy machine must not make one late: it would count as paid.
        priced = (*SERVED, "teacher.timeout_s=60", f"teacher.base_url={server.url}", "size=40", *PRICE)
        with pytest.raises(BudgetStop) as stop:
            data_sets.make(tmp_path / "a", *priced, "max_requests=15", "teacher.requests_per_minute=6000")
        assert server.counters()["requests"] == 15
        assert "The rest is about 25 requests" in str(stop.value)
        printed = data_sets.make(tmp_path / "a", *priced, "max_requests=40")
        assert "25 requests of teacher vllm_server, 15 more are in the cache" in printed
        assert server.counters()["requests"] == 40
    record = data_sets.record(tmp_path / "a")
    counters = server.counters()
    assert record["spending"]["requests"] == 40
    usd = (counters["prompt_tokens"] * 1.0 + counters["completion_tokens"] * 2.0) / 1e6
    assert record["spending"]["usd"] == pytest.approx(usd)


def test_the_rest_is_counted_by_this_run_alone(tmp_path: Path, data_sets: Any, loopback: Any) -> None:
    """Answers of another data set in the same cache, or calls refused for nothing, make the rest look small."""
    with loopback.serving(loopback.Faults(rate_limit=0.5, retry_after="0.01")) as server:
        served = (*SERVED, f"teacher.base_url={server.url}", f"cache={tmp_path / 'c.sqlite'}", "seed=1")
        priced = (*served, "teacher.usd_per_million.prompt=1000", "teacher.usd_per_million.completion=2000")
        data_sets.make(tmp_path / "a", *priced, "size=60")
        before = server.counters()
        with pytest.raises(BudgetStop) as stop:
            data_sets.make(tmp_path / "b", *priced, "tasks.seed=99", "size=80", "max_requests=50")
        after = server.counters()
    answered = after["answered"] - before["answered"]
    prompt, completion = (after[kind] - before[kind] for kind in ("prompt_tokens", "completion_tokens"))
    assert 10 < answered < 40
    usd = (1000 * prompt + 2000 * completion) / 1e6 / answered * (80 - answered)
    assert f"The rest is about {80 - answered} requests" in str(stop.value)
    assert f"{usd:.4f} USD at the mean so far" in str(stop.value)


def test_ranks_with_caches_of_their_own_keep_one_account(tmp_path: Path, data_sets: Any, loopback: Any) -> None:
    """The manifest and the card must not tell the cost of the last rank as that of the data set."""
    with loopback.serving() as server:
        for rank in range(2):
            data_sets.make(
                tmp_path / "a", *SERVED, f"teacher.base_url={server.url}", "size=40", f"rank={rank}", "world=2",
                f"cache={tmp_path / str(rank)}.sqlite",
            )  # fmt: skip
        counters = server.counters()
    spending = data_sets.record(tmp_path / "a")["spending"]
    assert spending["requests"] == counters["requests"] == counters["answered"] > 30
    assert spending["tokens"] == counters["prompt_tokens"] + counters["completion_tokens"]


def test_a_cap_in_usd_needs_a_price(tmp_path: Path, data_sets: Any) -> None:
    """A budget that nobody can count is not a budget; that must be said before anything is sent."""
    with pytest.raises(ConfigError, match="the price of 'm' is not known"):
        data_sets.make(tmp_path / "a", *SERVED, "max_usd=1")


@pytest.mark.parametrize("teacher", ["openai", "openai_batch"])
def test_a_missing_key_is_said_before_items_are_read(teacher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if all of FLAN is gone through before a run says that it cannot start."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    cfg = compose_config("synthesize", [f"teacher={teacher}", "teacher.model=m", "out_dir=x"])
    job = SynthesisJob(**build_all(cfg, leave_out=("out_dir",)))
    with pytest.raises(ConfigError, match="OPENAI_API_KEY, which is not set"):
        job.require_here()
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    job.require_here()


def test_nothing_kept_says_why(tmp_path: Path, data_sets: Any) -> None:
    """An empty data set that trains nothing is found here and not an hour into a run."""
    with pytest.raises(DataError, match=r"30 without an answer, such as: the rule teacher solves generated tasks only"):
        data_sets.make(tmp_path / "a", "tasks=arithmetic", "size=30")


def test_a_server_that_was_down_is_asked_again(tmp_path: Path, data_sets: Any, loopback: Any) -> None:
    """Fails if a small data set whose server was not up yet can only be begun anew in another folder."""
    with loopback.serving() as server:
        pass
    command = (*SERVED[:-1], "attempts=1", "size=8")
    with pytest.raises(DataError, match="run the same command again"):
        data_sets.make(tmp_path / "a", *command, f"teacher.base_url={server.url}")
    with loopback.serving() as server:
        data_sets.make(tmp_path / "a", *command, f"teacher.base_url={server.url}")
    assert len(data_sets.rows(tmp_path / "a")) == 8


def test_a_disk_without_room_keeps_the_shares_that_are_done(
    tmp_path: Path, data_sets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if every rank has to be started again because the last one could not write."""

    def no_room(*_: Any) -> None:
        raise DataError("no room")

    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "write_data_set", no_room)
        with pytest.raises(DataError, match="no room"):
            data_sets.make(tmp_path / "a", "size=28", "world=1")
    assert list((tmp_path / "a" / pipeline.WORK).glob(f"*/{pipeline.SUMMARY}"))
    data_sets.make(tmp_path / "a", "size=28", "world=1")
    assert len(data_sets.rows(tmp_path / "a")) == 28
