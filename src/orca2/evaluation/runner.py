"""Asks a backend everything in a plan that is not answered yet, and writes each sample down when it is done.

    plan ──▶ cells: benchmark × system message ──▶ of each, this rank's samples without a record
         ──▶ turn after turn: cut to the context, ask, extract, score ──▶ shards/<rank>.jsonl
    all ranks done ──▶ samples.jsonl in the plan's order

A rank's samples depend on their place in the plan alone, and the records of all ranks say which samples are
answered. So a run can go on with another batch size and another number of processes.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orca2.answers.extraction import Extraction
from orca2.errors import DataError
from orca2.evaluation.benchmark import Benchmark, Sample
from orca2.evaluation.context import fit_to_context
from orca2.evaluation.sample_plan import SamplePlan
from orca2.evaluation.sample_records import AnsweredTurn, RecordWriter, SampleRecord, read_records, to_line
from orca2.files import atomic_write_text
from orca2.generation import Backend, Chat, Unanswered
from orca2.processes.ranks import Ranks
from orca2.records import Turn

SAMPLES = "samples.jsonl"
SHARDS = "shards"


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedSample:
    """One sample of a plan under one system message."""

    key: str
    benchmark: Benchmark
    message: str
    """Name of the system message."""
    system: str
    """Text of the system message."""
    sample: Sample


def expand(plan: SamplePlan, messages: Mapping[str, str], identity: Mapping[str, str]) -> list[AskedSample]:
    """Every sample under every message, in the order of reports. `identity`: the backend's."""
    return [
        AskedSample(
            key=_key(planned.benchmark, sample, system, identity),
            benchmark=planned.benchmark,
            message=message,
            system=system,
            sample=sample,
        )
        for planned in plan.benchmarks.values()
        for message, system in messages.items()
        for sample in planned.samples
    ]


def _key(benchmark: Benchmark, sample: Sample, system: str, identity: Mapping[str, str]) -> str:
    asked = [benchmark.name, benchmark.version, benchmark.max_new_tokens, sample.id, *sample.turns, system]
    return hashlib.blake2b(json.dumps([asked, dict(identity)], sort_keys=True).encode(), digest_size=16).hexdigest()


def stored_records(folder: Path) -> tuple[dict[str, SampleRecord], list[str]]:
    """Records in the folder by key, of all ranks and earlier runs, and why other lines are not records."""
    found: dict[str, SampleRecord] = {}
    wrong = []
    for path in (folder / SAMPLES, *sorted((folder / SHARDS).glob("*.jsonl"))):
        for record in read_records(path) if path.exists() else ():
            if isinstance(record, str):
                wrong.append(record)
            else:
                found.setdefault(record.key, record)
    return found, wrong


def answer_missing(
    asked: list[AskedSample],
    known: Iterable[str],
    backend: Backend,
    folder: Path,
    rank: Ranks,
    on_done: Callable[[], None],
) -> None:
    """Ask this rank's share of what is not known, cell by cell. `on_done` is called after each sample.

    Raises:
        Unanswered: some samples have no answer, and all others do.
        ModelError: the backend cannot go on; DataError: the records cannot be written. What is done is kept.
    """
    unanswered: list[Unanswered] = []
    known = frozenset(known)
    mine = [one for one in asked[rank.rank :: rank.world] if one.key not in known]
    with RecordWriter(folder / SHARDS / f"{rank.rank}.jsonl") as writer:
        for cell in _cells(mine):
            for record in _answer_cell(cell, backend, unanswered):
                writer.write(record)
                on_done()
    if unanswered:
        others = f" (and so in {len(unanswered) - 1} more parts of the plan)" if len(unanswered) > 1 else ""
        raise Unanswered(f"{unanswered[0]}{others}")


def merge(asked: list[AskedSample], folder: Path) -> list[SampleRecord]:
    """Write `samples.jsonl`, in the order of `asked`, and remove the shards; returns the records.

    Raises:
        DataError: a sample has no record.
    """
    found, _ = stored_records(folder)
    missing = [one.sample.id for one in asked if one.key not in found]
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} samples have no record, such as {missing[0]!r}; give the same command again"
        )
    records = [found[one.key] for one in asked]
    atomic_write_text(folder / SAMPLES, "".join(f"{to_line(record)}\n" for record in records))
    if (folder / SHARDS).is_dir():
        shutil.rmtree(folder / SHARDS)
    return records


def _cells(asked: Iterable[AskedSample]) -> Iterator[list[AskedSample]]:
    """Runs of equal benchmark and message."""
    cell: list[AskedSample] = []
    for one in asked:
        if cell and (one.benchmark.name, one.message) != (cell[0].benchmark.name, cell[0].message):
            yield cell
            cell = []
        cell.append(one)
    if cell:
        yield cell


def _answer_cell(cell: list[AskedSample], backend: Backend, unanswered: list[Unanswered]) -> Iterator[SampleRecord]:
    """Records in the order in which answers arrive. A later turn is asked when all earlier ones are answered; one
    without an answer is left out, and its error goes to `unanswered`.
    """
    turns: list[list[AnsweredTurn]] = [[] for _ in cell]
    pending = list(range(len(cell)))
    while pending:
        chats, cuts = zip(*(_next_chat(cell[at], turns[at], backend) for at in pending), strict=True)
        waiting = []
        try:
            for index, reply in backend.answer(chats):
                at = pending[index]
                turns[at].append(AnsweredTurn.of(chats[index], reply, cuts[index]))
                if len(turns[at]) < len(cell[at].sample.turns):
                    waiting.append(at)
                else:
                    yield _record(cell[at], turns[at])
        except Unanswered as error:
            unanswered.append(error)
        pending = sorted(waiting)


def _next_chat(asked: AskedSample, done: Sequence[AnsweredTurn], backend: Backend) -> tuple[Chat, int]:
    """The chat for the turn after those that are done, and how many tokens were cut out of it."""
    turn = len(done)
    history = tuple(Turn(user=one.user, answer=one.output) for one in done)

    def chat(sample: Sample) -> Chat:
        return Chat(
            system=asked.system,
            user=sample.turns[turn],
            history=history,
            max_new_tokens=asked.benchmark.max_new_tokens,
            about=asked.sample,
        )

    return fit_to_context(asked.sample, chat, backend, cut=turn == 0)


def _unless_cut(extraction: Extraction, turn: AnsweredTurn, sample: Sample) -> Extraction:
    """A value that reaches to where the limit cut the answer may be a part of one: `Answer: 12` of 125."""
    whole = sample.kind in ("choice", "text", "chat") or turn.finish_reason == "stop"
    if whole or not extraction.ok or extraction.span is None or extraction.span[1] < len(turn.output.rstrip()):
        return extraction
    return Extraction((), False, "cut_off")


def _record(asked: AskedSample, turns: Sequence[AnsweredTurn]) -> SampleRecord:
    benchmark, sample = asked.benchmark, asked.sample
    extraction = _unless_cut(benchmark.read(turns[-1].output, sample), turns[-1], sample)
    return SampleRecord(
        key=asked.key,
        benchmark=benchmark.name,
        version=benchmark.version,
        domain=benchmark.domain,
        judgement=benchmark.judgement,
        kind=sample.kind,
        task=sample.task,
        message=asked.message,
        sample=sample.id,
        turns=tuple(turns),
        extraction=extraction,
        gold=sample.gold,
        choices=sample.choices,
        metadata=sample.metadata,
        scores=benchmark.score(extraction, sample),
    )
