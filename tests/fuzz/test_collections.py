"""Task collections: every reader of files gives items and reasons, or one error."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from orca2.errors import DataError
from orca2.rows.collections.flan_tables import ChainOfThoughtTables
from orca2.rows.collections.gold_kinds import kind_of_answers, kind_of_row, options_in
from orca2.rows.collections.mapped import JsonLines
from orca2.rows.collections.mathematics import AquaRat, Gsm8k
from orca2.rows.collections.natural_instructions import NaturalInstructions
from orca2.rows.collections.questions import QuestionFile
from orca2.rows.items import TaskItem, TaskReader
from tests.fuzz.mutations import FILE_LOOPS, LOOPS, ROWS_SECONDS, Mutator, attack
from tests.linear_time import assert_linear

TASK = {
    "Definition": ["Say whether the capital is right.", "Answer yes or no."],
    "Categories": ["Text Matching -> Pairs"],
    "Instance License": ["MIT"],
    "Instances": [
        {"id": "task1-1", "input": "Paris, France", "output": ["Yes"]},
        {"input": "Rome, Spain\n(A) x\n(B) y", "output": "No."},
        {"input": "é日🙂", "output": ["no", "No"]},
    ],
}
TABLE = 'Is it?\\nOptions:\\n(A) yes\\n(B) no\t(A)\tBecause.\nWhat is 1+1?\t2\t1+1=2\n"Why?\tso\tsince\n'
MAPPED = [
    {"inputs": "Premise: ...", "targets": "yes", "_task_name": "mnli", "_template_type": "zs_opt"},
    {"inputs": "Which?\n(A) x\n- (B) y", "targets": ["(A) x"], "_task_name": "qa", "_template_type": "zs_noopt"},
]
PROBLEMS = [
    {"question": "48 clips?", "answer": "48/2 = <<48/2=24>>24\n#### 1,072"},
    {"question": "é?", "answer": "#### -7"},
]
CHOICES = [{"question": "How many?", "options": ["A)21", "B)22\n ", "C) é"], "rationale": "so", "correct": "A"}] * 2
QUESTIONS = [
    {"user": "1+1?", "gold": "so\n#### 2", "task": "sums", "category": "c"},
    {"instruction": "Name a colour.", "input": "", "gold": None},
    {"messages": [{"role": "user", "content": "Which?\n(A) x\n(B) y"}], "gold": ["(A) x"]},
    {"conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "!"}], "gold": 1.5},
    {"prompt": "Hi?"},
]


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)


class Collection(NamedTuple):
    file: str
    content: str
    reader: Callable[[Path], TaskReader]
    """Makes the reader of the folder that the file stands in."""


COLUMNS = {"user": "inputs", "gold": "targets", "task": "_task_name", "only": {"_template_type": "zs_opt zs_noopt"}}
COLLECTIONS = {
    "natural_instructions": Collection(
        "task1_x.json", json.dumps(TASK, indent=1), lambda folder: NaturalInstructions(name="n", folder=str(folder))
    ),
    "tables": Collection(
        "x_train.tsv",
        TABLE,
        lambda folder: ChainOfThoughtTables(name="t", folder=str(folder), pattern="*.tsv", licence="l"),
    ),
    "mapped": Collection(
        "x.jsonl",
        lines(MAPPED),
        lambda folder: JsonLines(name="m", folder=str(folder), columns=COLUMNS, category="c", licence="l"),
    ),
    "gsm8k": Collection("x.jsonl", lines(PROBLEMS), lambda folder: Gsm8k(name="g", path=str(folder / "x.jsonl"))),
    "aqua": Collection("x.json", lines(CHOICES), lambda folder: AquaRat(name="a", path=str(folder / "x.json"))),
    "questions": Collection(
        "x.jsonl",
        lines(QUESTIONS),
        lambda folder: QuestionFile(
            name="q", path=str(folder / "x.jsonl"), kind=None, category="c", licence="l", cache_dir=str(folder / "c")
        ),
    ),
}
FILE_INPUTS, QUESTION_INPUTS, KIND_INPUTS = 1_500, 500, 4_000
"""Inputs of each collection; of imported files of questions; of the rules that tell how answers are checked."""
INPUTS = (len(COLLECTIONS) - 1) * FILE_INPUTS + QUESTION_INPUTS + KIND_INPUTS
ROWS = {"natural_instructions": TASK, "mapped": MAPPED, "gsm8k": PROBLEMS, "aqua": CHOICES, "questions": QUESTIONS}
"""What is also changed before it is written, so that it stays JSON."""


def read(collection: Collection, folder: Path, content: bytes) -> None:
    """Every item of a file; each can be written, and has its place."""
    (folder / collection.file).write_bytes(content)
    for item in collection.reader(folder).stream():
        if isinstance(item, TaskItem):
            assert item.user.strip() and item.lineage
            json.dumps([item.id, item.user, *item.gold], ensure_ascii=False).encode()
        else:
            assert item.reason


@pytest.mark.slow
@pytest.mark.parametrize("name", COLLECTIONS)
def test_collections(name: str, tmp_path: Path) -> None:
    """A strange row costs itself, never the whole reading."""
    collection = COLLECTIONS[name]

    def make(mutator: Mutator) -> bytes:
        if name not in ROWS or mutator.draw.random() < 0.4:
            return mutator.data(collection.content.encode())
        changed = mutator.value(ROWS[name])
        rows = changed if isinstance(changed, list) and collection.file != "task1_x.json" else [changed]
        return "".join(f"{json.dumps(row)}\n" for row in rows).encode()

    count = QUESTION_INPUTS if name == "questions" else FILE_INPUTS
    attack(f"collection {name}", count, make, lambda content: read(collection, tmp_path, content))


@pytest.mark.slow
def test_kinds_of_answers() -> None:
    """What a question lists and how its answers look decides how they are checked."""

    def make(mutator: Mutator) -> tuple[str, list[str]]:
        question = mutator.text("Which?\n(A) 21\n- (B) 22\nC) x\nD. y")
        return question, [mutator.text(mutator.draw.choice(("1,234", "yes", "(B)", "34152"))) for _ in range(3)]

    def kinds(given: tuple[str, list[str]]) -> None:
        question, answers = given
        options_in(question)
        kind_of_answers([(answer,) for answer in answers])
        kind_of_row(question, tuple(answers))

    attack("kinds", KIND_INPUTS, make, kinds)


@pytest.mark.slow
@pytest.mark.parametrize("name", COLLECTIONS)
def test_collections_are_read_in_linear_time(name: str, tmp_path: Path) -> None:
    """One sign all over a file, or all over a text of a row."""
    collection = COLLECTIONS[name]
    inside = collection.content.replace("Paris", "{}").replace("Is it?", "{}").replace("Premise", "{}")
    inside = inside.replace("clips", "{}").replace("How many", "{}").replace("1+1?", "{}")
    for piece in LOOPS:
        quoted = json.dumps(piece, ensure_ascii=False)[1:-1] if collection.file != "x_train.tsv" else piece
        for shape in (inside, inside.replace("{}", "x{}y", 1)):
            assert_linear(
                lambda content: read(collection, tmp_path, content),
                lambda length: shape.replace("{}", quoted * (length // len(quoted)), 1).encode(errors="replace"),  # noqa: B023
                (piece, shape[:40]),
            )
    for piece in FILE_LOOPS:
        assert_linear(
            lambda content: read(collection, tmp_path, content),
            lambda length: (collection.content + "\n" + piece * (length // len(piece))).encode(),  # noqa: B023
            piece,
            ROWS_SECONDS,
        )


def test_a_folder_in_the_place_of_a_file_is_one_error(tmp_path: Path) -> None:
    """A folder called `task1.json`, or a file that may not be read, ended in a traceback."""
    (tmp_path / "task1_x.json").mkdir()
    with pytest.raises(DataError, match="task1_x"):
        list(NaturalInstructions(name="n", folder=str(tmp_path)).stream())
    with pytest.raises(DataError, match="task1_x"):
        list(Gsm8k(name="g", path=str(tmp_path / "task1_x.json")).stream())
