"""Fixtures that several parts share: the loopback server, syntheses in this process, and stand-ins that make tests of
the stream exact and fast: a renderer whose lengths are chosen, a source of given lengths.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from orca2.data.loader import StepLoader, StepShape
from orca2.data.packing import PackingSpec
from orca2.data.rendered_rows import RowRenderer
from orca2.errors import DataError
from orca2.reasoning import Trace
from orca2.records import UNLABELLED, Example, Rejected, StepBatch, Tokens, Turn
from orca2.runs import RunDirectory
from orca2.settings import build_all, compose_config, storable
from orca2.strategies import Strategy, StrategyChoice
from orca2.synthesis.pipeline import synthesize
from orca2.synthesis.synthesis_job import OPERATIONAL, SynthesisJob
from tests.loopback import server as loopback_module


@pytest.fixture(scope="session")
def loopback() -> Any:
    """The module with the server of the tests."""
    return loopback_module


class Syntheses:
    """Makes data sets and looks into them; a fixture, because tests cannot import each other."""

    def make(self, out_dir: Path, *overrides: str, **changes: Any) -> str:
        """What was printed; `changes` are fields of the job that no config holds."""
        cfg = compose_config("synthesize", [f"out_dir={out_dir}", *overrides])
        job = replace(SynthesisJob(**build_all(cfg, leave_out=("out_dir",))), **changes)
        printed = StringIO()
        run = RunDirectory(out_dir, key="out_dir", operational=OPERATIONAL)
        synthesize(job, run, storable(cfg), overrides, Console(file=printed, width=200))
        return printed.getvalue()

    def rows(self, out_dir: Path, folder: str = "data") -> list[dict[str, Any]]:
        """All rows of a data set in the order of its shards."""
        return [row for path in sorted((out_dir / folder).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]

    def lines(self, out_dir: Path, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (out_dir / name).read_text().splitlines()]

    def bytes(self, out_dir: Path) -> dict[str, bytes]:
        """Every file of rows by name."""
        files = [*out_dir.glob("*/*.parquet"), *out_dir.glob("*.jsonl")]
        return {str(path.relative_to(out_dir)): path.read_bytes() for path in sorted(files)}

    def record(self, out_dir: Path) -> dict[str, Any]:
        """What the manifest says of the output."""
        record: dict[str, Any] = json.loads((out_dir / "manifest.json").read_text())["output"]
        return record


@pytest.fixture(scope="session")
def data_sets() -> Syntheses:
    return Syntheses()


class UnaryRenderer:
    """The user text is a number n and the answer a number m: n prompt tokens, m - 1 answer tokens, the end
    token.
    """

    pad_id = 0
    end_id = 1

    def example(
        self,
        system: str,
        user: str,
        answer: str,
        history: Sequence[Turn] = (),
        loss_on_history: bool = False,
        trace: Trace | None = None,
    ) -> Tokens:
        if answer == "unspeakable":
            raise DataError("the answer cannot be rendered")
        prompt, label = int(user), int(answer)
        ids = [2 + (prompt * 7 + at) % 50 for at in range(prompt + label - 1)]
        return Tokens([*ids, self.end_id], [False] * prompt + [True] * label)


class ErasedByEpoch:
    """Renders nothing of the instruction; names the epoch, so that tests can see it."""

    name = "by_epoch"
    inference = ""

    def system(self, example: Example, epoch: int) -> str:
        return f"epoch {epoch}"


@dataclass(frozen=True)
class LengthsSource:
    """Row r has lengths[r] tokens; 0 stands for a broken row."""

    lengths: tuple[int, ...]
    name: str = "lengths"

    @property
    def size(self) -> int:
        return len(self.lengths)

    def read(self, row: int, choice: StrategyChoice) -> Example | Rejected:
        if self.lengths[row] == 0:
            return Rejected(source=self.name, row=f"row {row}", kind="broken", reason="no tokens")
        label = max(1, self.lengths[row] // 3)
        return Example(
            id=f"{self.name}/{row}",
            source=self.name,
            task="t",
            strategy=UNLABELLED,
            system="",
            user=str(self.lengths[row] - label),
            answer=str(label),
            teacher="rule",
        )


def _random_lengths(count: int, longest: int, seed: int = 5) -> LengthsSource:
    """Mostly short rows, one in thirty broken, one in thirty longer than `longest`."""
    rng = Random(seed)
    kinds = [rng.random() for _ in range(count)]
    return LengthsSource(
        tuple(0 if kind < 1 / 30 else longest + 1 if kind < 2 / 30 else rng.randint(2, longest // 2) for kind in kinds)
    )


@pytest.fixture
def random_lengths() -> Callable[..., LengthsSource]:
    return _random_lengths


@pytest.fixture
def lengths_source() -> type[LengthsSource]:
    return LengthsSource


@pytest.fixture
def direct() -> Strategy:
    return Strategy(name="direct", instruction="Answer at once.")


@pytest.fixture
def make_loader(direct: Strategy) -> Callable[..., StepLoader]:
    """A loader of unary rows: packs of 32 tokens, four to a step, unless a test says otherwise."""

    def make(source: Any, **changes: Any) -> StepLoader:
        named = {"length": 32, "isolate": True, "waiting": 8, "lanes": 1, "packs_per_step": 4}
        named |= {"packs_per_micro_batch": 1, "world": 1, "rank": 0}
        named |= {key: changes.pop(key) for key in list(changes) if key in named}
        packing = PackingSpec(name="t", **{k: named[k] for k in ("length", "isolate", "waiting", "lanes")})
        shape = StepShape(**{k: named[k] for k in ("packs_per_step", "packs_per_micro_batch", "world", "rank")})
        render = RowRenderer(
            renderer=UnaryRenderer(), erasing=ErasedByEpoch(), length=packing.length, loss_on_history=False
        )
        rest = {"choice": direct, "epochs": 2, "seed": 3, "workers": 0} | changes
        return StepLoader(source=source, render=render, packing=packing, shape=shape, **rest)

    return make


def _packs_of(batch: StepBatch) -> list[tuple[tuple[str, ...], tuple[int, ...]]]:
    """(example ids, token ids) of each micro-batch that holds an example."""
    return [
        (tuple(info.id for info in micro.examples), tuple(micro.ids_BT[0].tolist()))
        for micro in batch.micro_batches
        if micro.examples
    ]


@pytest.fixture
def packs_of() -> Callable[[StepBatch], list[tuple[tuple[str, ...], tuple[int, ...]]]]:
    return _packs_of
