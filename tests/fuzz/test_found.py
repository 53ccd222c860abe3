"""What the fuzz found: each of these inputs ended a run in a traceback, or held it up, before it was mended."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orca2.errors import DataError
from orca2.evaluation.benchmark import Sample
from orca2.evaluation.results_folder import REJECTED, write_rejected
from orca2.records import Rejected
from orca2.rows.decoding import decode
from orca2.rows.importing import import_file
from orca2.rows.parsing import RowParser
from orca2.serving.client import Server
from orca2.serving.outcomes import Failure, Reply, Trouble
from orca2.serving.refusals import read_error, retry_after
from orca2.serving.wire import read_reply
from orca2.terminal import visible
from tests.fuzz.mutations import DEEP
from tests.fuzz.test_benchmarks import COLUMNS, FORM_ROWS, KIND_OF_FORM, OTHERS, benchmark, read, suffix_of
from tests.fuzz.test_texts import COMPLETION, SPEAKER
from tests.linear_time import assert_linear

DEEP_JSON = "[" * DEEP + "]" * DEEP
LONG_NUMBER = "9" * 5000
"""More digits than Python reads."""


def test_a_table_with_a_value_that_python_cannot_hold(tmp_path: Path) -> None:
    """A text that is not UTF-8 and a year 293,274 cost their rows; the import ended in a traceback."""
    broken = pa.StringArray.from_buffers(2, pa.array([0, 1, 3], pa.int32()).buffers()[1], pa.py_buffer(b"a\xff\xfe"))
    pq.write_table(pa.table({"a": broken}), tmp_path / "texts.parquet")
    pq.write_table(pa.table({"a": pa.array([0, 2**63 - 1, 1], pa.timestamp("us"))}), tmp_path / "times.parquet")
    for name, whole in (("texts", [True, False]), ("times", [True, False, True])):
        found = list(decode(tmp_path / f"{name}.parquet").records)
        assert [number for number, _, _ in found] == list(range(1, len(whole) + 1))
        assert [text is not None for _, text, _ in found] == whole
        assert all(reason is None or "cannot be read" in reason for _, _, reason in found)


def test_a_table_with_a_name_that_is_not_text(tmp_path: Path) -> None:
    """One damaged byte in the name of a column ended the import in a traceback."""
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"zzuserzz": ["a"]}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"zzuserzz", b"\xff" * 8))
    with pytest.raises(DataError, match="cannot be imported: UnicodeDecodeError"):
        import_file(str(path), str(tmp_path / "cache"))


def test_blanks_behind_a_final_answer_take_linear_time() -> None:
    """100 kB of blanks inside the last line of a GSM8K answer held an import up for minutes."""
    parser = RowParser(source="s", layout="gsm8k")
    assert parser.example("1", {"question": "?", "answer": "a\n#### 1,072 \n"}).answer == "a\nAnswer: 1072"
    assert_linear(
        lambda answer: parser.example("1", {"question": "?", "answer": answer}),
        lambda length: f"a\n#### 1{' ' * length}2",
    )


def reasons(form: str, folder: Path, content: str) -> list[str]:
    """Reasons of the rows of a file that are not asked; an error of the whole file is one."""
    (folder / f"x{suffix_of(form)}").write_text(content, encoding="utf-8", errors="surrogatepass")
    made = benchmark(KIND_OF_FORM.get(form, "choice"), form, COLUMNS.get(form, OTHERS))
    try:
        return [row.reason for row in made.samples(folder) if not isinstance(row, Sample)]
    except DataError as error:
        return [str(error)]


def row_with(form: str, **changed: Any) -> str:
    return json.dumps(FORM_ROWS[form][0] | changed)


@pytest.mark.parametrize(
    ("form", "content", "reason"),
    [
        ("flat", f'{{"a": {DEEP_JSON}}}', "not JSON"),
        ("flat", f'{{"a": {LONG_NUMBER}}}', "not JSON"),
        ("flat", "7", "not rows"),
        ("flat", row_with("flat", label=None, index=float("inf")), "infinity"),
        ("flat", row_with("flat", question="half \ud83d"), "surrogate"),
        ("flat", row_with("flat", id="half \ud83d"), "surrogate"),
        ("toxigen", row_with("toxigen", text=f"b'' {'-' * 200_000}1 ''"), "form"),
        ("toxigen", row_with("toxigen", text=f"b'' {'(' * 150}{')' * 150} ''"), "form"),
        ("rocstories", row_with("rocstories"), ""),
    ],
)
def test_a_strange_row_of_a_benchmark_has_its_reason(form: str, content: str, reason: str, tmp_path: Path) -> None:
    """One row of an official file ended the whole evaluation."""
    found = reasons(form, tmp_path, f"{content}\n")
    assert [reason in one for one in found] == [True] * bool(reason)


def test_more_sentences_than_letters_are_a_reason(tmp_path: Path) -> None:
    """Sentences to be ordered are named by letters, of which there are 26."""
    (tmp_path / "x.jsonl").write_text(json.dumps({"sentences": ["a"] * 27}) + "\n")
    [row] = benchmark("order", "flat", {"sentences": "sentences"}).samples(tmp_path)
    assert isinstance(row, Rejected) and "27 sentences" in row.reason


@pytest.mark.parametrize(
    ("form", "shape", "piece"),
    [
        ("hellaswag", row_with("hellaswag", ctx_a="{}"), "["),
        ("olmes", row_with("olmes", query="Question: a{}b"), " "),
        ("headless", "{}", 'a",",c\n'),
    ],
)
def test_a_file_of_one_sign_takes_linear_time(form: str, shape: str, piece: str, tmp_path: Path) -> None:
    """Opening brackets, blanks and quotes that stay open were looked at again from each of them."""
    assert_linear(
        lambda content: read(form, tmp_path, content),
        lambda length: shape.replace("{}", piece * (length // len(piece))).encode(),
    )


def test_a_list_of_rejected_rows_holds_any_text(tmp_path: Path) -> None:
    """Half of a surrogate pair in the name of a row that is not asked left the run without its list."""
    write_rejected(_plan("b/half \ud83d"), tmp_path)
    assert json.loads((tmp_path / REJECTED).read_text())["row"] == "b/half \ud83d"


def _plan(row: str) -> Any:
    rejected = (Rejected(source="b", row=row, kind="broken", reason="r"),)
    return SimpleNamespace(benchmarks={"b": SimpleNamespace(rejected=rejected, absent=())}, absent={})


def reply_with(**changed: Any) -> Any:
    message = COMPLETION["choices"][0]["message"] | changed
    return read_reply(COMPLETION | {"choices": [COMPLETION["choices"][0] | {"message": message}]}, 5, SPEAKER)


@pytest.mark.parametrize("field", ["refusal", "reasoning", "reasoning_content"])
def test_a_reply_with_an_object_for_a_text_is_asked_again(field: str) -> None:
    """It ended a run that was paid for."""
    assert isinstance(reply_with(**{field: {"a": 1}}), Trouble)


@pytest.mark.parametrize("tokens", [float("inf"), -5, 10**30])
def test_a_count_that_cannot_be_is_none(tokens: float) -> None:
    """A budget grew by a negative count, and sqlite holds no number of more than 64 bits."""
    found = read_reply(COMPLETION | {"usage": COMPLETION["usage"] | {"completion_tokens": tokens}}, 5, SPEAKER)
    assert isinstance(found, Reply) and not found.usage_known


def test_the_name_of_a_model_can_be_written() -> None:
    """It becomes the teacher of each example, in files that are UTF-8."""
    found = read_reply(COMPLETION | {"model": "m\ud83d", "system_fingerprint": "\ud83d"}, 5, SPEAKER)
    assert isinstance(found, Reply) and found.model.encode() == b"m?@?"


def test_a_body_of_brackets_is_a_refusal_like_others() -> None:
    """Python's parser gives up with an error of its own kind."""
    assert isinstance(read_error(400, DEEP_JSON * 40, {}, SPEAKER), Failure)


def test_an_answer_of_brackets_is_asked_again() -> None:
    """A body of brackets with status 200 is decoded by the HTTP library, whose error ended the run."""

    class Client:
        async def post(self, *_: object, **__: object) -> object:
            return json.loads(DEEP_JSON * 40)

    server = Server(group="teacher", base_url="http://x/v1", timeout_s=5, token_limit_field="max_tokens")
    found = asyncio.run(server._once(Client(), SPEAKER, {"max_tokens": 5}))
    assert isinstance(found, Trouble) and found.kind == "malformed"


def test_a_page_of_opening_brackets_takes_linear_time() -> None:
    """An HTML page is shown without its tags."""
    assert_linear(lambda text: read_error(502, text, {}, SPEAKER), lambda length: "<html>" + "<" * length)


@pytest.mark.parametrize("date", ["Mon, 01 Jan 0001 00:00:00 -0000", "Mon, 01 Jan 0001 00:00:00 GMT"])
def test_a_date_that_no_clock_has_is_no_hint(date: str) -> None:
    """A server's `retry-after` of the year 1."""
    assert retry_after({"retry-after": date}) in (None, 0.0)


def test_half_of_a_pair_is_shown_and_not_written() -> None:
    """A terminal takes UTF-8 alone, so that an error which quoted such a text was lost in another one."""
    assert visible("a\ud83db").encode() == b"a\\ud83db"
