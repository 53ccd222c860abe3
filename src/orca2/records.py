"""Records that cross a boundary (disk, process, device). Data without behaviour.

Frozen dataclasses hold text; named tuples hold tensors, because Lightning moves batches between
devices with `apply_to_collection`, which rebuilds named tuples but refuses frozen dataclasses.

Axes of tensors: B rows (always 1: packs are flattened), T tokens, N label tokens, D documents.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from torch import Tensor

UNLABELLED = "unlabelled"
"""Strategy label of examples that no strategy made, such as gold answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One earlier exchange of a conversation."""

    user: str
    answer: str
    loss: bool = True
    """Whether `answer` may bear loss, where `loss_on_history` asks for it; False for a turn of weight 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One question with the teacher's answer; one row on disk.

    `system` is the instruction that the *teacher* saw. What the student sees is decided at render
    time by an `Erasing`, so one data set serves every ablation.
    """

    id: str
    """`<source>/<row>`: stable, so that runs can be compared row by row."""
    source: str
    task: str
    """The task within the source; strategies are assigned per task."""
    strategy: str
    """Name of the strategy that made `answer`, or `UNLABELLED`."""
    system: str
    user: str
    answer: str
    """What the teacher gave as its answer, without its reasoning trace."""
    teacher: str
    """Model and revision that wrote `answer`; `gold` for a data set's own answers."""
    reasoning: str = ""
    """The trace that a reasoning model wrote before `answer`, without markers; empty where there is none."""
    history: tuple[Turn, ...] = ()
    suggested: str | None = None
    """The task's own strategy, where the source of the question knows one; a mixture of strategies uses it for
    tasks that it does not name."""
    gold: str | None = None
    verdict: str | None = None
    lineage: str | None = None
    usage: Mapping[str, int] | None = None


AnswerKind = Literal["number", "choice", "yes_no", "word", "list", "order", "span", "expression", "gym", "text", "chat"]
"""How a final answer is read and compared, in tasks, rows, checks and benchmarks alike.

number            one number                     gym      what its generator's own scorer accepts
choice  yes_no    one labelled option            text     free text: no rule can say whether it is right
word    list      one word; a row of words       chat     a conversation: only a judge can
order             all labels in the right order
span              one or more pieces of text
expression        a formula

No part of the project handles all of them; each refuses those that it cannot handle, by name.
"""

ANSWER_KINDS: tuple[AnswerKind, ...] = get_args(AnswerKind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One held-out question with a checkable answer."""

    id: str
    task: str
    user: str
    gold: str
    kind: AnswerKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A row that does not train, and why. Never dropped in silence: counted and listed."""

    source: str
    row: str
    kind: Literal["broken", "too_long", "left_out", "held_out", "absent"]
    """`broken`: cannot be read; `too_long`: longer than a pack; `left_out`: another strategy's example; `held_out`: it
    validates; `absent`: a whole benchmark that could not be read, or a task of it that has no file."""
    reason: str


class Tokens(NamedTuple):
    """One rendered example."""

    ids: list[int]
    loss_mask: list[bool]
    """True on the answer's tokens and the end token, nowhere else."""


class ExampleInfo(NamedTuple):
    """What the accounts need to know of a packed example."""

    id: str
    source: str
    task: str
    strategy: str
    useful_tokens: int
    label_tokens: int


class MicroBatch(NamedTuple):
    """One or more packs flattened into one row: a single forward and backward pass.

    Isolation of documents is `lengths` and nothing else; no attention mask exists.

        ids_BT            a a a a b b b c c c c c p p      three examples and padding
        positions_BT      0 1 2 3 0 1 2 0 1 2 3 4 0 1
        lengths           (4, 3, 5, 2)                     documents, padding included as the last
        label_positions_N 1 2   5   9 10                   hidden state at t predicts ids[t + 1]
    """

    ids_BT: Tensor
    positions_BT: Tensor
    lengths: tuple[int, ...]
    """Length in tokens of each document in the row; sums to T. The padding of a pack is a document."""
    label_positions_N: Tensor
    labels_N: Tensor
    example_of_label_N: Tensor
    """Index into `examples` of the example that a label belongs to."""
    examples: tuple[ExampleInfo, ...]


class StepBatch(NamedTuple):
    """All that one rank does in one optimizer step. One item of the training loader."""

    step: int
    """Index of the optimizer step within the stage, from 0."""
    micro_batches: tuple[MicroBatch, ...]
    rows: int
    """Rows of the sources that this rank settled in this step: packed, rejected or left out."""
    rejected: tuple[Rejected, ...]
    useful_tokens: int
    label_tokens: int
    padding_tokens: int
    lane_states: dict[int, Any]
    """State of each lane that this rank packs, after its last pack of this step."""
