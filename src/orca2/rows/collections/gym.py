"""The generators of reasoning-gym (extra `gym`) as a collection; each has its own scorer.

    lineage `chain_sum size=100 seed=0 index=7`  ──▶ entry_of(lineage) ──▶ score_answer(text, entry)

The deny-list comes from reading and probing every scorer of release 0.1.25; see DENIED.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from orca2.errors import ConfigError, DataError
from orca2.records import Rejected
from orca2.rows.items import TaskItem

_RUNS = "hands the answer to {}, so that a teacher's text would run as Python"

DENIED: Mapping[str, str] = {
    "game_of_life_halting": "its scorer accepts every answer that is not empty",
    "coin_flip": "its scorer accepts 0 for small probabilities",
    "codeio": "runs generated code, and gives other items each time for one seed",
    "boxnet": "has no known answer, and its scorer raises on bad input",
    "graph_color": "has no known answer",
    "propositional_logic": "has no known answer",
    "rubiks_cube": "has no known answer",
    "rush_hour": "has no known answer",
    "composite": "is a mixture of the others",
    **dict.fromkeys(("binary_matrix", "n_queens", "spiral_matrix", "string_insertion"), _RUNS.format("eval")),
    **dict.fromkeys(
        (
            "countdown",
            "intermediate_integration",
            "polynomial_multiplication",
            "puzzle24",
            "simple_integration",
        ),
        _RUNS.format("sympy's parse_expr, which is eval"),
    ),
}
"""Generator to the reason why it cannot give verified data."""

RELEASE = "0.1.25"

_LINEAGE = re.compile(r"(\w+) size=(\d+) seed=(\d+) index=(\d+)")


@dataclass(frozen=True, kw_only=True)
class ReasoningGym:
    """`per_task` items of each named generator, or of all that are not denied.

    Raises:
        ConfigError: the library is missing or of another release, a generator is unknown or denied.
    """

    name: str
    per_task: int
    seed: int
    generators: Sequence[str] | None = None

    def __post_init__(self) -> None:
        known = set(_library().factory.DATASETS)
        for generator in self.generators or ():
            if generator in DENIED:
                raise ConfigError(f"tasks={self.name}: generator {generator!r} is denied: it {DENIED[generator]}")
            if generator not in known:
                raise ConfigError(f"tasks={self.name}: unknown generator {generator!r}; known: {sorted(known)}")
        if self.per_task < 1:
            raise ConfigError(f"tasks={self.name}: per_task is {self.per_task}; ask for at least 1 item")

    def stream(self) -> Iterator[TaskItem | Rejected]:
        for generator in sorted(self.generators or set(_library().factory.DATASETS) - set(DENIED)):
            data = _generator(generator, self.per_task, self.seed)
            for index in range(self.per_task):
                yield self._item(generator, index, data[index])

    def _item(self, generator: str, index: int, entry: dict[str, Any]) -> TaskItem | Rejected:
        row = f"{generator}:{index}"
        if not isinstance(entry["answer"], str) or not entry["answer"].strip():
            return Rejected(source=self.name, row=row, kind="broken", reason="the generator gives no answer")
        return TaskItem(
            id=f"{self.name}/{generator}/{self.seed}-{index}",
            collection=self.name,
            task=generator,
            category="generated_puzzle",
            user=entry["question"],
            gold=(entry["answer"].strip(),),
            answer_kind="gym",
            licence="generated (reasoning-gym, Apache-2.0)",
            lineage=f"{generator} size={self.per_task} seed={self.seed} index={index}",
        )


def gym_score(lineage: str, answer: str) -> float | None:
    """What the generator's own scorer gives, from 0 to 1; None where it raises. `answer` is the bare final answer.

    A scorer may never end: `verification.gym` calls this in a process that can be killed.
    Raises DataError for a lineage of another collection or of a denied generator.
    """
    data, entry = entry_of(lineage)
    try:
        return float(data.score_answer(answer.strip(), entry))
    except Exception:
        return None


@lru_cache(maxsize=1)
def entry_of(lineage: str) -> tuple[Any, dict[str, Any]]:
    """The data set and the entry behind an item. Raises DataError as `gym_score`."""
    match = _LINEAGE.fullmatch(lineage)
    if match is None or match[1] in DENIED:
        raise DataError(f"lineage {lineage!r} is not that of an allowed generator of reasoning-gym")
    data = _generator(match[1], int(match[2]), int(match[3]))
    return data, data[int(match[4])]


def _library() -> Any:
    try:
        import reasoning_gym
    except ImportError as error:
        raise ConfigError(
            "tasks=reasoning_gym needs the package reasoning-gym: pip install 'orca2-lightning[gym]'"
        ) from error
    from importlib.metadata import version

    if version("reasoning_gym") != RELEASE:
        raise ConfigError(
            f"reasoning-gym {version('reasoning_gym')} is installed; the deny-list was made for {RELEASE}, "
            "pip install 'orca2-lightning[gym]' brings it back"
        )
    return reasoning_gym


@lru_cache(maxsize=128)
def _generator(name: str, size: int, seed: int) -> Any:
    return _library().create_dataset(name, size=size, seed=seed)
