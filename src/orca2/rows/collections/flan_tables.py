"""Chain-of-thought tables of the FLAN collection (github.com/google-research/FLAN, flan/v2/cot_data/*.tsv).

question <TAB> answer <TAB> rationale          no header; a line break within a cell is the two characters \\n
aqua_train.tsv -> task `aqua`
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orca2.errors import DataError
from orca2.records import AnswerKind, Rejected
from orca2.rows.collections.fields import items_of_lines, lines, matching
from orca2.rows.collections.gold_kinds import kind_of_answers, options_in
from orca2.rows.items import Option, TaskItem

COLUMNS = ("question", "answer", "rationale")


@dataclass(frozen=True, kw_only=True)
class ChainOfThoughtTables:
    """Every table of a folder that matches `pattern`, one task a file."""

    name: str
    folder: str
    pattern: str
    licence: str

    def stream(self) -> Iterator[TaskItem | Rejected]:
        """Raises DataError where no file matches."""
        for path in matching(Path(self.folder), self.pattern, self.name):
            yield from self._table(path)

    def _table(self, path: Path) -> Iterator[TaskItem | Rejected]:
        task = path.stem.removeprefix("flan_cot_").removesuffix("_train")
        kind = _kind_of_table(path)

        def parse(number: int, line: str) -> TaskItem:
            question, answer, _ = _cells(line)
            options = options_in(question)
            return TaskItem(
                id=f"{self.name}/{task}/{number}",
                collection=self.name,
                task=task,
                category=task,
                user=question,
                gold=(_label(answer, options) if kind == "choice" else answer,),
                answer_kind=kind,
                options=options if kind == "choice" else (),
                licence=self.licence,
                lineage=f"{path.name}#{number}",
            )

        yield from items_of_lines(path, self.name, parse)


def _cells(line: str) -> tuple[str, str, str]:
    # Cells may begin with a quotation mark that is never closed, so this is not the CSV dialect of Excel.
    cells = [cell.replace("\\n", "\n").strip() for cell in line.split("\t")]
    if len(cells) != len(COLUMNS):
        raise DataError(f"{len(cells)} cells; a row has {len(COLUMNS)}: {', '.join(COLUMNS)}")
    for column, cell in zip(COLUMNS, cells, strict=True):
        if not cell:
            raise DataError(f"the cell {column!r} is empty")
    return cells[0], cells[1], cells[2]


def _kind_of_table(path: Path) -> AnswerKind:
    """One kind for the whole table: reading it twice costs less than holding it."""
    answers: set[str] = set()
    for _, line in lines(path):
        if line is not None and line.count("\t") == len(COLUMNS) - 1:
            answers.add(line.split("\t")[1].strip())
    answers.discard("")
    # A damaged row must not change the kind of its table, so the majority decides; that row is then rejected.
    if 2 * sum(_is_letter(answer) for answer in answers) > len(answers):
        return "choice"
    kinds = Counter(kind_of_answers([(answer,)])[0] for answer in answers)
    return kinds.most_common(1)[0][0] if kinds else "text"


def _is_letter(answer: str) -> bool:
    return len(answer) == 3 and answer[0] == "(" and answer[2] == ")" and answer[1].isupper()


def _label(answer: str, options: tuple[Option, ...]) -> str:
    if not options:
        raise DataError("the answer is a choice, but the question lists no options (A), (B), ...")
    return answer[1] if _is_letter(answer) else answer
