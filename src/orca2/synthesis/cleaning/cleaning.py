"""What a synthesis leaves out, as one setting: `cleaning=standard`.

    item  ─▶ repeats an earlier one? ─▶ made from a benchmark, or holds its text? ─▶ asked
    answer ─▶ quotes the erased instruction? ─▶ holds a benchmark's text? ─▶ may be kept

Items of the generated task families pass as they are: they are draws, and repeats are part of their distribution.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orca2.errors import ConfigError
from orca2.leaks import LeakReport, leaked_ngrams
from orca2.records import Example, Rejected
from orca2.rows.collections.procedural_tasks import is_generated
from orca2.rows.items import TaskItem
from orca2.synthesis.cleaning.contamination import BenchmarkText, Contamination, NgramIndex, benchmark_texts
from orca2.synthesis.cleaning.duplicates import Duplicates

LISTED = 20
"""Rows of each kind that a report names."""


@dataclass(frozen=True, kw_only=True)
class Cleaning:
    """The checks of a synthesis; `open` makes them.

    Raises:
        ConfigError: a share outside 0 to 1, or an unknown benchmark.
    """

    name: str
    duplicates: bool
    near: float
    """Share of common 5-grams of words from which a row repeats another; 1 finds exact repetitions only."""
    lineage: bool
    """Leave out tasks whose names tell that they are made from a benchmark."""
    benchmarks: str | None
    """Folder of the benchmarks' official files, whose texts are looked for; None looks for none."""
    overlap: float
    """Share of a benchmark text's n-grams from which a row or an answer holds it."""
    in_domain: Mapping[str, bool]
    """Benchmarks whose training tasks may be trained on."""
    leaks: bool
    """Leave out answers that quote their instruction."""

    def __post_init__(self) -> None:
        # The parts say what is wrong with their values.
        Duplicates(threshold=self.near)
        self._contamination(None)

    def open(self) -> "OpenCleaning":
        """Fresh checks for one pass over the items. Raises DataError where the benchmarks' folder is missing."""
        index, unread = None, []
        if self.benchmarks is not None:
            texts = []
            for row in benchmark_texts(Path(self.benchmarks)):
                if isinstance(row, BenchmarkText):
                    texts.append(row)
                else:
                    unread.append(f"{row.row}: {row.reason}")
            index = NgramIndex(texts)
        return OpenCleaning(
            setting=self,
            duplicates=Duplicates(threshold=self.near),
            contamination=self._contamination(index),
            unread=tuple(unread),
        )

    def _contamination(self, index: NgramIndex | None) -> Contamination:
        try:
            return Contamination(index=index, in_domain=self.in_domain, threshold=self.overlap, lineage=self.lineage)
        except ConfigError as error:
            raise ConfigError(f"cleaning={self.name}: {error}") from None


@dataclass(frozen=True, kw_only=True)
class OpenCleaning:
    """The checks at work, counting what they find."""

    setting: Cleaning
    duplicates: Duplicates
    contamination: Contamination
    unread: tuple[str, ...]
    """Benchmark files that could not be read."""
    leaks: LeakReport = field(default_factory=LeakReport)

    def check_item(self, item: TaskItem) -> Rejected | None:
        """An item step."""
        if is_generated(item):
            return None
        if self.setting.duplicates:
            # Rows of one task share its definition; without it, equal inputs of two tasks would look repeated.
            scope = f"{item.collection}/{item.task}" if item.preamble else ""
            if earlier := self.duplicates.repeated(item.id, item.own_text, scope):
                return Rejected(source=item.collection, row=item.id, kind="left_out", reason=f"repeats {earlier}")
        return self.contamination.check_item(item)

    def check_answer(self, item: TaskItem, example: Example) -> Rejected | None:
        """An answer step."""
        if self.setting.leaks and self.leaks.add(example):
            where = "answer" if leaked_ngrams(replace(example, reasoning="")) else "reasoning trace"
            reason = f"the {where} quotes the erased instruction"
            return Rejected(source=item.collection, row=item.id, kind="left_out", reason=reason)
        if is_generated(item):
            return None
        texts = filter(None, (example.answer, example.reasoning))
        return next(filter(None, (self.contamination.check_answer(item, text) for text in texts)), None)

    def report(self) -> dict[str, Any]:
        """What was found, ready for JSON."""
        return {
            "cleaning": self.setting.name,
            "duplicates": {"exact": self.duplicates.exact, "near": self.duplicates.near},
            "contamination": self.contamination.report() | {"unread": list(self.unread)},
            "leaks": {"checked": self.leaks.checked, "leaked": self.leaks.leaked, "examples": self.leaks.examples},
        }


def merged(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One report of several ranks: each meets every item, so items count once; each has answers of its own."""
    first = dict(reports[0])
    leaks = [report["leaks"] for report in reports]
    examples = {key: value for one in leaks for key, value in one["examples"].items()}
    first["leaks"] = {
        "checked": sum(one["checked"] for one in leaks),
        "leaked": sum(one["leaked"] for one in leaks),
        "examples": dict(sorted(examples.items())[:LISTED]),
    }
    contamination = [report["contamination"] for report in reports]
    answers: Counter[str] = Counter()
    listed: dict[str, list[str]] = {}
    for one in contamination:
        for name, found in one["benchmarks"].items():
            answers[name] += found["answers"]
            listed[name] = sorted({*listed.get(name, []), *found["examples"]})[:LISTED]
    items = contamination[0]["benchmarks"]
    first["contamination"] = contamination[0] | {
        "benchmarks": {
            name: {
                "lineage": items[name]["lineage"] if name in items else 0,
                "ngrams": items[name]["ngrams"] if name in items else 0,
                "answers": answers[name],
                "examples": listed[name],
            }
            for name in sorted(listed)
        }
    }
    return first
