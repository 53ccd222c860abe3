"""A synthesis from tasks to a data set, by one process or by several that share the work.

    rank r of w:   stream of items ▸ cleaning ▸ its share ▸ ask, verify ▸ work/<r>-of-<w>/   (answering.py)
    last rank:     all ranks' rows ▸ few-shot examples ▸ files, manifest ▸ card, browser ▸ DONE  (merging.py)

Nothing in `work/` is needed to go on after a crash: the same command goes through the items again, and every answer
that was paid for comes from the cache.
"""

import asyncio
import json
import shlex
import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from orca2.answers.verification.checkers import Verifier
from orca2.asking.budget import BudgetStop, Spending
from orca2.asking.cache import Cache
from orca2.asking.engine import Asking, asking
from orca2.asking.run_accounts import FOLDER, PROBES, RunAccounts, account_of
from orca2.data.identity import changed, require_same
from orca2.errors import CheckpointError
from orca2.files import atomic_write_json
from orca2.hashing import hash64
from orca2.records import Rejected
from orca2.rows.items import TaskItem
from orca2.rows.source import DigestedSource
from orca2.runs import RunDirectory, signature
from orca2.serving.outcomes import LASTING
from orca2.settings.option_files import quoted
from orca2.strategies import StrategyChoice
from orca2.synthesis.answering import Answering, AskedItem, ItemOutcome
from orca2.synthesis.cleaning.cleaning import OpenCleaning, merged
from orca2.synthesis.estimate import Estimate, estimate
from orca2.synthesis.evidence import outcome_path
from orca2.synthesis.items_line import ItemsLine
from orca2.synthesis.measuring import MeasuredStrategy, Measurement, measured_mixture
from orca2.synthesis.merging import NothingKept, example_row, write_data_set
from orca2.synthesis.publishing.publish import publish, push_and_tell
from orca2.synthesis.spill import Spill, remove
from orca2.synthesis.synthesis_job import OPERATIONAL, SynthesisJob

WORK, SUMMARY = "work", "summary.json"


class Stopped(Exception):
    """The process was asked to stop; everything answered is in the cache."""


def synthesize(
    job: SynthesisJob, run: RunDirectory, config: Mapping[str, Any], overrides: Sequence[str], console: Console
) -> None:
    """This process's share of a data set, and the data set itself where no other share is missing.

    Raises BudgetStop at a cap, Stopped after an interrupt, and the errors of `orca2.errors`.
    """
    digests = {job.tasks.name: job.tasks.digest} if isinstance(job.tasks, DigestedSource) else {}
    with run.locked(wait=True):
        if run.open_or_resume(config, overrides) == "done":
            _show_done(run, console)
            if changed(run, digests):
                console.print("[bold]the questions have changed since: out_dir=<folder> asks them anew[/bold]")
            if job.push_to_hub is not None:
                push_and_tell(run.path, job.push_to_hub, job.hub_private, console)
            return
        require_same(run, digests, begun=any((run.path / WORK).glob(f"*/{SUMMARY}")))
    rank = RunDirectory(run.path / WORK / account_of(job.rank, job.world), key=run.key)
    data_set = signature(config, OPERATIONAL)
    with rank.locked():
        _drop_other_worlds(run, job.world)
        with job.opened_cache() as cache:
            accounts = RunAccounts(cache, data_set, run.path / FOLDER)
            if isinstance(job.strategy, MeasuredStrategy):
                job = replace(job, strategy=measure(job, job.strategy, run, accounts, console))
            if not (rank.path / SUMMARY).exists():
                answer_share(job, rank.path, accounts, console)
            with run.locked(wait=True):
                finish(job, run, config, accounts, console)


def measure(
    job: SynthesisJob, strategy: MeasuredStrategy, run: RunDirectory, accounts: RunAccounts, console: Console
) -> StrategyChoice:
    """The strategy of each task as probes find it; one rank measures while the others wait for its outcome."""
    measurement = _measurement(job, strategy, accounts.cache)
    name = f"measured_{job.tasks.name}"
    with run.locked(wait=True), _interruptible(), accounts.noting(PROBES):
        if not outcome_path(run.path, name).is_file():
            if job.teacher.cached:
                pre_flight(job, accounts.cache, console)
            measurement = replace(measurement, budget=accounts.left(job.budget, PROBES, [PROBES]))
        return measured_mixture(measurement, _probed(job), name, run.path, accounts.run(PROBES), console)


def answer_share(job: SynthesisJob, folder: Path, accounts: RunAccounts, console: Console) -> None:
    """Ask this rank's items and leave their rows in `folder`; the summary says that all are there."""
    guess = pre_flight(job, accounts.cache, console) if job.teacher.cached else None
    with _interruptible(), accounts.noting(account_of(job.rank, job.world)):
        summary = asyncio.run(_answer_share(job, folder, accounts, guess, console))
    atomic_write_json(folder / SUMMARY, summary)


async def _answer_share(
    job: SynthesisJob, folder: Path, accounts: RunAccounts, guess: Estimate | None, console: Console
) -> dict[str, Any]:
    counts = Counter[str]()
    cleaning = job.cleaning.open()
    bought = accounts.purchase(job.budget, job.rank, job.world)
    if jobs := bought.cache.batches((bought.run, *bought.ended)):
        console.print(f"waiting for {len(jobs)} batch jobs of earlier processes")
    total = guess.read if guess is not None else _size(job)
    with Spill(folder) as spill, Verifier(job.verification.timeout) as verifier:
        plan = Answering(job.teacher, job.verification, verifier, (cleaning.check_answer,))
        async with asking(job.teacher, bought.cache, bought.budget, bought.run, job.retry, bought.ended) as ask:
            items = asked_items(job, spill, counts, cleaning)
            try:
                with ItemsLine(console, ask, total, counts) as line:
                    async for asked, answered in ask.map(items, plan, ordered=False):
                        assert isinstance(answered, ItemOutcome)
                        keep(spill, asked, answered, counts)
                        line.add(answered)
            except BudgetStop as stop:
                raise BudgetStop(f"{stop}{_cost_of_rest(guess, ask)}", stop.spending) from stop
            return {"counts": dict(counts), "cleaning": cleaning.report(), **_tally(ask)}


def finish(
    job: SynthesisJob,
    run: RunDirectory,
    config: Mapping[str, Any],
    accounts: RunAccounts,
    console: Console,
) -> None:
    """Write the data set from the rows of all ranks; only says so where some are missing. Call under the lock."""
    ranks = [run.path / WORK / account_of(rank, job.world) for rank in range(job.world)]
    missing = [rank.name for rank in ranks if not (rank / SUMMARY).exists()]
    if missing or run.is_done:
        console.print(f"this share is done; {', '.join(missing)} to come" if missing else f"{run.path} is done")
        return
    summaries = [json.loads((rank / SUMMARY).read_text(encoding="utf-8")) for rank in ranks]
    try:
        record = write_data_set(job, ranks, run.path / WORK / "few_shot", run.path)
    except NothingKept:  # the same command asks again what had no answer
        for rank in ranks:
            (rank / SUMMARY).unlink()
        raise
    spending = sum(accounts.taken().values(), Spending())
    record |= {
        "items_read": sum(summary["counts"]["read"] for summary in summaries),
        "spending": asdict(spending) | {"price_known": job.teacher.price is not None},
        "cleaning": merged([summary.pop("cleaning") for summary in summaries]),
        "ranks": summaries,
    }
    run.record("output", record)
    publish(run.path, job.name, record, config, job.erasing)
    if job.push_to_hub is not None:
        push_and_tell(run.path, job.push_to_hub, job.hub_private, console)
    run.mark_done()
    remove(run.path / WORK)
    _show_done(run, console)


def pre_flight(job: SynthesisJob, cache: Cache, console: Console) -> Estimate:
    """Print what this rank's requests will take, before anything is sent. Cleaning may still leave items out.

    Strategies still to be measured count with all their probes, and the rest as if no task had been measured.
    """
    console.print("estimating: every item is read once, nothing is sent")
    counts = Counter[str]()
    if isinstance(job.strategy, MeasuredStrategy):
        grid = _measurement(job, job.strategy, cache).grid(_probed(job))
        most = estimate(grid, job.teacher, cache, samples=1, counts=counts)
        for line in most.lines(job.teacher, "probes (every strategy on every item; fewer where one leads)"):
            console.print(line)
        job = replace(job, strategy=job.strategy.mixture({}))
    asked = asked_items(job, None, counts, None)
    guess = estimate(asked, job.teacher, cache, job.verification.samples, counts)
    for line in guess.lines(job.teacher):
        console.print(line)
    return guess


def asked_items(
    job: SynthesisJob, spill: Spill | None, counts: Counter[str], cleaning: OpenCleaning | None
) -> Iterator[AskedItem]:
    """This rank's items with their instructions. Items that are not asked go to `spill`; counts rows read and left out.

    Cleaning meets the items of all ranks, because it remembers them.

    Raises DataError where a collection is missing or too small.
    """
    for row in job.reader.stream():
        rejected, stage = (row, "read") if isinstance(row, Rejected) else (None, "clean")
        if isinstance(row, TaskItem) and cleaning is not None:
            rejected = cleaning.check_item(row)
        if not _is_mine(row, job):
            continue
        counts["read"] += 1
        if rejected is None and isinstance(row, TaskItem):
            instruction = job.instructions.instruct(row, job.strategy)
            if instruction is not None:
                yield AskedItem(row, instruction)
                continue
            reason = f"strategy {job.strategy.name!r} does not answer task {row.task!r}"
            rejected, stage = Rejected(source=row.collection, row=row.id, kind="left_out", reason=reason), "instruct"
        assert rejected is not None
        counts["not_asked"] += 1
        if spill is not None:
            spill.write("rejected", f"{rejected.source}/{rejected.row}", {**asdict(rejected), "stage": stage})


def keep(spill: Spill, asked: AskedItem, answered: ItemOutcome, counts: Counter[str]) -> None:
    """Put all that came of an item into the spill."""
    item = answered.item
    if answered.broken is not None:
        rejected = Rejected(source=item.collection, row=item.id, kind="broken", reason=answered.broken)
        spill.write("rejected", item.id, {**asdict(rejected), "stage": "ask"})
    if answered.kept is not None:
        counts["kept"] += 1
        spill.write("example", item.id, example_row(answered.kept, item.licence))
    for example, sample, reason in answered.others:
        row = example_row(example, item.licence)
        spill.write("answer", item.id, row | {"sample": sample, "reason": reason})
    for sample, failure in answered.failures:
        row = {"source": item.collection, "task": item.task, "strategy": answered.strategy, "sample": sample}
        spill.write("failure", item.id, row | asdict(failure))


def _measurement(job: SynthesisJob, strategy: MeasuredStrategy, cache: Cache) -> Measurement:
    return Measurement(
        strategy=strategy,
        instructions=job.instructions,
        teacher=job.teacher,
        cache=cache,
        budget=job.budget,
        retry=job.retry,
        timeout=job.verification.timeout,
    )


def _probed(job: SynthesisJob) -> Iterator[TaskItem]:
    """The items that may be probed: those of all ranks that cleaning leaves."""
    cleaning = job.cleaning.open()
    for row in job.reader.stream():
        if isinstance(row, TaskItem) and cleaning.check_item(row) is None:
            yield row


def _is_mine(row: TaskItem | Rejected, job: SynthesisJob) -> bool:
    """Equal questions fall to one rank, so that they are asked once even where ranks have caches of their own."""
    text = row.user if isinstance(row, TaskItem) else row.row
    return job.world == 1 or hash64(text) % job.world == job.rank


def _size(job: SynthesisJob) -> int | None:
    size = getattr(job.reader, "size", None)
    return None if size is None else (size - job.few_shot) // job.world


def _tally(ask: Asking) -> dict[str, Any]:
    tally = ask.tally
    return {
        "answered": tally.answered,
        "replayed": tally.replayed,
        "calls": tally.calls,
        "failures": dict(tally.failures),
        "troubles": dict(tally.troubles),
    }


def _cost_of_rest(guess: Estimate | None, ask: Asking) -> str:
    ended = ask.tally.ended
    if guess is None or not ended:
        return ""  # before the first outcome the estimate says it all
    rest = ask.taken.for_requests(max(0, guess.requests - ended), ended)
    return f". The rest is about {rest} at the mean so far"


def _drop_other_worlds(run: RunDirectory, world: int) -> None:
    """Remove the rows of another division of the work. Raises CheckpointError where it is under way."""
    for folder in (run.path / WORK).glob("*-of-*"):
        if folder.name.endswith(f"-of-{world}"):
            continue
        try:
            with RunDirectory(folder).locked():
                remove(folder)
        except CheckpointError as error:
            raise CheckpointError(
                f"{run.key} = {run.path}: {folder.name} is running there; all ranks need the same world"
            ) from error


def _show_done(run: RunDirectory, console: Console) -> None:
    record = json.loads(run.manifest.read_text(encoding="utf-8"))["output"]
    failed, not_asked = sum(record["failures"].values()), sum(record["not_asked"].values())
    console.print(
        f"{run.path} is done: {record['examples']:,} examples of {record['items_read']:,} items; "
        f"{record['answers_not_kept']:,} answers not kept, {failed:,} requests failed, {not_asked:,} items not asked"
    )
    for name in ("strategies", "verdicts", *["failures"] * bool(failed)):
        shown = ", ".join(f"{key} {count:,}" for key, count in record[name].items())
        console.print(f"  {name}: {shown}")
    if passing := sum(count for kind, count in record["failures"].items() if kind not in LASTING):
        console.print(
            f"  {passing:,} failures may pass: delete {run.done} and give the same command again, to ask them only"
        )
    spending = record["spending"]
    usd = f"{spending['usd']:.4f} USD" if spending["price_known"] else "price unknown"
    console.print(f"  spent: {spending['requests']:,} requests, {spending['tokens']:,} tokens, {usd}")
    console.print(f"train on it: {training_command(run.path)}", soft_wrap=True)


def training_command(out_dir: Path) -> str:
    """What trains on all rows of a data set, whatever strategies they were made under; for a shell."""
    overrides = ("source=synthesized", f"source.path={quoted(str(out_dir))}", "strategy=any")
    return shlex.join(["python", "train.py", *overrides])


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM as Ctrl-C; both as Stopped."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped("stopped; all answers are in the cache, the same command goes on from there") from None
    finally:
        signal.signal(signal.SIGTERM, before)
