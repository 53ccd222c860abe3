"""Readers: nothing is lost from good files, and every malformed row is listed with its reason."""

import ast
import inspect
import json
import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orca2.records import Rejected
from orca2.rows.collections.flan_tables import ChainOfThoughtTables
from orca2.rows.collections.gold_kinds import kind_of_answers, options_in
from orca2.rows.collections.mapped import HubDataset, JsonLines
from orca2.rows.collections.mathematics import AquaRat, Gsm8k
from orca2.rows.collections.natural_instructions import NaturalInstructions
from orca2.rows.collections.procedural_tasks import ProceduralTasks, problem_of
from orca2.rows.items import Option, TaskItem
from orca2.synthesis.cleaning.lineage import benchmark_behind

SHARED = Path(os.environ.get("ORCA2_SHARED_DATA", Path(__file__).parents[5] / "shared" / "data"))
needs_shared = pytest.mark.skipif(not (SHARED / "tasks").is_dir(), reason="the shared data are not here")


def split(rows) -> tuple[list[TaskItem], list[Rejected]]:  # type: ignore[no-untyped-def]
    rows = list(rows)
    return [r for r in rows if isinstance(r, TaskItem)], [r for r in rows if isinstance(r, Rejected)]


RELEASE = {
    "Definition": ["Name the capital."], "Categories": ["Misc."], "Instance License": ["MIT"],
    "Instances": [{"id": "task1-a", "input": "France", "output": ["Paris"]}],
}  # fmt: skip
EARLIER = {"Definition": "Name the capital.", "Instances": [{"input": "France", "output": "Paris"}]}


def test_both_schemas_of_natural_instructions(tmp_path: Path) -> None:
    """A reader that knows only the release form loses every task of an earlier checkout."""
    (tmp_path / "task1_capital.json").write_text(json.dumps(RELEASE))
    (tmp_path / "task2_capital.json").write_text(json.dumps(EARLIER))
    items, rejected = split(NaturalInstructions(name="ni", folder=str(tmp_path)).stream())
    assert rejected == []
    assert [item.user for item in items] == ["Name the capital.\n\nFrance"] * 2
    assert [item.gold for item in items] == [("Paris",)] * 2
    assert items[0].id == "ni/task1_capital/task1-a"
    assert items[0].licence == "MIT" and items[1].licence == "unknown"
    assert items[1].own_text == "France"


def test_malformed_instances_are_listed_each_with_its_reason(tmp_path: Path) -> None:
    """Rows dropped in silence, or one bad row that ends the run."""
    good = RELEASE["Instances"][0]
    bad = [5, {"id": "b", "output": ["x"]}, {"id": "c", "input": " ", "output": ["x"]},
           {"id": "d", "input": "q", "output": []}, {"id": "e", "input": "q", "output": [7]}, good]  # fmt: skip
    (tmp_path / "task1_capital.json").write_text(json.dumps(RELEASE | {"Instances": [good, *bad]}))
    (tmp_path / "task2_broken.json").write_text("{")
    (tmp_path / "task3_bytes.json").write_bytes(b"\xff\xfe{}")
    (tmp_path / "task4_empty.json").write_text("{}")
    items, rejected = split(NaturalInstructions(name="ni", folder=str(tmp_path)).stream())
    assert len(items) == 1
    assert [row.row for row in rejected] == [
        *(f"task1_capital.json:Instances[{index}]" for index in range(1, 7)),
        "task2_broken.json", "task3_bytes.json", "task4_empty.json",
    ]  # fmt: skip
    for row, words in zip(
        rejected,
        ("an object", "'input' is missing", "'input' is empty", "empty list", "hold texts", "seen before",
         "not JSON", "codec", "'Instances'"),
        strict=True,
    ):  # fmt: skip
        assert row.kind == "broken" and words in row.reason


def test_lines_of_tables_and_json_are_rejected_one_by_one(tmp_path: Path) -> None:
    """A tab too few, a letter that is not an option, a missing final answer, or bytes that are not UTF-8."""
    question = "Which?\\nOptions:\\n(A) one\\n(B) two"
    rows = [f"{question}\t(B)\tbecause", f"{question}\t(C)\tbecause", f"{question}\t(B)", f"{question}\t(A)\t ", "\t\t"]
    (tmp_path / "x_train.tsv").write_bytes("\n".join(rows).encode() + b"\n\xff\xfe\n")
    table = ChainOfThoughtTables(name="t", folder=str(tmp_path), pattern="*.tsv", licence="MIT")
    items, rejected = split(table.stream())
    assert [item.gold for item in items] == [("B",)]
    assert [row.row for row in rejected] == [f"x_train.tsv:{line}" for line in (2, 3, 4, 5, 6)]
    lines = [{"question": "q", "answer": "1+1 = <<1+1=2>>2\n#### 1,002"}, {"question": "q", "answer": "2"}, {"q": 1}, 3]
    (tmp_path / "g.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\nnot json\n")
    items, rejected = split(Gsm8k(name="gsm8k", path=str(tmp_path / "g.jsonl")).stream())
    assert [item.gold for item in items] == [("1,002",)]
    assert [row.row for row in rejected] == [f"g.jsonl:{line}" for line in (2, 3, 4, 5)]


def test_rows_that_json_allows_and_the_pipeline_cannot_hold_are_rejected(tmp_path: Path) -> None:
    """Half a surrogate pair met when all is paid for; `No..`, or a number of 5,000 digits, that ends the run."""
    half = chr(0xD83D)
    rows = [
        '{"inputs": "q", "targets": "7"}',
        *(json.dumps({"inputs": user, "targets": gold}) for user, gold in (("q" + half, "7"), ("q", "seven" + half))),
        '{"inputs": "q", "targets": ' + "9" * 5000 + "}",
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    columns = {"user": "inputs", "gold": "targets"}
    reader = JsonLines(name="flan2021", folder=str(tmp_path), columns=columns, category="c", licence="l")
    items, rejected = split(reader.stream())
    assert len(items) == 1 and [row.row for row in rejected] == [f"a.jsonl:{line}" for line in (2, 3, 4)]
    assert all(row.reason.isascii() for row in rejected)
    odd = [{"id": f"x{half}", "input": "q", "output": "no"}, {"input": "r", "output": "No.."}]
    (tmp_path / "task1_x.json").write_text(json.dumps(EARLIER | {"Instances": [{"input": "p", "output": "yes"}, *odd]}))
    items, rejected = split(NaturalInstructions(name="ni", folder=str(tmp_path)).stream())
    assert [item.gold for item in items] == [("yes",)]
    assert [row.row for row in rejected] == ["task1_x.json:Instances[1]", "task1_x.json:Instances[2]"]


def test_columns_are_mapped_and_other_templates_left_out(tmp_path: Path) -> None:
    """Few-shot templates read as zero-shot rows, or a choice graded as text."""
    rows = [
        {"inputs": "Pick.\n(A) x\n(B) y", "targets": "(B) y", "_task_name": "mnli", "_template_type": "zs_opt"},
        {"inputs": "Pick.", "targets": "y", "_task_name": "mnli", "_template_type": "fs_opt"},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    columns = {"user": "inputs", "gold": "targets", "task": "_task_name", "only": {"_template_type": "zs_opt zs_noopt"}}
    reader = JsonLines(name="flan2021", folder=str(tmp_path), columns=columns, category="c", licence="l")
    items, rejected = split(reader.stream())
    assert [(item.task, item.answer_kind, item.gold) for item in items] == [("mnli", "choice", ("B",))]
    assert [row.kind for row in rejected] == ["left_out"]


def test_the_test_split_of_a_hub_data_set_is_known_for_a_benchmark(tmp_path: Path) -> None:
    """A lineage that leaves out the split: the block-list sees neither, and a benchmark is trained on."""
    folder = tmp_path / "gsm8k"
    folder.mkdir()
    for name in ("train", "test"):
        (folder / f"{name}.jsonl").write_text('{"question": "1 + 1?", "answer": "2"}\n')
    found = {}
    for name in ("train", "test"):
        reader = HubDataset(
            name="hub", repo=str(folder), subset=None, split=name, revision=None,
            columns={"user": "question", "gold": "answer"}, category="c", licence="l",
        )  # fmt: skip
        items, rejected = split(reader.stream())
        assert [item.lineage for item in items] == [f"gsm8k/{name}#0"] and rejected == []
        found[name] = benchmark_behind(items[0])
    assert found == {"train": None, "test": "gsm8k"}


def test_generated_items_find_their_problem_again() -> None:
    """The rule teacher must answer the very question that was asked."""
    items, _ = split(ProceduralTasks(name="procedural", size=30, seed=3, level=2).stream())
    assert len({item.id for item in items}) == 30
    for item in items:
        problem = problem_of(item)
        assert (problem.question, (problem.answer,)) == (item.user, item.gold)


def test_kinds_and_options() -> None:
    """Codes taken for numbers (030 = 30), statements taken for options, and label sets taken for spans."""
    assert kind_of_answers([["030"], ["031"]])[0] == "span"
    assert kind_of_answers([["1,002"], ["-7.5"]])[0] == "number"
    assert kind_of_answers([["34152"], ["21354"]])[0] == "order"
    assert kind_of_answers([["Yes"], ["no."]])[0] == "yes_no"
    assert kind_of_answers([["cause"], ["effect"]] * 4) == (
        "choice",
        (Option("cause", "cause"), Option("effect", "effect")),
    )
    assert options_in("(A) x\n(B) y\nOptions:\n(A) A only\n(B) B only") == (
        Option("A", "A only"),
        Option("B", "B only"),
    )
    assert options_in("I. x\nV. y") == ()


def test_gym_denies_unsafe_scorers() -> None:
    """A scorer that accepts everything would verify any answer."""
    pytest.importorskip("reasoning_gym")
    from orca2.errors import ConfigError
    from orca2.rows.collections.gym import ReasoningGym

    items, _ = split(ReasoningGym(name="gym", per_task=2, seed=0, generators=["chain_sum", "gcd"]).stream())
    assert [item.task for item in items] == ["chain_sum"] * 2 + ["gcd"] * 2
    with pytest.raises(ConfigError, match=r"game_of_life_halting.*denied"):
        ReasoningGym(name="gym", per_task=2, seed=0, generators=["game_of_life_halting"])


OWN_TEXT = {("bitwise_arithmetic", "eval(problem)"), ("number_sorting", "eval(entry['answer'])")}
"""Generators whose scorers evaluate what they wrote themselves."""
RUN_TEXT = {"eval", "exec", "compile", "parse_expr", "sympify", "S"}


def evaluated(function: Any, seen: set[Any]) -> Iterator[str]:
    """The calls that run text as Python, in a function and in what it calls of its own module and class."""
    seen.add(function)
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name in RUN_TEXT:
            yield ast.unparse(node)
        owner = sys.modules[function.__module__]
        cls = getattr(owner, function.__qualname__.partition(".")[0])
        called = inspect.unwrap(getattr(owner, name, None) or getattr(cls, name, None) or len)
        if inspect.isfunction(called) and called.__module__.startswith("reasoning_gym") and called not in seen:
            yield from evaluated(called, seen)


def test_no_allowed_scorer_of_gym_runs_the_answer() -> None:
    """A teacher's text that runs as Python in the user's process: eval, or sympy's parse_expr, which is eval."""
    library = pytest.importorskip("reasoning_gym")
    from orca2.rows.collections.gym import DENIED

    found = {
        (name, call)
        for name, (generator, _) in library.factory.DATASETS.items()
        for call in evaluated(generator.score_answer, set())
    }
    assert {name for name, _ in found - OWN_TEXT} <= set(DENIED)
    # The search itself must find what is known to be there.
    assert {"countdown", "puzzle24", "n_queens", "string_insertion"} <= {name for name, _ in found}


@needs_shared
def test_shared_collections_are_read_without_loss() -> None:
    """101 tasks of 40 rows, 7,473 problems, three tables of 500 rows: a row lost is a reader at fault."""
    tasks = SHARED / "tasks"
    readers = {
        "ni": (NaturalInstructions(name="ni", folder=str(tasks / "natural_instructions")), 4040, 101),
        "cot": (
            ChainOfThoughtTables(name="cot", folder=str(tasks / "flan_cot"), pattern="*.tsv", licence="x"),
            1500,
            3,
        ),
        "aqua": (ChainOfThoughtTables(name="a", folder=str(tasks / "aqua_rat"), pattern="*.tsv", licence="x"), 2000, 1),
        "dev": (AquaRat(name="aqua_rat", path=str(tasks / "aqua_rat" / "dev.json")), 254, 1),
        "gsm8k": (Gsm8k(name="gsm8k", path=str(SHARED / "benchmarks" / "gsm8k" / "train.jsonl")), 7473, 1),
    }
    for reader, rows, names in readers.values():
        items, rejected = split(reader.stream())
        assert rejected == []
        assert (len(items), len({item.task for item in items}), len({item.id for item in items})) == (rows, names, rows)
