"""Packs -> StepBatch: the training loader.

Pack k of lane l has the number g = k * lanes + l. Optimizer step s is made of the packs
s * P <= g < (s + 1) * P with P = packs_per_step, and pack j = g % P of a step goes to rank j % world. So
a step is the same set of packs for any number of ranks and workers.

    P = 4, lanes = 2, world = 2       step 0                    step 1
    lane 0                            k=0 -> j=0  k=1 -> j=2    k=2 -> j=0  k=3 -> j=2      rank 0
    lane 1                            k=0 -> j=1  k=1 -> j=3    k=2 -> j=1  k=3 -> j=3      rank 1

A rank renders the lanes that it has packs of: every lane where lanes = 1, its share where lanes is a
multiple of the ranks. Tokenization is divided among the workers of a rank (rendered_rows.py); packing is a few
microseconds an example and happens here, where the state is.

The end. Missing packs are empty. A rank that renders every lane knows when the stage ends, and leaves out
micro-batches that are empty on every rank. A rank that renders a share of the lanes asks `everyone_done`
before each step, and goes on with empty steps until all ranks are done.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orca2.data.collate import collate
from orca2.data.lanes import Lane, ReadyPack
from orca2.data.packing import PackingSpec
from orca2.data.rendered_rows import HeldOut, ReadPlan, Row, RowRenderer, read_rows
from orca2.errors import CheckpointError, ConfigError, DataError
from orca2.records import Rejected, StepBatch
from orca2.rows.source import Source
from orca2.strategies import StrategyChoice

STATE_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StepShape:
    """How the packs of a step are dealt out. Raises ConfigError where they cannot be dealt evenly."""

    packs_per_step: int
    """Packs of one optimizer step, over all ranks."""
    packs_per_micro_batch: int
    """Most packs of one forward pass on one rank; fewer where a rank's share of a step asks for it."""
    world: int = 1
    rank: int = 0

    def __post_init__(self) -> None:
        if self.packs_per_step < 1 or self.packs_per_micro_batch < 1:
            raise ConfigError(
                f"packs_per_step={self.packs_per_step} and "
                f"packs_per_micro_batch={self.packs_per_micro_batch} must be 1 or more"
            )
        if self.packs_per_step % self.world:
            raise ConfigError(
                f"packs_per_step={self.packs_per_step} cannot be dealt out to {self.world} ranks; use a multiple of "
                f"{self.world}, such as {math.ceil(self.packs_per_step / self.world) * self.world}"
            )

    @property
    def micro_batch(self) -> int:
        """Packs of one forward pass: the largest share of the rank's packs that is allowed and even."""
        own = self.packs_per_step // self.world
        return max(size for size in range(1, min(own, self.packs_per_micro_batch) + 1) if own % size == 0)

    def lanes_of_rank(self, lanes: int) -> list[int]:
        """The lanes that this rank has packs of. Raises ConfigError where lanes do not divide a step."""
        if self.packs_per_step % lanes:
            raise ConfigError(
                f"packs_per_step={self.packs_per_step} is not a multiple of packing.lanes={lanes}; "
                f"set lanes to a divisor, such as {math.gcd(self.packs_per_step, lanes)}"
            )
        share = math.gcd(lanes, self.world)
        return [lane for lane in range(lanes) if lane % share == self.rank % share]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLoader:
    """Iterates over the steps of a stage, from its start or from a saved state."""

    source: Source
    choice: StrategyChoice
    render: RowRenderer
    packing: PackingSpec
    shape: StepShape
    epochs: int
    seed: int
    workers: int
    """Processes that render; 0 renders in the main process."""
    state: Mapping[str, Any] | None = None
    """What `state_after` gave, merged over the ranks."""
    everyone_done: Callable[[bool], bool] | None = None
    """Whether this flag is true on every rank. A collective call; needed only where ranks share lanes."""
    held: HeldOut = field(default_factory=HeldOut)
    """Rows that validate instead of training."""

    def __iter__(self) -> Iterator[StepBatch]:
        numbers = self.shape.lanes_of_rank(self.packing.lanes)
        lanes = {number: self._lane(number) for number in numbers}
        plan = ReadPlan(
            source=self.source,
            choice=self.choice,
            seed=self.seed,
            epochs=self.epochs,
            lanes=self.packing.lanes,
            starts={number: lane.next for number, lane in lanes.items()},
            replay=frozenset().union(*(lane.missing for lane in lanes.values())),
            held=self.held,
        )
        step = 0 if self.state is None else int(self.state["step"])
        rows = _some_usable(read_rows(plan, self.render, self.workers))
        while not self._done(self._is_dry(rows, lanes)):
            yield self._step(step, lanes)
            step += 1

    def state_after(self, batch: StepBatch) -> dict[str, Any]:
        """The state to continue from once `batch` is trained on: plain numbers, a few kilobytes a lane."""
        return {
            "version": STATE_VERSION,
            "step": batch.step + 1,
            "stage": self._stage(),
            "lanes": batch.lane_states,
        }

    def _stage(self) -> dict[str, Any]:
        """What a saved state depends on. Ranks, workers and micro-batches are not in it."""
        return {
            "source": self.source.name,
            "size": self.source.size,
            "seed": self.seed,
            "epochs": self.epochs,
            "length": self.packing.length,
            "waiting": self.packing.waiting,
            "lanes": self.packing.lanes,
            "packs_per_step": self.shape.packs_per_step,
        }

    def _lane(self, number: int) -> Lane:
        if self.state is None:
            return Lane(self.packing.length, self.packing.waiting)
        saved, here = self.state["stage"], self._stage()
        changed = [f"{key}: {saved[key]} -> {here[key]}" for key in here if saved[key] != here[key]]
        if self.state["version"] != STATE_VERSION or changed:
            raise CheckpointError(
                f"the saved position in the data does not fit this stage "
                f"({', '.join(changed) or 'other version'}); restore the settings, or start a new run"
            )
        states = {int(key): state for key, state in self.state["lanes"].items()}
        if number not in states:
            raise CheckpointError(
                f"the checkpoint holds lanes {sorted(states)} but not lane {number}; "
                "merge the states of all ranks when saving"
            )
        return Lane(self.packing.length, self.packing.waiting, states[number])

    def _sees_all(self, lanes: Mapping[int, Lane]) -> bool:
        return len(lanes) == self.packing.lanes

    def _is_dry(self, rows: Iterator[Row], lanes: Mapping[int, Lane]) -> bool:
        """Read until every lane has its packs of a step; True if the rows are at their end and no pack is
        left.
        """
        quota = self.shape.packs_per_step // self.packing.lanes
        while any(len(lane.ready) < quota for lane in lanes.values()):
            row = next(rows, None)
            if row is None:
                for lane in lanes.values():
                    lane.finish(self.epochs)
                break
            lanes[row.position[1] % self.packing.lanes].settle(row)
        return not any(lane.ready for lane in lanes.values())

    def _done(self, mine: bool) -> bool:
        return mine if self.everyone_done is None else self.everyone_done(mine)

    def _step(self, step: int, lanes: Mapping[int, Lane]) -> StepBatch:
        """Take the step's packs from the lanes; build those of this rank."""
        states: dict[int, Any] = {}
        slots: dict[int, ReadyPack] = {}
        for number, lane in lanes.items():
            for k in range(self.shape.packs_per_step // self.packing.lanes):
                if lane.ready:
                    pack = lane.ready.popleft()
                    slots[k * self.packing.lanes + number] = pack
                    states[number] = pack.state
            states.setdefault(number, lane.state)  # ran dry before this step
        own = {j // self.shape.world: pack for j, pack in slots.items() if j % self.shape.world == self.shape.rank}
        size = self.shape.micro_batch
        count = self.shape.packs_per_step // (self.shape.world * size)
        if self._sees_all(lanes):
            last = max((j for j, pack in slots.items() if pack.examples), default=0)
            count = last // self.shape.world // size + 1
        packs = [own[slot].examples if slot in own else () for slot in range(count * size)]
        tokens = [(row.info.useful_tokens, row.info.label_tokens) for pack in packs for row in pack]
        useful = sum(useful for useful, _ in tokens)
        return StepBatch(
            step=step,
            micro_batches=tuple(
                collate(
                    packs[begin : begin + size],
                    self.packing.length,
                    self.render.renderer.pad_id,
                    self.packing.isolate,
                )
                for begin in range(0, len(packs), size)
            ),
            rows=sum(pack.rows for pack in own.values()),
            rejected=tuple(row for pack in own.values() for row in pack.rejected),
            useful_tokens=useful,
            label_tokens=sum(labels for _, labels in tokens),
            padding_tokens=sum(bool(pack) for pack in packs) * self.packing.length - useful,
            lane_states=states,
        )


def _some_usable(rows: Iterator[Row]) -> Iterator[Row]:
    """Raises DataError where a whole epoch has no usable row; a stage that ends by tokens would never end."""
    first, usable = None, False
    for row in rows:
        if not usable and isinstance(row.item, Rejected):
            first = row.position[0] if first is None else first
            if row.position[0] > first + 1:  # the first epoch may have begun before, if this run was resumed
                raise DataError(f"no row of a whole epoch can be used; {row.item.row}: {row.item.reason}")
        usable = usable or not isinstance(row.item, Rejected)
        yield row


def merge_states(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One state from those of all ranks after the same step. Raises CheckpointError if steps differ."""
    steps = sorted({state["step"] for state in states})
    if len(steps) != 1:
        raise CheckpointError(f"the ranks' positions in the data are of different steps {steps}; use one checkpoint")
    lanes = {int(number): lane for state in states for number, lane in state["lanes"].items()}
    return {**states[0], "lanes": dict(sorted(lanes.items()))}


def rows_settled(state: Mapping[str, Any]) -> int:
    """Rows of the sources that a merged state has behind it, over all ranks."""
    return sum(int(lane["rows"]) for lane in state["lanes"].values())
