"""One lane: rendered rows in, packs out, with a small state after each pack.

Position k of every epoch goes to lane k % lanes. Each lane has a packer of its own, whose waiting examples
are carried from epoch to epoch and packed to the last at the end of the stage.

    state after a pack   {"next": [epoch, k],               first position that the lane has not settled
                          "waiting": [[epoch, k, n], ...],  positions whose examples wait, and their tokens
                          "rows": n}                        rows settled so far, by that pack or before

Rejected rows are settled with the next pack; at the very end with an empty one.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from orca2.data.packing import Packer
from orca2.data.rendered_rows import Position, Rendered, Row
from orca2.errors import CheckpointError
from orca2.records import Rejected


class ReadyPack(NamedTuple):
    """A closed pack, the rows settled with it, and the lane's state after it."""

    examples: tuple[Rendered, ...]
    rows: int
    rejected: tuple[Rejected, ...]
    state: dict[str, Any]


class Lane:
    """Packs the rows of one lane. `ready` holds closed packs until a step takes them."""

    def __init__(self, capacity: int, waiting: int, state: Mapping[str, Any] | None = None) -> None:
        self.ready: deque[ReadyPack] = deque()
        self._packer: Packer[Position] = Packer(capacity, waiting)
        self._examples: dict[Position, Rendered] = {}
        self._rejected: list[Rejected] = []
        self._rows = 0
        self._next: Position = (0, 0)
        self._missing: deque[tuple[Position, int]] = deque()
        if state is not None:
            self._rows = state["rows"]
            self._next = (state["next"][0], state["next"][1])
            self._missing.extend(((epoch, index), tokens) for epoch, index, tokens in state["waiting"])

    @property
    def next(self) -> Position:
        """The first position that is not settled."""
        return self._next

    @property
    def missing(self) -> frozenset[Position]:
        """Positions whose examples wait according to the saved state and must be read again."""
        return frozenset(position for position, _ in self._missing)

    @property
    def state(self) -> dict[str, Any]:
        """The state after all packs that were closed so far."""
        here = [(position, len(self._examples[position].ids)) for position in self._packer.waiting]
        waiting = [[*position, tokens] for position, tokens in (*self._missing, *here)]
        return {"next": list(self._next), "waiting": waiting, "rows": self._rows}

    def settle(self, row: Row) -> None:
        """Take one row: the next that a saved state waits for, or the lane's next position.

        Raises CheckpointError when a saved example is no longer what it was.
        """
        if self._missing:
            self._restore(row)
            return
        self._close_packs()  # a saved pool may hold another pack: the last row closed two
        self._next = (row.position[0], row.position[1] + 1)
        if isinstance(row.item, Rejected):
            self._rejected.append(row.item)
            return
        self._wait(row.position, row.item)
        self._close_packs()

    def finish(self, epochs: int) -> None:
        """Pack what waits; no row follows. Raises CheckpointError when a saved example never came."""
        if self._missing:
            raise CheckpointError(
                f"the source ends before {len(self._missing)} rows that the checkpoint refers to, such as "
                f"(epoch, position) {self._missing[0][0]}; it changed since. Restore it, or start a new run"
            )
        self._close_packs()
        self._next = (epochs, 0)
        self._close_packs(flush=True)
        if self._rejected:
            self._close([])

    def _restore(self, row: Row) -> None:
        _, tokens = self._missing.popleft()
        now = 0 if isinstance(row.item, Rejected) else len(row.item.ids)
        if isinstance(row.item, Rejected) or now != tokens:
            raise CheckpointError(
                f"(epoch, position) {row.position} of the source has {now} usable tokens, and {tokens} in "
                "the checkpoint: the data, the tokenizer or the erasing changed. Restore it, or start "
                "a new run"
            )
        self._wait(row.position, row.item)

    def _wait(self, position: Position, example: Rendered) -> None:
        self._examples[position] = example
        self._packer.add(position, len(example.ids))

    def _close_packs(self, flush: bool = False) -> None:
        while (pack := self._packer.pop(flush=flush)) is not None:
            self._close(pack)

    def _close(self, keys: Sequence[Position]) -> None:
        rejected = tuple(self._rejected)
        self._rejected = []
        self._rows += len(keys) + len(rejected)
        examples = tuple(self._examples.pop(position) for position in keys)
        self.ready.append(ReadyPack(examples, len(keys) + len(rejected), rejected, self.state))
