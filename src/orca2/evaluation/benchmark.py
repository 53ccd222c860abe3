"""What a benchmark is: samples with gold answers, a way to read an answer, and a way to score what was read.

    Benchmark.samples(data_dir) ──▶ Sample | Rejected            one per row, in file order
    a student's text, Sample    ──▶ Benchmark.read  ──▶ Extraction(value, ok, rule, span)
    Extraction, Sample          ──▶ Benchmark.score ──▶ {"accuracy": 1.0, ...}

An answer is a tuple of texts, its parts: a letter, a number and a word have one part, a list of spans or an order of
labels has several. `Sample.gold` holds every acceptable answer, `Extraction.value` the one that was read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from orca2.answers.extraction import Extraction
from orca2.errors import ConfigError
from orca2.records import AnswerKind, Rejected

Domain = Literal["in_domain", "out_of_domain"]
DOMAINS = ("in_domain", "out_of_domain")
"""Whether the benchmark's own training split is part of the paper's training data (arXiv 2311.11045, section 5)."""

Judgement = Literal["none", "grade", "grounding", "safety"]
"""What a judge adds afterwards: nothing, a grade (1 to 10) of each turn, whether the source supports the text, or
whether a conversation has a defect."""

CUT_MARK = "\n[... cut ...]\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One question of a benchmark."""

    id: str
    """`<benchmark>/<task>/<row key>`: stable and unique, so that runs can be compared sample by sample."""
    benchmark: str
    task: str
    """The part of the benchmark that gets its own line in a report, such as an MMLU subject."""
    turns: tuple[str, ...]
    """User texts in order; each is asked after the answer to the one before. All but MT-Bench have one."""
    kind: AnswerKind
    gold: tuple[tuple[str, ...], ...]
    """Every acceptable answer as its parts; empty where only a judge can tell."""
    choices: Mapping[str, str] = field(default_factory=dict)
    """Label to the option's text, in the order shown; labels are letters, digits or words such as `yes`."""
    document: tuple[int, int] | None = None
    """Character span of `turns[0]` that may be shortened where the prompt is too long; None: nothing may be."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Data for judges and reports, ready for JSON: category, references, source text of a summary."""
    strict: bool = False
    """Whether only the final line that the task families demand is an answer; see `orca2.answers.grading`."""


class Benchmark(Protocol):
    """One test set with its prompt, extraction and score. A mean over samples is a metric's value."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int:
        """Changes whenever a score could: prompt wording, extraction, metric, order of options."""
        ...

    @property
    def domain(self) -> Domain: ...

    @property
    def metrics(self) -> tuple[str, ...]:
        """Keys of what `score` returns, the main one first; empty where only a judge scores."""
        ...

    @property
    def judgement(self) -> Judgement: ...

    @property
    def max_new_tokens(self) -> int: ...

    def samples(self, data_dir: Path | None) -> Iterator[Sample | Rejected]:
        """Every row in order: from files below `data_dir`, or from the hub where that is None.

        Raises:
            DataError: no file is there, a file cannot be parsed, or the benchmark has no hub form.
        """
        ...

    def read(self, text: str, sample: Sample) -> Extraction: ...

    def score(self, extraction: Extraction, sample: Sample) -> dict[str, float]:
        """Metric name to a value from 0 to 1; all 0 where the extraction is not ok."""
        ...


@dataclass(frozen=True, kw_only=True)
class BenchmarkGroup:
    """Several benchmarks under one name.

    Raises:
        ConfigError: the group is empty, or a member stands under a key that is not its name.
    """

    name: str
    members: Mapping[str, "Benchmark | BenchmarkGroup"]

    def __post_init__(self) -> None:
        if not self.members:
            raise ConfigError(f"benchmark group {self.name!r} has no members; add one to its `defaults`")
        for key, member in self.members.items():
            if key != member.name:
                raise ConfigError(
                    f"benchmark group {self.name!r}: member {key!r} is named {member.name!r}; use its name"
                )


def flatten(benchmark: Benchmark | BenchmarkGroup) -> dict[str, Benchmark]:
    """The benchmarks of a group and of the groups in it by name, each once, in order of first appearance."""
    if not isinstance(benchmark, BenchmarkGroup):
        return {benchmark.name: benchmark}
    found: dict[str, Benchmark] = {}
    for member in benchmark.members.values():
        found.update(flatten(member))
    return found


def shorten(sample: Sample, characters: int) -> Sample:
    """`sample` with at most `characters` of its document: equal parts of its start and its end around `CUT_MARK`.

    The middle goes because summaries lean on how a text opens and closes; LongBench cuts the same way
    (github.com/THUDM/LongBench, pred.py). The question, which stands outside the document, is never cut.

    Raises:
        ConfigError: the sample has no document, or `characters` is negative.
    """
    if sample.document is None or characters < 0:
        raise ConfigError(f"sample {sample.id!r} cannot be cut to {characters} characters of its document")
    start, end = sample.document
    text = sample.turns[0]
    if end - start <= characters:
        return sample
    head = (characters + 1) // 2
    document = text[start : start + head] + CUT_MARK + text[end - characters // 2 : end]
    turns: Sequence[str] = (text[:start] + document + text[end:], *sample.turns[1:])
    return replace(sample, turns=tuple(turns), document=(start, start + len(document)))
