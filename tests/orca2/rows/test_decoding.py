"""Files in every form that people keep rows in, damaged ones, and ones that are made to fill the memory."""

import csv
import gzip
import io
import json
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orca2.errors import DataError
from orca2.rows import decoding, importing
from orca2.rows.decoding import MAX_ROW_BYTES, decode
from orca2.rows.importing import import_file, open_rows

TRICKY = {"a": 'brackets ] } , [ { and a quote " and a backslash \\', "b": [{"c": [1, 2]}, "]"], "d": "é\u2028\n"}
TOO_LONG = "longer than 8 MiB, the most that a row may have"


def records(tmp_path, content, name="rows.json"):
    path = tmp_path / name
    path.write_bytes(content)
    decoded = decode(path)
    return decoded.unit, list(decoded.records)


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 2**16])
@pytest.mark.parametrize("indent", [None, 2])
def test_items_of_an_array_come_one_by_one(tmp_path, monkeypatch, chunk, indent):
    """ShareGPT and Alpaca files are arrays; signs inside of texts must not cut an item, wherever a read ends."""
    monkeypatch.setattr(decoding, "_CHUNK_BYTES", chunk)
    rows = [TRICKY, {}, {"x": '\\"'}, TRICKY]
    for ascii_only in (True, False):
        text = f"\n {json.dumps(rows, indent=indent, ensure_ascii=ascii_only)}\n"
        unit, found = records(tmp_path, text.encode())
        assert unit == "item"
        assert [number for number, _, _ in found] == [1, 2, 3, 4]
        assert [json.loads(item) for _, item, _ in found] == rows


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[]", []),
        (" [ \n ] ", []),
        ('[{"a": 1},]', [None]),
        ('[{"a": 1}, {"a": 2 "b": 3}, {"a": 4}]', [None, "not JSON: Expecting ',' delimiter at character 8", None]),
        ('[{"a": 1}}, {"a": 4}]', ["not JSON: Extra data at character 8", None]),
        ("[{}, 5, , {}]", [None, "not an object but int", "not JSON: Expecting value at character 0", None]),
        (
            '[{"a": 1}, {"a": 2',
            [None, "not JSON: Expecting ',' delimiter at character 7; the file ends inside this row"],
        ),
        ('[{"a": 1}', [None, "the file ends before its JSON array does: it was cut off here"]),
        ('[{"a": 1},', [None, "the file ends before its JSON array does: it was cut off here"]),
        ("[", ["the file ends before its JSON array does: it was cut off here"]),
    ],
)
def test_broken_items_cost_themselves(tmp_path, content, expected):
    """One bad item must not take a file of a million with it, and a cut file must not pass for a whole one."""
    assert [reason for _, _, reason in records(tmp_path, content.encode())[1]] == expected


def test_an_array_may_stand_in_any_text_file(tmp_path):
    """Hugging Face scripts write arrays to `.jsonl`, and people compress them."""
    content = b'\xef\xbb\xbf[{"a": 1}, {"a": 2}]'
    assert records(tmp_path, content, "rows.jsonl")[0] == "item"
    assert len(records(tmp_path, gzip.compress(content), "rows.json.gz")[1]) == 2
    assert records(tmp_path, b'{"a": 1}\n[1]\n')[0] == "line"


GOOD = b'{"a": 1}\n'
HUGE = b'{"a": "' + b"x" * MAX_ROW_BYTES + b'"}'


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("rows.jsonl", GOOD + HUGE + b"\n" + GOOD + HUGE, [(1, None), (2, TOO_LONG), (3, None), (4, TOO_LONG)]),
        ("rows.json", b"[" + GOOD + b"," + HUGE + b"," + GOOD + b"]", [(1, None), (2, TOO_LONG), (3, None)]),
        ("rows.json", b"[" + GOOD + b"," + HUGE, [(1, None), (2, TOO_LONG)]),
        ("rows.csv", b"a\n1\n" + b"x" * 2 * MAX_ROW_BYTES + b"\n2\n", [(2, None), (3, TOO_LONG), (4, None)]),
        (
            "rows.csv",
            b'a\n1\n"' + (b"x" * 1023 + b"\n") * (MAX_ROW_BYTES // 1024) + b"2\n3\n",
            [
                (2, None),
                (3, f"{TOO_LONG}; lines 3 to 8194 were read as this row, so a quote may not be closed"),
                (8195, None),
                (8196, None),
            ],
        ),
    ],
)
def test_rows_over_the_limit_are_rejected(tmp_path, name, content, expected):
    """The rows around one that is too long must keep their numbers and train."""
    assert [(number, reason) for number, _, reason in records(tmp_path, content, name)[1]] == expected


def test_parquet_rows_over_the_limit_are_rejected(tmp_path):
    """A table may hold a whole book in one cell."""
    pq.write_table(pa.table({"a": ["x", "y" * MAX_ROW_BYTES, "z"]}), tmp_path / "rows.parquet")
    assert [reason for _, _, reason in decode(tmp_path / "rows.parquet").records] == [None, TOO_LONG, None]


@pytest.mark.parametrize("name", ["bomb.jsonl.gz", "bomb.json.gz", "bomb.csv.gz"])
def test_a_line_that_unpacks_to_gigabytes_takes_no_memory(tmp_path, name):
    """A file of a few hundred kilobytes must not fill the machine."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as file:
        file.write(b"[" if "json." in name else b"a\n" if "csv" in name else b"")
        for _ in range(32):
            file.write(b"x" * 2**22)
    (tmp_path / name).write_bytes(packed.getvalue())
    tracemalloc.start()
    found = list(decode(tmp_path / name).records)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [reason for _, _, reason in found] == [TOO_LONG]
    assert peak < 4 * MAX_ROW_BYTES


def test_large_rows_are_written_in_small_batches(tmp_path, monkeypatch):
    """A thousand rows of the largest size must not be held at once, and must be found again."""
    monkeypatch.setattr(importing, "BATCH_BYTES", 1000)
    rows = [{"a": str(at) * (at % 50)} for at in range(2500)]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    stored = open_rows(str(tmp_path / "rows.jsonl"), str(tmp_path / "cache"))
    assert [stored[at].row for at in range(len(stored))] == rows
    assert [stored[at].line for at in (0, 1023, 1024, 2499)] == [1, 1024, 1025, 2500]


def test_leftovers_of_killed_imports_are_removed(tmp_path):
    """Each kill -9 would leave another file of the size of the data in the cache."""
    cache = tmp_path / "cache" / "sources"
    cache.mkdir(parents=True)
    (cache / ".old.jsonl-0123.arrow.partial").write_bytes(b"half")
    held = cache / ".held.jsonl-0123.arrow.partial"
    held.write_bytes(b"half")
    (tmp_path / "rows.jsonl").write_bytes(GOOD)
    with importing.FileLock(f"{cache / 'held.jsonl-0123.arrow'}.lock"):
        import_file(str(tmp_path / "rows.jsonl"), str(tmp_path / "cache"))
    assert list(cache.glob(".*.partial")) == [held]
    import_file(str(tmp_path / "rows.jsonl"), str(tmp_path / "cache"))
    assert not list(cache.glob(".*.partial"))


def test_a_digest_tells_contents_apart_and_nothing_else(tmp_path):
    """A copied file must go on with its run; one edited letter must not."""

    def digest(name, content):
        (tmp_path / name).write_bytes(content)
        return open_rows(str(tmp_path / name), str(tmp_path / "cache")).digest

    first = digest("a.jsonl", b'{"a": 1}\n{"a": 2}\n')
    assert digest("b.jsonl.gz", gzip.compress(b'{"a": 1}\n{"a": 2}\n')) == first
    assert digest("c.jsonl", b'{"a": 1}\n{"a": 3}\n') != first
    assert digest("d.jsonl", b'{"a": 2}\n{"a": 1}\n') != first


KINDS = ("rows.jsonl", "rows.json", "rows.json.gz", "rows.csv", "rows.csv.gz", "rows.parquet")
PIECES = st.sampled_from([*b'[]{}"\\,\n :a\xff\0', b"\r\n", b'{"a": 1}', b"\xc3\xa9"])


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(KINDS), content=st.one_of(st.binary(max_size=60), st.lists(PIECES, max_size=40)))
def test_any_bytes_are_rows_reasons_or_one_clear_error(tmp_path_factory, name, content):
    """A damaged file must not end in a traceback of a library."""
    content = (
        content
        if isinstance(content, bytes)
        else b"".join(bytes([piece]) if isinstance(piece, int) else piece for piece in content)
    )
    folder = tmp_path_factory.mktemp("fuzz")
    packed = gzip.compress(content)[: len(content) * 2] if name.endswith(".gz") else content
    (folder / name).write_bytes(packed)
    try:
        stored = open_rows(str(folder / name), str(folder / "cache"))
    except DataError:
        return
    for at in range(len(stored)):
        number, row, reason = stored[at]
        assert number >= 1
        assert isinstance(row, dict) is (reason is None)


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=20) | st.integers() | st.none(), max_size=3)),
    chunk=st.integers(1, 9),
)
def test_arrays_give_what_json_gives(tmp_path_factory, rows, chunk):
    """The scanner of items must agree with Python's parser on every valid array."""
    path = tmp_path_factory.mktemp("array") / "rows.json"
    path.write_text(json.dumps(rows, ensure_ascii=chunk % 2 == 0).encode("utf-8", "replace").decode(), encoding="utf-8")
    expected = json.loads(path.read_text(encoding="utf-8"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "_CHUNK_BYTES", chunk)
        found = list(decode(path).records)
    assert [json.loads(text) for _, text, _ in found] == expected


def test_csv_agrees_with_the_standard_reader(tmp_path):
    """What Excel writes: quotes, line breaks within cells, Windows line ends."""
    text = io.StringIO()
    writer = csv.writer(text)
    rows = [["q", "a"], ['say "hi", please', "hi\r\nthere"], ["é", " "]]
    writer.writerows(rows)
    _, found = records(tmp_path, text.getvalue().encode(), "rows.csv")
    assert [list(json.loads(row).values()) for _, row, _ in found] == rows[1:]
