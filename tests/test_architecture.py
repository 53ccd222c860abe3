"""What no single file can show: which way imports go, sizes, and what is forbidden everywhere."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TypeGuard

import pytest

from orca2.records import ANSWER_KINDS

ROOT = Path(__file__).parents[1]
SHELLS = ("lightning_modules", "datamodules")
ENTRY_POINTS = sorted(ROOT.glob("*.py"))
MODULES = sorted(file for folder in ("src/orca2", *SHELLS) for file in (ROOT / folder).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
FILES = [*ENTRY_POINTS, *MODULES, *sorted((ROOT / "perf").rglob("*.py")), *TESTS]

LAYERS = {
    "orca2.console": 0,
    "orca2.terminal": 0,
    "orca2.names": 0,
    "orca2.errors": 1,
    "orca2.files": 1,
    "orca2.hashing": 1,
    "orca2.help": 1,
    "orca2.pages": 1,
    "orca2.progress": 1,
    "orca2.reasoning": 1,
    "orca2.records": 1,
    "orca2.leaks": 2,
    "orca2.processes": 2,
    "orca2.runs": 3,
    "orca2.serving": 3,
    "orca2.strategies": 3,
    "orca2.erasing": 3,
    "orca2.thinking": 3,
    "orca2.rendering": 3,
    "orca2.tasks": 4,
    "orca2.checkpointing": 4,
    "orca2.answers": 6,
    "orca2.rows": 5,
    "orca2.data": 7,
    "orca2.modelling": 7,
    "orca2.generation": 8,
    "orca2.planning": 8,
    "orca2.asking": 9,
    "orca2.settings": 10,
    "orca2.synthesis": 11,
    "orca2.evaluation": 12,
    "orca2.chatting": 13,
    "orca2.display": 13,
    "datamodules": 14,
    "lightning_modules": 15,
}
"""A part may import itself and parts of lower layers."""

FUNCTION_LINES, FILE_LINES, ENTRY_POINT_LINES = 60, 400, 100


def name_of(file: Path) -> str:
    """Dotted module name of a file."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] == "src" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str:
    """The part of the project, a key of LAYERS, that a module belongs to."""
    return ".".join(module.split(".")[: 2 if module.startswith("orca2.") else 1])


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imports_of(file: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or inside a function."""
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide the direction"
            assert node.module
            # `from orca2 import records` imports orca2.records
            yield from ((f"orca2.{alias.name}" for alias in node.names) if node.module == "orca2" else [node.module])


def calls_of(file: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree_of(file)) if isinstance(node, ast.Call))


def place(file: Path, node: ast.AST) -> str:
    return f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


def called_name(call: ast.Call) -> str:
    """The last name of what is called: `encode` of `tokenizer.encode(…)`."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def test_the_walk_finds_the_project() -> None:
    """Every test below passes on an empty list."""
    assert len(MODULES) > 20 and len(TESTS) > 5
    assert {"orca2.records", "orca2.settings"} <= {name_of(file) for file in MODULES}


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_imports_go_down(file: Path) -> None:
    """One upward import is enough for the domain to need Lightning, or for a cycle."""
    own = part_of(name_of(file))
    if own == "orca2":  # the package's own __init__
        assert not [name for name in imports_of(file) if name.startswith("orca2.")]
        return
    for name in imports_of(file):
        part = part_of(name)
        if part.partition(".")[0] in ("orca2", *SHELLS) and part != own:
            assert LAYERS[part] < LAYERS[own], f"{name_of(file)} (layer {LAYERS[own]}) imports {name}"


def test_every_part_has_a_layer() -> None:
    """A new part chooses its place among the others, and a removed one leaves no line behind."""
    assert set(LAYERS) == {part_of(name_of(file)) for file in MODULES} - {"orca2"}


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_frameworks_stay_at_their_border(file: Path) -> None:
    """The domain must be usable, and testable, without Lightning, W&B and Hydra."""
    roots = {name.partition(".")[0] for name in imports_of(file)}
    if name_of(file).startswith("orca2"):
        assert not roots & {"lightning", "pytorch_lightning", "wandb"}
    if part_of(name_of(file)) != "orca2.settings":
        assert not roots & {"hydra", "omegaconf"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_sizes(file: Path) -> None:
    """A file is read in one sitting, a function on one screen."""
    lines = len(file.read_text(encoding="utf-8").splitlines())
    assert lines <= (ENTRY_POINT_LINES if file in ENTRY_POINTS else FILE_LINES)
    for node in ast.walk(tree_of(file)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            assert length <= FUNCTION_LINES, f"{place(file, node)}: {node.name} has {length} lines"


@pytest.mark.parametrize("file", [*ENTRY_POINTS, *MODULES], ids=name_of)
def test_nothing_runs_foreign_code(file: Path) -> None:
    """Weights, configs and data come from strangers: none of them may bring code that runs."""
    assert not {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"} & set(imports_of(file))
    for call in calls_of(file):
        if isinstance(call.func, ast.Name):
            assert called_name(call) not in ("eval", "exec"), place(file, call)
        for keyword in call.keywords:
            allowed = isinstance(keyword.value, ast.Constant) and keyword.value.value is (keyword.arg == "weights_only")
            if keyword.arg in ("trust_remote_code", "weights_only", "shell"):
                assert allowed, f"{place(file, call)}: {keyword.arg}"
        if ast.unparse(call.func) == "torch.load":
            assert "weights_only" in {keyword.arg for keyword in call.keywords}, place(file, call)
        if ast.unparse(call.func).startswith("yaml."):
            assert "safe" in called_name(call), place(file, call)


ONE_PLACE = {
    "load_dataset": ("orca2.rows.hub",),
    "open_rows": ("orca2.rows",),
    "ParquetFile": ("orca2.rows.decoding", "orca2.synthesis.publishing.publish"),  # the second reads what it wrote
    "AsyncOpenAI": ("orca2.serving.client",),
    "LLM": ("orca2.asking.models.vllm",),
    "Console": ("orca2.console",),
    "Live": ("orca2.progress",),
    "init_process_group": ("orca2.processes.ranks",),
}
"""What is called -> the modules or parts that may call it."""


@pytest.mark.parametrize("file", [*ENTRY_POINTS, *MODULES], ids=name_of)
def test_one_place_for_each_thing(file: Path) -> None:
    """A second reader of rows, caller of models or drawer of progress grows its own rules, and users meet both."""
    for call in calls_of(file):
        homes = ONE_PLACE.get(called_name(call))
        assert homes is None or any(f"{name_of(file)}.".startswith(f"{home}.") for home in homes), place(file, call)
    if part_of(name_of(file)) != "orca2.processes":
        variables = {node.value for node in ast.walk(tree_of(file)) if isinstance(node, ast.Constant)}
        assert not variables & {"RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID"}, "only `processes` knows its rank"


def is_literal(node: ast.AST) -> TypeGuard[ast.Subscript]:
    return isinstance(node, ast.Subscript) and ast.unparse(node.value) in ("Literal", "typing.Literal")


def types_of(file: Path) -> Iterator[str]:
    """The public classes, and the names for a choice of words, that a file defines."""
    for node in tree_of(file).body:
        if isinstance(node, ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign) and is_literal(node.value):
            names = [ast.unparse(target) for target in node.targets]
        elif isinstance(node, ast.AnnAssign) and node.value is not None and is_literal(node.value):
            names = [ast.unparse(node.target)]
        else:
            names = []
        yield from (name for name in names if not name.startswith("_"))


def test_each_name_stands_once() -> None:
    """A reader who searches for one of two types of the same name finds the wrong one first."""
    types = Counter(name for file in MODULES for name in types_of(file))
    assert types["AnswerKind"] == 1, "the walk finds no choices of words"
    modules = Counter(file.name for file in MODULES if file.name != "__init__.py")
    assert [name for name, count in (types + modules).items() if count > 1] == []


def words_of(node: ast.AST) -> set[str]:
    """The texts of a choice of words, of a mapping's keys, or of a set, tuple or list; none of anything else."""
    items: list[ast.expr | None] = []
    if is_literal(node):
        items = [*node.slice.elts] if isinstance(node.slice, ast.Tuple) else [node.slice]
    elif isinstance(node, ast.Dict):
        items = node.keys
    elif isinstance(node, (ast.Set, ast.Tuple, ast.List)):
        items = [*node.elts]
    return {item.value for item in items if isinstance(item, ast.Constant) and isinstance(item.value, str)}


def second_kinds(tree: ast.AST) -> Iterator[ast.AST]:
    """Choices and tables of kinds of answers whose names are not all those of `AnswerKind`."""
    for node in ast.walk(tree):
        words = words_of(node)
        known = words & set(ANSWER_KINDS)
        # Two words may meet by chance; a table of three is one of kinds.
        if len(known) > 1 and (is_literal(node) or (len(known) > 2 and known != words)):
            yield node


def test_answers_have_one_vocabulary_of_kinds() -> None:
    """A second one grows other names for the same things, and the two are translated at every border."""
    for line in (
        'Kind = Literal["number", "last_word"] | Literal["text", "chat"]',
        '{"choice": 1, "number": 2, "text": 3, "spans": 4}',
    ):
        assert [*second_kinds(ast.parse(line))], line
    found = [place(file, node) for file in MODULES for node in second_kinds(tree_of(file))]
    assert [one.partition(":")[0] for one in found] == ["src/orca2/records.py"], found


def test_no_imports_go_in_circles() -> None:
    """Files of a circle are understood together or not at all; imports for types alone count."""
    names = {name_of(file): file for file in MODULES}
    imports = {}
    for name, file in names.items():
        found = set()
        for node in ast.walk(tree_of(file)):
            if isinstance(node, ast.ImportFrom):
                within = {f"{node.module}.{alias.name}" for alias in node.names} & set(names)
                found |= within or {str(node.module)} & set(names)
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names} & set(names)
        imports[name] = found - {name}
    while leaves := {name for name, found in imports.items() if not found}:
        imports = {name: found - leaves for name, found in imports.items() if name not in leaves}
    assert not imports, f"in circles, or above one: {sorted(imports)}"


TEACHER_TEMPLATES = "orca2.asking.models.local"
"""The one exception below: a local teacher speaks its own model's template, which is not the student's format."""


@pytest.mark.parametrize("file", [*ENTRY_POINTS, *MODULES], ids=name_of)
def test_only_rendering_tokenizes(file: Path) -> None:
    """A second path from text to ids would differ from the first in training, evaluation or chat."""
    if part_of(name_of(file)) == "orca2.rendering" or name_of(file) == TEACHER_TEMPLATES:
        return
    for call in calls_of(file):
        owner = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
        assert called_name(call) not in ("apply_chat_template", "encode_plus", "batch_encode_plus"), place(file, call)
        # `text.encode()` makes bytes; `tokenizer.encode(text)` and `tokenizer(text)` make ids.
        encodes = called_name(call) == "encode" and re.search(r"(^|[._])tokenizer$", owner)
        assert not encodes and called_name(call) not in ("tokenizer", "_tokenizer"), place(file, call)


def test_every_test_file_is_collected() -> None:
    """pytest passes over a file whose name it does not know, and mistakes equal names for each other."""
    names = [file.name for file in TESTS if file.name != "conftest.py"]
    assert [name for name, count in Counter(names).items() if count > 1] == []
    for file in TESTS:
        has_tests = any(
            isinstance(node, ast.FunctionDef) and node.name.startswith("test_") for node in tree_of(file).body
        )
        assert has_tests == file.name.startswith("test_"), f"{file.relative_to(ROOT)} would not be collected"


ALLOWED_IS_NO = re.compile(r"there (is|are) no\b|(is|are) no longer |yes is no\.|and no is no,")
"""Ours: existence, time, and the answer "no"."""
RUBRIC_TEXTS = "orca2.evaluation.judging.rubrics"
"""Exempt: what a judge reads is measured as it stands, and another word would be another rubric."""
FRAGMENT = re.compile(r"(Of|As|None|Where|Which|With which)\b")
"""Openings of a docstring that leave its noun to the name beside it."""


@pytest.mark.parametrize("file", [*ENTRY_POINTS, *MODULES], ids=name_of)
def test_nothing_is_no_thing(file: Path) -> None:
    """`x is no folder` is not plain English, in a message least of all: it is not a folder."""
    if name_of(file) != RUBRIC_TEXTS:
        text = ALLOWED_IS_NO.sub("", file.read_text(encoding="utf-8"))
        assert re.findall(r".*\b(?:is|are) no\b.*", text) == []


@pytest.mark.parametrize("file", [*ENTRY_POINTS, *MODULES], ids=name_of)
def test_every_module_says_what_it_holds(file: Path) -> None:
    """A reader of one file should not need a second one to know what the first is for."""
    assert ast.get_docstring(tree_of(file)), "the module has no docstring"


def docstrings_of(file: Path) -> Iterator[ast.Constant]:
    """Every string that stands alone: the docstrings of modules, classes, functions, fields and constants."""
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_docstrings_name_their_noun(file: Path) -> None:
    """`Of the rows that write: how many` is a riddle without the name of its field, and slow to read beside it."""
    assert [place(file, text) for text in docstrings_of(file) if FRAGMENT.match(str(text.value))] == []
