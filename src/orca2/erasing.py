"""Erasing: which system message the student sees, when the teacher saw a detailed instruction.

    conf/erasing/   student trains under                   asked under, in evaluation and chat
    cautious        the paper's generic message            the paper's generic message
    empty           no message                             no message
    keep            the teacher's instruction              the paper's generic message
    mix             one of its members, per row and epoch  the paper's generic message

The generic message is written once, in `conf/erasing/cautious.yaml`; `keep` and `mix` compose that file as
`generic`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from orca2.errors import ConfigError
from orca2.hashing import hash64
from orca2.records import Example


class Erasing(Protocol):
    """The rule that decides which system message the student sees."""

    @property
    def name(self) -> str: ...

    @property
    def inference(self) -> str:
        """System message under which a student trained with this rule is evaluated and chatted with."""
        ...

    def system(self, example: Example, epoch: int) -> str:
        """System message under which the student trains on `example`; `epoch` counts from 0."""
        ...


@dataclass(frozen=True)
class FixedErasing:
    """The same message for every example: the instruction is erased."""

    name: str
    message: str

    @property
    def inference(self) -> str:
        return self.message

    def system(self, example: Example, epoch: int) -> str:
        return self.message


@dataclass(frozen=True)
class KeepInstruction:
    """The student sees what the teacher saw: the ablation without erasing.

    At inference no instruction exists, as nobody knows which strategy a new task needs; `generic` stands in.
    """

    name: str
    generic: FixedErasing

    @property
    def inference(self) -> str:
        return self.generic.message

    def system(self, example: Example, epoch: int) -> str:
        return example.system


@dataclass(frozen=True)
class MixedErasing:
    """A member drawn for each row and epoch, the same in every process.

    Raises:
        ConfigError: members and probabilities differ in their keys, a probability is negative, or they do
            not sum to 1.
    """

    name: str
    generic: FixedErasing
    members: Mapping[str, Erasing]
    probabilities: Mapping[str, float]
    seed: int

    def __post_init__(self) -> None:
        if not self.members or set(self.members) != set(self.probabilities):
            raise ConfigError(
                f"erasing={self.name}: members are {sorted(self.members)} but probabilities are given for "
                f"{sorted(self.probabilities)}; each member needs one probability"
            )
        negative = {name: p for name, p in self.probabilities.items() if not p >= 0}
        total = math.fsum(self.probabilities.values())
        if negative or not math.isclose(total, 1.0, abs_tol=1e-6):
            raise ConfigError(
                f"erasing={self.name}: probabilities {dict(self.probabilities)} sum to {total:g}; "
                "they must be 0 or more and sum to 1"
            )

    @property
    def inference(self) -> str:
        return self.generic.message

    def system(self, example: Example, epoch: int) -> str:
        drawn = hash64(f"{self.seed}/{epoch}/{example.id}") / 2**64
        # Sorted, so that the order of the YAML file does not change the draw.
        likely = sorted(name for name, probability in self.probabilities.items() if probability > 0)
        for name in likely:
            drawn -= self.probabilities[name]
            if drawn < 0:
                return self.members[name].system(example, epoch)
        # Probabilities that sum to a rounding error below 1.
        return self.members[likely[-1]].system(example, epoch)
