"""Keeps benchmarks out of training data, in two layers, with a report.

    1. lineage   the task is made from a benchmark                              before the teacher is asked
    2. n-grams   the row holds at least half of a benchmark text's n-grams      user's text, later the answer

    benchmark text of 20 words or more: 13-grams     8 to 19 words: 8-grams     below: too common to tell

The share is taken of the benchmark's text, so a benchmark question inside a long document is found as well.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from orca2.errors import ConfigError, DataError
from orca2.hashing import hash64, ngrams_of, words_of
from orca2.records import Rejected
from orca2.rows.forms import FORMS
from orca2.rows.items import TaskItem
from orca2.synthesis.cleaning.lineage import BLOCKED, benchmark_behind

LONG, SHORT = 13, 8
"""Words of an n-gram: 13 as in GPT-3 (arXiv 2005.14165, appendix C); 8 for texts too short for it, as PaLM
used."""
LONG_FROM = 20
"""Words from which a text is compared by 13-grams; ours."""
COMMON = 20
"""An n-gram of more benchmark texts than this is a phrase of their template; ours."""
EXAMPLES = 20
"""Removed rows that the report lists per benchmark."""


class BenchmarkText(NamedTuple):
    """One text of a benchmark: a question, a passage or an answer."""

    benchmark: str
    id: str
    text: str


class Overlap(NamedTuple):
    """The benchmark text that a row shares the most with."""

    benchmark: str
    id: str
    share: float


class NgramIndex:
    """The n-grams of benchmark texts as sorted hashes with their owners: 12 bytes each."""

    def __init__(self, texts: Iterable[BenchmarkText]) -> None:
        """Raises DataError where no text is long enough to be found again."""
        self._owners: list[BenchmarkText] = []
        self._sizes: list[int] = []
        hashes: dict[int, list[NDArray[np.uint64]]] = {LONG: [], SHORT: []}
        owners: dict[int, list[NDArray[np.int32]]] = {LONG: [], SHORT: []}
        for text in texts:
            words = words_of(text.text)
            if len(words) < SHORT:
                continue
            n = LONG if len(words) >= LONG_FROM else SHORT
            grams = np.unique(_hashes(words, n))
            hashes[n].append(grams)
            owners[n].append(np.full(len(grams), len(self._owners), np.int32))
            self._owners.append(text._replace(text=""))
            self._sizes.append(len(grams))
        if not self._owners:
            raise DataError(f"contamination: no benchmark text has {SHORT} words or more; check the benchmark folder")
        self._tables = {n: _sorted(hashes[n], owners[n]) for n in hashes if hashes[n]}

    def overlap(self, text: str) -> Overlap | None:
        """The benchmark text with the largest share of its n-grams in `text`; None where none has any."""
        words = words_of(text)
        found: Counter[int] = Counter()
        for n, (table, owners) in self._tables.items():
            grams = np.unique(_hashes(words, n))
            low, high = np.searchsorted(table, grams, "left"), np.searchsorted(table, grams, "right")
            for start, end in zip(low.tolist(), high.tolist(), strict=True):
                if 0 < end - start <= COMMON:
                    found.update(owners[start:end].tolist())
        if not found:
            return None
        place = max(found, key=lambda owner: (found[owner] / self._sizes[owner], -owner))
        owner = self._owners[place]
        return Overlap(owner.benchmark, owner.id, found[place] / self._sizes[place])


@dataclass
class Contamination:
    """Both layers, counting what it removes. `index` None leaves out the second layer.

    Raises:
        ConfigError: an unknown benchmark, or a threshold outside 0 to 1.
    """

    index: NgramIndex | None
    in_domain: Mapping[str, bool] = field(default_factory=dict)
    """Benchmarks whose own training tasks may be trained on; their texts are still looked for."""
    threshold: float = 0.5
    """Share of a benchmark text's n-grams from which a row is removed; ours, as in
    marin-community/marin#5519."""
    lineage: bool = True
    """Whether the first layer is on."""
    checked: int = 0
    by_lineage: Counter[str] = field(default_factory=Counter)
    by_ngrams: Counter[str] = field(default_factory=Counter)
    by_answers: Counter[str] = field(default_factory=Counter)
    """Answers, not questions, that quote a benchmark."""
    examples: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.in_domain) - set(BLOCKED)):
            raise ConfigError(f"contamination: in_domain names {unknown}; benchmarks are {sorted(BLOCKED)}")
        if not 0 < self.threshold <= 1:
            raise ConfigError(f"contamination: threshold is {self.threshold}; a share above 0 and up to 1 is needed")

    def check_item(self, item: TaskItem) -> Rejected | None:
        """Why an item may not be asked; None where nothing speaks against it."""
        self.checked += 1
        benchmark = benchmark_behind(item) if self.lineage else None
        if benchmark is not None and not self.in_domain.get(benchmark, False):
            return self._removed(item, benchmark, self.by_lineage, f"its task is made from the benchmark {benchmark}")
        return self._check_text(item, item.own_text, self.by_ngrams)

    def check_answer(self, item: TaskItem, answer: str) -> Rejected | None:
        """Why an answer may not be trained on: it quotes a benchmark."""
        return self._check_text(item, answer, self.by_answers)

    def report(self) -> dict[str, Any]:
        """Rows checked, and per benchmark the rows removed by each layer with a few of them; ready for
        JSON."""
        names = sorted(set(self.by_lineage) | set(self.by_ngrams) | set(self.by_answers))
        return {
            "checked": self.checked,
            "threshold": self.threshold,
            "lineage": self.lineage,
            "ngrams": self.index is not None,
            "in_domain": sorted(name for name, allowed in self.in_domain.items() if allowed),
            "benchmarks": {
                name: {
                    "lineage": self.by_lineage[name],
                    "ngrams": self.by_ngrams[name],
                    "answers": self.by_answers[name],
                    "examples": self.examples.get(name, []),
                }
                for name in names
            },
        }

    def _check_text(self, item: TaskItem, text: str, counter: Counter[str]) -> Rejected | None:
        overlap = self.index.overlap(text) if self.index is not None else None
        if overlap is None or overlap.share < self.threshold:
            return None
        reason = f"holds {overlap.share:.0%} of the n-grams of {overlap.benchmark} {overlap.id}"
        return self._removed(item, overlap.benchmark, counter, reason)

    def _removed(self, item: TaskItem, benchmark: str, counter: Counter[str], reason: str) -> Rejected:
        counter[benchmark] += 1
        listed = self.examples.setdefault(benchmark, [])
        if len(listed) < EXAMPLES:
            listed.append(f"{item.id}: {reason}")
        return Rejected(source=item.collection, row=item.id, kind="left_out", reason=reason)


def benchmark_texts(folder: Path) -> Iterator[BenchmarkText | Rejected]:
    """Every text of every `*.jsonl`, `*.json` and `*.csv` below `<folder>/<benchmark>/`, training files left
    out.

    Knows no formats: each text anywhere in a row counts for itself, questions and answers alike. A file that
    cannot
    be parsed is one `Rejected`. Raises DataError where the folder is missing.
    """
    if not folder.is_dir():
        raise DataError(f"contamination: the benchmark folder {folder} does not exist; see docs/benchmarks.md")
    for path in sorted(folder.glob("*/**/*")):
        if path.suffix not in (".jsonl", ".json", ".csv") or "train" in path.stem.lower():
            continue
        benchmark = path.relative_to(folder).parts[0]
        form = FORMS["headless" if path.suffix == ".csv" else "flat"]  # a header is not a text of 8 words
        try:
            for number, row in enumerate(form.file(path), start=1):
                if "broken" in row:
                    yield Rejected(source=benchmark, row=f"{path.name}#{number}", kind="broken", reason=row["broken"])
                    continue
                for text in _leaves(row):
                    yield BenchmarkText(benchmark, f"{path.name}#{number}", text)
        except DataError as error:
            yield Rejected(source=benchmark, row=str(path.relative_to(folder)), kind="broken", reason=str(error))


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _leaves(part)
    elif isinstance(value, Sequence):
        for part in value:
            yield from _leaves(part)


def _hashes(words: list[str], n: int) -> NDArray[np.uint64]:
    return np.array([hash64(gram) for gram in ngrams_of(words, n)], np.uint64)


def _sorted(
    hashes: list[NDArray[np.uint64]], owners: list[NDArray[np.int32]]
) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    table, places = np.concatenate(hashes), np.concatenate(owners)
    order = np.argsort(table, kind="stable")
    return table[order], places[order]
