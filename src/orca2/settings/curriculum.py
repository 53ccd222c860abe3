"""A curriculum: stages of training, one after the other, each a run of its own.

    runs/<name>/  1-flan/     student/ ──weights──┐         a whole run directory, with its own DONE
                  2-chatgpt/  student/ <──────────┘ ──┐     (and, where the stage asks, the optimizer's state)
                  3-gpt4/     student/ <──────────────┘
                  results.json  DONE                        of the whole

A stage says what differs from the root config; what it leaves at null is the root's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from orca2.erasing import Erasing
from orca2.errors import ConfigError
from orca2.names import is_file_name
from orca2.rows.source import Source
from orca2.strategies import StrategyChoice
from orca2.thinking import Thinking


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One fit. Raises ConfigError for values that cannot work."""

    name: str
    source: Source
    epochs: int | None = None
    """Passes over the source. None: the root's, unless `tokens` is given."""
    tokens: int | None = None
    """Useful tokens to train on, in as many passes as that takes."""
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    """Values over those of the root's optimizer, such as its learning rate and schedule."""
    held_out: Mapping[str, Any] = field(default_factory=dict)
    """Values over those of the root's held-out questions, such as how many are asked."""
    packs_per_step: int | None = None
    strategy: StrategyChoice | None = None
    erasing: Erasing | None = None
    thinking: Thinking | None = None
    replay: Mapping[str, float] = field(default_factory=dict)
    """Earlier stage -> rows of its source for each row of this stage's own, spread evenly. They are chosen, generated
    and erased as this stage's `strategy` and `erasing` say, not the earlier one's."""
    weights: str | None = None
    """Hub id or folder of the student to start from. None: the root's model in the first stage, else the student
    of the stage before."""
    optimizer_state: Literal["reset", "keep"] = "reset"
    """`keep`: go on with the moments that the stage before ended with."""
    expected_tokens: int | None = None
    """Useful tokens of one pass, an estimate for planning before any data is there."""

    def __post_init__(self) -> None:
        wrong = [
            f"{key} = {getattr(self, key)}: must be at least 1"
            for key in ("epochs", "tokens", "packs_per_step", "expected_tokens")
            if getattr(self, key) is not None and getattr(self, key) < 1
        ]
        if self.epochs is not None and self.tokens is not None:
            wrong.append("epochs and tokens are both given: a stage ends after the one or the other")
        if self.optimizer_state not in ("reset", "keep"):
            wrong.append(f"optimizer_state = {self.optimizer_state!r}: reset or keep")
        if self.optimizer_state == "keep" and self.weights is not None:
            wrong.append("optimizer_state = keep, but other weights than those that the state belongs to")
        wrong += [f"replay.{key} = {share}: must be above 0" for key, share in self.replay.items() if not share > 0]
        if wrong:
            raise ConfigError(f"stage {self.name!r}: " + "; ".join(wrong))


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """Stages in the order of the mapping. Raises ConfigError for stages that lean on later ones."""

    name: str
    stages: Mapping[str, Stage]

    def __post_init__(self) -> None:
        if not self.stages:
            raise ConfigError(f"curriculum {self.name!r} has no stages")
        wrong, earlier = [], list[str]()
        for key, stage in self.stages.items():
            if not is_file_name(key):
                wrong.append(f"stage {key!r} becomes a folder; no slashes, no dot at its start")
            known = ", ".join(earlier) or "none, it is the first"
            wrong += [f"stage {key!r} replays {name!r}; earlier stages: {known}" for name in stage.replay
                      if name not in earlier]  # fmt: skip
            if not earlier and stage.optimizer_state == "keep":
                wrong.append(f"stage {key!r} is the first: there is no optimizer state to keep")
            earlier.append(key)
        if wrong:
            raise ConfigError(f"curriculum {self.name!r}: " + "; ".join(wrong))


def stage_folder(run_dir: Path, number: int, key: str) -> Path:
    """Run directory of stage `number`, counted from 1."""
    return run_dir / f"{number}-{key}"
