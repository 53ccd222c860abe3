"""Rows that validate: which they are, and that none of them trains, however the source is read."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from orca2.data.loader import StepLoader, merge_states
from orca2.data.mixture import Mixture
from orca2.data.rendered_rows import ReadPlan, read_rows
from orca2.data.validation_rows import ValidationRows, ValidationSpec, hold_out, validation_batches
from orca2.errors import ConfigError, DataError
from orca2.records import UNLABELLED, Example, Rejected


@dataclass(frozen=True)
class Asked:
    """Row r asks question r % `distinct` in 3 to 12 tokens; an eleventh of the rows is broken. Notes what is read."""

    name: str = "asked"
    size: int = 120
    distinct: int = 120
    read_rows: list[int] = field(default_factory=list, compare=False)

    def read(self, row: int, choice: Any) -> Example | Rejected:
        self.read_rows.append(row)
        if row % 11 == 3:
            return Rejected(source=self.name, row=f"row {row}", kind="broken", reason="a test")
        question = row % self.distinct
        # A renderer of tests takes the number for a length, so zeros before it make another question as long.
        text = "0" * (question // 10 + (30 if self.name == "b" else 0)) + str(3 + question % 10)
        return Example(
            id=f"{self.name}/{row}",
            source=self.name,
            task="t",
            strategy=UNLABELLED,
            system="",
            user=text if row % 2 else f" {text}\n",
            answer="4",
            teacher="rule",
        )


@dataclass(frozen=True)
class Streamed:
    """The rows of `asked` as a stream, in another order in each epoch."""

    asked: Asked
    name: str = "streamed"

    @property
    def size(self) -> int:
        return self.asked.size

    def stream(self, seed: int, epoch: int, start: int, choice: Any) -> Iterator[Example | Rejected]:
        rows = [row * (7, 11)[epoch % 2] % self.size for row in range(self.size)]
        yield from (self.asked.read(row, choice) for row in rows[start:])


def mixture(when_exhausted: Any = "continue") -> Mixture:
    inner = Mixture(name="inner", members={"b": Asked("b", 50, 50)}, when_exhausted="continue")
    return Mixture(name="m", members={"a": Asked("a", 90, 90), "inner": inner}, when_exhausted=when_exhausted)


def held(loader: StepLoader, rows: int) -> ValidationRows:
    return hold_out(loader.source, rows, loader.seed, loader.choice, loader.render)


def ids_of(found: ValidationRows) -> set[str]:
    return {row.info.id for row in found.rendered}


def trained(steps: Any) -> Counter[str]:
    return Counter(info.id for step in steps for micro in step.micro_batches for info in micro.examples)


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize(
    ("source", "taken"),
    [(Asked(), 20), (mixture(), 40), (mixture("repeat"), 40), (mixture("stop"), 40), (Streamed(Asked()), 20)],
    ids=["map", "mixture", "repeat", "stop", "stream"],
)
def test_rows_that_validate_never_train(make_loader: Any, source: Any, taken: int, world: int, lanes: int) -> None:
    """A row that trains in some epoch, on some rank or in a second lap of a mixture makes the loss on it a lie."""
    shapes = [make_loader(source, world=world, rank=rank, lanes=lanes, epochs=3) for rank in range(world)]
    found = held(shapes[0], 20)
    assert all((held(loader, 20).held, ids_of(held(loader, 20))) == (found.held, ids_of(found)) for loader in shapes)
    assert found.taken == taken and taken * 0.7 < len(found.rendered) <= taken
    steps = []
    for rank in range(world):
        steps += list(make_loader(source, world=world, rank=rank, lanes=lanes, epochs=3, held=found.held))
    seen = trained(steps)
    assert seen and not seen.keys() & ids_of(found)
    kinds = Counter(row.kind for step in steps for row in step.rejected)
    assert kinds["held_out"] > 0
    everything = trained(step for loader in shapes for step in loader)
    assert seen.keys() == everything.keys() - ids_of(found), "other rows train as they did"


def test_the_other_rows_keep_their_order(make_loader: Any) -> None:
    """Switching validation on must not shuffle the rest: two runs would differ in more than the rows held out."""
    loader = make_loader(Asked())
    found = held(loader, 20)
    plan = ReadPlan(
        source=loader.source, choice=loader.choice, seed=3, epochs=2, lanes=1, starts={0: (0, 0)}, replay=frozenset()
    )

    def order(plan: ReadPlan) -> list[str]:
        return [row.item.info.id for row in read_rows(plan, loader.render, 0) if not isinstance(row.item, Rejected)]

    rest = order(replace(plan, held=found.held))
    assert len(rest) > 100
    assert rest == [identity for identity in order(plan) if identity not in ids_of(found)]


def test_nothing_that_validates_trains_after_a_resume(make_loader: Any) -> None:
    """The rows that wait in a checkpoint are read again by another way than the rest."""
    found = held(make_loader(Asked()), 20)
    loader = make_loader(Asked(), held=found.held)
    whole = list(loader)
    state = merge_states([loader.state_after(whole[4])])
    assert state["lanes"][0]["waiting"]
    rest = list(make_loader(Asked(), held=found.held, state=state))
    assert trained(whole[:5]) + trained(rest) == trained(whole)
    assert not trained(rest).keys() & ids_of(found)


@pytest.mark.parametrize("make", [Asked, lambda **named: Streamed(Asked(**named))], ids=["map", "stream"])
def test_a_question_that_validates_trains_in_no_other_row(make_loader: Any, make: Any) -> None:
    """Half of some chat files are questions asked twice: the loss on a held-out copy would be that of a trained row."""
    source = make(size=120, distinct=40)
    found = held(make_loader(source), 10)
    steps = list(make_loader(source, held=found.held, epochs=1))
    questions = {int(identity.partition("/")[2]) % 40 for identity in ids_of(found)}
    assert 5 <= len(questions) < 10
    assert not {int(identity.partition("/")[2]) % 40 for identity in trained(steps)} & questions
    copies = [row for row in range(120) if row % 40 in questions and row % 11 != 3]
    rejected = [row for step in steps for row in step.rejected if row.kind == "held_out"]
    assert len(copies) <= len(rejected) <= len(copies) + 10


def test_every_stage_holds_out_the_same_rows(make_loader: Any) -> None:
    """A stage that replays an earlier one would train on the rows that the earlier one validates on, or the reverse."""
    alone = held(make_loader(Asked("a", 90, 90)), 20)
    replayed = held(make_loader(mixture("first")), 20)
    assert ids_of(alone) == {identity for identity in ids_of(replayed) if identity.startswith("a/")}
    renamed = held(make_loader(Asked("other", 90, 90)), 20)
    assert {name.partition("/")[2] for name in ids_of(alone)} == {name.partition("/")[2] for name in ids_of(renamed)}
    assert ids_of(alone) != ids_of(held(make_loader(Asked("a", 90, 90), seed=4), 20)), "the seed decides"
    assert ids_of(held(make_loader(Asked("a", 90, 90)), 10)) < ids_of(alone), "fewer are some of more"


def test_only_the_rows_that_validate_are_read(make_loader: Any) -> None:
    """To hold out 20 rows of a million-row file must not take reading the file."""
    source = Asked(size=10_000)
    held(make_loader(source), 20)
    assert len(source.read_rows) == 20


def test_numbers_that_cannot_be(make_loader: Any) -> None:
    """Too many rows, or rows that cannot be measured, must be said before weights load."""
    with pytest.raises(ConfigError, match=r"validation.rows = -1"):
        ValidationSpec(name="t", rows=-1, every_steps=1)
    with pytest.raises(ConfigError, match=r"validation.every_steps = 0"):
        ValidationSpec(name="t", rows=1, every_steps=0)
    with pytest.raises(DataError, match=r"validation.rows = 50, but source 'b' has 50 rows"):
        held(make_loader(mixture()), 50)
    with pytest.raises(DataError, match="none of the 20 rows that were held out"):
        held(make_loader(Asked(), length=4), 20)
    assert held(make_loader(Asked()), 0) == ValidationRows()


def test_each_row_is_measured_once(make_loader: Any) -> None:
    """A row that is packed twice, or dropped at the end, would weigh wrongly in the mean."""
    loader = make_loader(Asked())
    found = held(loader, 30)
    micros = validation_batches(found.rendered, loader.packing, 2, 0)
    assert Counter(info.id for micro in micros for info in micro.examples) == dict.fromkeys(ids_of(found), 1)
    assert sum(len(micro.labels_N) for micro in micros) == sum(row.info.label_tokens for row in found.rendered)
    assert {len(micro.ids_BT[0]) for micro in micros[:-1]} == {64}
