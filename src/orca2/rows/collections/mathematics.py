"""Word problems in their authors' JSON lines.

    GSM8K      {"question": "...", "answer": "48/2 = <<48/2=24>>24 ... (line break) #### 72"}
    AQuA-RAT   {"question": "...", "options": ["A)21", ...], "rationale": "...", "correct": "A"}

Homes: github.com/openai/grade-school-math and github.com/google-deepmind/AQuA.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orca2.errors import DataError
from orca2.records import Rejected
from orca2.rows.collections.fields import found, items_of_lines, json_object, text_field, texts_field
from orca2.rows.collections.gold_kinds import options_in
from orca2.rows.items import Option, TaskItem
from orca2.rows.layouts import FINAL_MARK


@dataclass(frozen=True, kw_only=True)
class Gsm8k:
    """The problems of one GSM8K file. `test.jsonl` is a benchmark: never train on it."""

    name: str
    path: str

    def stream(self) -> Iterator[TaskItem | Rejected]:
        """Raises DataError where the file is missing."""
        path = found(Path(self.path), self.name)

        def parse(number: int, line: str) -> TaskItem:
            row = json_object(line)
            _, marker, final = text_field(row, "answer").rpartition(FINAL_MARK)
            if not marker or not final.strip():
                raise DataError(f"field 'answer' has no final answer after {FINAL_MARK!r}")
            return TaskItem(
                id=f"{self.name}/{self.name}/{number}",
                collection=self.name,
                task=self.name,
                category="math_word_problem",
                user=text_field(row, "question"),
                gold=(final.strip(),),
                answer_kind="number",
                licence="MIT",
                lineage=f"{path.name}#{number}",
            )

        yield from items_of_lines(path, self.name, parse)


@dataclass(frozen=True, kw_only=True)
class AquaRat:
    """The problems of one AQuA-RAT file. `test.json` equals AGIEval's aqua-rat: never train on it."""

    name: str
    path: str

    def stream(self) -> Iterator[TaskItem | Rejected]:
        """Raises DataError where the file is missing."""
        path = found(Path(self.path), self.name)

        def parse(number: int, line: str) -> TaskItem:
            row = json_object(line)
            options = _options(row)
            listed = "\n".join(f"({option.label}) {option.text}" for option in options)
            return TaskItem(
                id=f"{self.name}/{self.name}/{number}",
                collection=self.name,
                task=self.name,
                category="math_multiple_choice",
                user=f"{text_field(row, 'question')}\nOptions:\n{listed}",
                gold=(text_field(row, "correct").strip(),),
                answer_kind="choice",
                options=options,
                licence="Apache-2.0",
                lineage=f"{path.name}#{number}",
            )

        yield from items_of_lines(path, self.name, parse)


def _options(row: dict[str, Any]) -> tuple[Option, ...]:
    texts = texts_field(row, "options")
    options = options_in("\n".join(" ".join(text.split()) for text in texts))
    if len(options) != len(texts):
        raise DataError(f"options {list(texts)} do not begin with A), B), ...")
    return options
