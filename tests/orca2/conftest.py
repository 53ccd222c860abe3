"""The loopback server as a fixture, and syntheses in this process."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from orca2.runs import RunDirectory
from orca2.settings import build_all, compose_config, storable
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
