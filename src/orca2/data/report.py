"""The accounts of a stage: rows, tokens, and a list of the rejected rows on disk.

    {"kind": "broken", "source": "notes", "row": "line 17", "reason": "not JSON: ..."}      rejected.jsonl

Rejects go to the file as they come, each row once however many epochs meet it. Memory holds
eight bytes a row of them, up to a limit; beyond it rows are counted but no longer listed.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orca2.files import append_whole, atomic_write_text
from orca2.records import Rejected, StepBatch

MAX_LISTED = 100_000
"""Rows in the list. A longer one helps nobody; at this length the memory stays below 10 MB."""


KINDS = ("broken", "too_long", "left_out", "held_out")
"""Kinds of rejected rows that a stage counts."""
CHOSEN = ("left_out", "held_out")
"""Kinds that are a choice, not a fault: counted, not listed."""


class DataReport:
    """Adds up steps."""

    def __init__(self) -> None:
        self.rows = 0
        self.kept = 0
        self.rejected: Counter[str] = Counter()
        """Kind -> rows settled, over all epochs."""
        self.useful_tokens = 0
        self.label_tokens = 0
        self.padding_tokens = 0
        """Filler of packs that hold an example."""
        self._listed: set[bytes] = set()
        self._unwritten: list[Rejected] = []
        self._continued = False
        """Whether the rows listed before a resume are known."""

    @property
    def utilisation(self) -> float:
        """Useful tokens / (useful + padding) tokens; 1 before the first pack."""
        total = self.useful_tokens + self.padding_tokens
        return self.useful_tokens / total if total else 1.0

    def add(self, batch: StepBatch) -> None:
        """Count one step of one rank."""
        self.rows += batch.rows
        self.kept += batch.rows - len(batch.rejected)
        self.useful_tokens += batch.useful_tokens
        self.label_tokens += batch.label_tokens
        self.padding_tokens += batch.padding_tokens
        for row in batch.rejected:
            self.rejected[row.kind] += 1
            key = _key(row.source, row.row)
            if row.kind not in CHOSEN and key not in self._listed and len(self._listed) < MAX_LISTED:
                self._listed.add(key)
                self._unwritten.append(row)

    def write_rejected(self, path: Path) -> int:
        """Bring the list at `path` up to date; returns how many rows it gained. Raises OSError, as on a full disk.

        Rows that the file lists already, from before a resume, are not listed again. A line that a crash cut
        off is dropped.
        """
        if not self._unwritten:
            return 0
        new = self._unwritten
        if not self._continued:
            lines = _whole_lines(path)
            known = {_key(row["source"], row["row"]) for row in map(json.loads, lines)}
            atomic_write_text(path, "".join(lines))
            new = [row for row in new if _key(row.source, row.row) not in known]
            self._listed |= known
            self._continued = True
        append_whole(path, "".join(f"{_line(row)}\n" for row in new))
        self._unwritten = []
        return len(new)

    def summary(self) -> dict[str, Any]:
        """Plain numbers for a log or a table."""
        return {
            "rows": self.rows,
            "kept": self.kept,
            **{kind: self.rejected[kind] for kind in KINDS},
            "useful_tokens": self.useful_tokens,
            "label_tokens": self.label_tokens,
            "padding_tokens": self.padding_tokens,
            "utilisation": self.utilisation,
        }

    def state_dict(self) -> dict[str, Any]:
        """The counters; the list is on disk."""
        return self.summary()

    def load_states(self, states: Sequence[dict[str, Any]]) -> None:
        """Continue counting from the sum of saved states."""
        for key in ("rows", "kept", "useful_tokens", "label_tokens", "padding_tokens"):
            setattr(self, key, sum(state[key] for state in states))
        self.rejected = Counter()
        for state in states:
            # An older checkpoint does not know every kind.
            self.rejected.update({kind: state.get(kind, 0) for kind in KINDS})


def summed(summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One summary from those of all ranks."""
    total = DataReport()
    total.load_states(summaries)
    return total.summary()


def list_of_rank(path: Path, rank: int) -> Path:
    """Path of a rank's list of rejected rows; the first rank writes the run's own list."""
    return path if rank == 0 else path.with_name(f"{path.stem}.{rank}{path.suffix}")


def merge_lists(path: Path) -> None:
    """Move what the other ranks listed to the list at `path`, each row once."""
    lists = sorted(path.parent.glob(f"{path.stem}.*{path.suffix}"))
    lines = [line for each in (path, *lists) for line in _whole_lines(each)]
    rows = {(row["source"], row["row"]): line for line in lines for row in [json.loads(line)]}
    if lists:
        atomic_write_text(path, "".join(rows.values()))
    for each in lists:
        each.unlink()


def _key(source: str, row: str) -> bytes:
    return hashlib.blake2b(f"{source}\n{row}".encode(), digest_size=8).digest()


def _line(row: Rejected) -> str:
    # ASCII, so that a reason that quotes broken text cannot break the list.
    return json.dumps(asdict(row))


def _whole_lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
