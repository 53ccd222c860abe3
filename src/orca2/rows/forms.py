"""Forms of files: how the content of an official file becomes flat rows.

    flat      .jsonl; .json with a list, or one with `examples` or `data`; .csv with a header; .txt, one text a line
    headless  .csv without a header: columns "0", "1", ...
    the rest  one data set's own nesting, named after it

A row that cannot be flattened is `{"broken": reason}`, so that it is counted and not lost.
"""

import ast
import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from orca2.errors import DataError

Row = dict[str, Any]

BROKEN = (
    KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError,
    SyntaxError, RecursionError, MemoryError,
)  # fmt: skip
"""What a row of another shape raises in a form; the last three where Python reads the text of a row."""
READ_AGAIN = 8
"""How often the lines of a table may be read in all, because of quotes that are never closed; ours."""


class Form(NamedTuple):
    file: Callable[[Path], Iterator[Row]]
    """Rows of one file."""
    rows: Callable[[Iterable[Row]], Iterator[Row]]
    """Rows out of those of the hub, which are flat but for the same nesting."""


def flat_rows(path: Path) -> Iterator[Row]:
    """Rows of a JSON, JSON lines, CSV or text file. Raises DataError for one that cannot be parsed."""
    if path.suffix == ".csv":
        yield from _headed(path)
    elif path.suffix == ".txt":
        yield from ({"text": line} for line in _text(path).split("\n") if line.strip())
    else:
        yield from _json_rows(path)


def _json_rows(path: Path) -> Iterator[Row]:
    loaded = _json(path)
    if isinstance(loaded, dict):
        loaded = next((loaded[key] for key in ("examples", "data") if isinstance(loaded.get(key), list)), [loaded])
    if not isinstance(loaded, list):
        raise DataError(f"{path} holds {type(loaded).__name__}, not rows; download the file again")
    yield from (row if isinstance(row, dict) else {"broken": f"not an object: {str(row)[:40]!r}"} for row in loaded)


def _json(path: Path) -> Any:
    """A file's JSON; its lines as a list where each is JSON by itself, whatever the file is called."""
    text = _text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as whole:  # a plain ValueError: a whole number of more than 4,300 digits
        rows = []
        for number, line in enumerate(text.split("\n"), start=1):
            try:
                rows += [json.loads(line)] if line.strip() else []
            except (ValueError, RecursionError) as error:
                if path.suffix != ".jsonl" and number == 1:
                    raise DataError(f"{path} is not JSON: {whole}; download the file again") from whole
                rows.append({"broken": f"line {number} is not JSON: {error}"})
        return rows


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}; download the file again") from error


def _csv(path: Path, delimiter: str = ",") -> Iterator[list[str] | Row]:
    """Cells of each record. After a broken one, such as a quote never closed, reading goes on with the next line."""
    lines = list(io.StringIO(_text(path), newline=""))
    done = again = 0
    while done < len(lines):
        if again > READ_AGAIN * len(lines):
            yield {"broken": f"lines {done + 1} to {len(lines)} are not read: too many quotes before them stay open"}
            return
        reader = csv.reader(map(lines.__getitem__, range(done, len(lines))), delimiter=delimiter, strict=True)
        read = 0
        try:
            for cells in reader:
                read = reader.line_num
                yield cells
            return
        except csv.Error as error:
            again += reader.line_num - read - 1
            done += read + 1
            yield {"broken": f"line {done} is not CSV: {error}"}


def _headed(path: Path) -> Iterator[Row]:
    records = _csv(path)
    header = next(records, [])
    if isinstance(header, dict):
        raise DataError(f"{path} has no header: {header['broken']}; download the file again")
    for cells in filter(None, records):
        yield cells if isinstance(cells, dict) else dict(zip(header, cells, strict=False))


def _headless(path: Path) -> Iterator[Row]:
    for cells in _csv(path):
        yield cells if isinstance(cells, dict) else {str(column): cell for column, cell in enumerate(cells)}


def _agieval(rows: Iterable[Row]) -> Iterator[Row]:
    """`options` carry their label, "(A)text"."""
    for row in rows:
        options = [re.fullmatch(r"\(([A-Z])\)\s*(.*)", option, re.DOTALL) for option in row["options"] or []]
        bad = [option for option, match in zip(row["options"] or [], options, strict=True) if not match]
        if bad:
            yield {"broken": f"option {bad[0][:40]!r} has no label in brackets"}
            continue
        pairs = [(match[1], match[2]) for match in options if match]
        yield row | {"labels": [label for label, _ in pairs], "options": [text for _, text in pairs]}


_BBH_PAIRS = ({"True", "False"}, {"yes", "no"}, {"Yes", "No"}, {"valid", "invalid"})


def _olmes(rows: Iterable[Row]) -> Iterator[Row]:
    """`query` is a prompt of its own, "Question: ... Answer:"."""
    for row in rows:
        query = row["query"].removeprefix("Question: ").removesuffix("\n")
        yield row | {"query": query.removesuffix("Answer:").rstrip()}


def _bbh(rows: Iterable[Row]) -> Iterator[Row]:
    """`input` ends with "Options:" and lines "(A) text" or "- word"; three tasks list none but want one of a pair."""
    for row in rows:
        question, _, listed = str(row["input"]).partition("\nOptions:\n")
        lettered = re.findall(r"^\(([A-Z])\) ?(.*)$", listed, re.MULTILINE)
        words = [word.strip() for word in re.findall(r"^- (.*)$", listed, re.MULTILINE)]
        target = str(row["target"]).strip()
        pair = next((sorted(pair, reverse=True) for pair in _BBH_PAIRS if target in pair), [])
        labels = [label for label, _ in lettered] or words or pair
        label = target.strip("()") if lettered else target
        if label not in labels:
            yield {"broken": f"target {target[:60]!r} is not one of the options {labels}"}
            continue
        yield {
            "question": question,
            "labels": labels,
            "options": [text for _, text in lettered] or labels,
            "label": label,
        }


def _drop_pairs(path: Path) -> Iterator[Row]:
    """Passage id -> passage and its questions."""
    for passage_id, entry in _json(path).items():
        if not isinstance(entry, dict) or not isinstance(entry.get("qa_pairs"), list):
            yield {"broken": f"{passage_id}: no list `qa_pairs`"}
            continue
        yield from (
            {"passage_id": passage_id, "passage": entry.get("passage"), "pair": pair} for pair in entry["qa_pairs"]
        )


def _drop(rows: Iterable[Row]) -> Iterator[Row]:
    """An answer is a number, spans or a date, by each annotator."""
    for row in rows:
        pair = row["pair"]
        given = [pair["answer"], *pair.get("validated_answers", [])]
        answers = [answer for answer in map(_drop_answer, given) if answer]
        if answers:
            yield {
                "id": pair["query_id"],
                "passage": row["passage"],
                "question": pair["question"],
                "answers": answers,
            }
        else:
            yield {"broken": f"{row['passage_id']}: question {pair['query_id']} has no answer"}


def _drop_answer(answer: Row) -> list[str]:
    if answer.get("number"):
        return [str(answer["number"])]
    if answer.get("spans"):
        return list(answer["spans"])
    date = answer.get("date") or {}
    parts = [str(date[part]) for part in ("day", "month", "year") if date.get(part)]
    return [" ".join(parts)] if parts else []


def _drop_hub(rows: Iterable[Row]) -> Iterator[Row]:
    """The hub's copy keeps one list of spans of all annotators; each is an answer of its own."""
    for row in rows:
        yield row | {
            "id": row["query_id"],
            "answers": [[span] for span in dict.fromkeys(row["answers_spans"]["spans"])],
        }


def _hellaswag(rows: Iterable[Row]) -> Iterator[Row]:
    """WikiHow texts carry marks such as "[title]" and "[step]"; the test split has no label."""
    for row in rows:
        if row.get("label") in (None, ""):
            yield {"broken": "no label, as in the test split"}
            continue
        context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
        endings = [_without_marks(ending) for ending in row["endings"]]
        yield {
            "ind": row["ind"],
            "context": _without_marks(context),
            "endings": endings,
            "label": row["label"],
        }


def _without_marks(text: str) -> str:
    lines = []
    for line in text.replace(" [title]", ". ").split("\n"):
        # Behind the last closing bracket no mark ends: looking for one from every opening bracket took quadratic time.
        marked, closing, rest = line.rpartition("]")
        lines.append(re.sub(r"\[.*?\]", "", marked + closing) + rest)
    return " ".join("\n".join(lines).split())


def _race_file(path: Path) -> Iterator[Row]:
    yield {"example_id": path.parent.name + path.name, "passage": _json(path)}


def _race(rows: Iterable[Row]) -> Iterator[Row]:
    """A passage with parallel lists of questions, options and answers."""
    for row in rows:
        passage = row["passage"]
        for question, options, answer in zip(passage["questions"], passage["options"], passage["answers"], strict=True):
            yield {
                "example_id": row["example_id"],
                "article": passage["article"],
                "question": question,
                "options": options,
                "answer": answer,
            }


def _crass(path: Path) -> Iterator[Row]:
    """Delimiter `;`: id, batch, premise, counterfactual question, right answer, two or three distractors."""
    for record in _csv(path, ";"):
        if isinstance(record, dict):
            yield record
            continue
        cells = [cell.strip() for cell in record]
        if len(cells) < 7:
            if any(cells):
                yield {"broken": f"{len(cells)} columns where at least 7 are needed"}
        elif not (cells[2].lower() == "premise" or cells[0].lower() in ("id", "pctid")):
            options = [cell for cell in cells[4:8] if cell]
            yield {"id": cells[0], "question": f"{cells[2]} {cells[3]}", "options": options, "index": 0}


TOXIC_ABOVE = 5.5
"""A statement is toxic where the human and the model's rating, 1 to 5 each, add up to more (the authors' rule)."""


def _toxigen(rows: Iterable[Row]) -> Iterator[Row]:
    for row in rows:
        try:
            toxic = float(row["toxicity_human"]) + float(row["toxicity_ai"]) > TOXIC_ABOVE
        except (KeyError, TypeError, ValueError):
            yield {"broken": "no ratings `toxicity_human` and `toxicity_ai`"}
            continue
        group = re.sub(r"[^a-z]+", "_", str(row["target_group"]).lower()).strip("_")
        statement = str(row["text"])
        if re.match(r"""b(['"]).*\1$""", statement, re.DOTALL):  # the published table holds some texts as printed bytes
            statement = ast.literal_eval(statement).decode(errors="replace")
        yield {
            "task": f"{group}.{'toxic' if toxic else 'neutral'}",
            "statement": statement,
            "options": ["toxic", "neutral"],
            "index": 0 if toxic else 1,
        }


def _qmsum(rows: Iterable[Row]) -> Iterator[Row]:
    """A meeting with general and specific queries; ids count the queries of a file."""
    for row in rows:
        turns = [f"{turn['speaker']}: {turn['content']}" for turn in row["meeting_transcripts"]]
        for kind in ("general", "specific"):
            for query in row[f"{kind}_query_list"]:
                yield {
                    "task": kind,
                    "query": query["query"],
                    "answer": query["answer"],
                    "document": "\n".join(turns),
                }


def _ms_marco_table(path: Path) -> Iterator[Row]:
    """v2.1 keeps a table as columns keyed by row number; v1.1 one row a line."""
    loaded = _json(path)
    if isinstance(loaded, dict):
        keys = list(loaded["query_id"])
        loaded = [{column: values[key] for column, values in loaded.items() if key in values} for key in keys]
    yield from (row if isinstance(row, dict) else {"broken": f"not an object: {str(row)[:40]!r}"} for row in loaded)


def _ms_marco(rows: Iterable[Row]) -> Iterator[Row]:
    for row in rows:
        if "query" not in row or not row.get("passages"):
            yield {"broken": f"query {row.get('query_id')!r} has no question or no passages"}
            continue
        passages = row["passages"]
        texts = passages["passage_text"] if isinstance(passages, dict) else [one["passage_text"] for one in passages]
        better = row.get("wellFormedAnswers")
        answers = better if isinstance(better, list) and better else row["answers"]
        if not answers:
            yield {"broken": f"query {row['query_id']!r} has no answer"}
            continue
        document = "\n\n".join(f"[{number}] {text}" for number, text in enumerate(texts, start=1))
        yield {"query_id": row["query_id"], "query": row["query"], "document": document, "answers": answers}


def _mt_bench(path: Path) -> Iterator[Row]:
    """Questions, with the references of GPT-4 where `reference_answer/gpt-4.jsonl` stands beside them."""
    references = path.parent / "reference_answer" / "gpt-4.jsonl"
    known: dict[str, list[str]] = {}
    for row in _guarded(_mt_bench_reference)(flat_rows(references) if references.exists() else []):
        if "broken" in row:
            yield {"broken": f"{references.name}: {row['broken']}"}
        else:
            known[str(row["question_id"])] = row["turns"]
    for row in flat_rows(path):
        yield row | {"reference": known.get(str(row.get("question_id")), row.get("reference", []))}


def _mt_bench_reference(rows: Iterable[Row]) -> Iterator[Row]:
    for row in rows:
        yield {"question_id": row["question_id"], "turns": row["choices"][0]["turns"]}


def _rocstories(rows: Iterable[Row]) -> Iterator[Row]:
    for row in rows:
        yield {
            "id": row.get("storyid"),
            "sentences": [row.get(f"sentence{number}") for number in range(1, 6)],
        }


Flatten = Callable[[Iterable[Row]], Iterator[Row]]


def _guarded(flatten: Flatten) -> Flatten:
    """`flatten`, row by row: one that it cannot take is broken, and costs no other."""

    def rows(raw: Iterable[Row]) -> Iterator[Row]:
        for row in raw:
            try:
                # A list, so that a row which is broken at its end asks nothing.
                yield from [row] if "broken" in row else list(flatten([row]))
            except BROKEN as error:
                yield {"broken": f"not in its data set's form: {type(error).__name__} {error}"}

    return rows


def _nested(flatten: Flatten, file: Callable[[Path], Iterator[Row]] = flat_rows, hub: Flatten | None = None) -> Form:
    """A form whose rows are nested. `file`: raw rows of one file, `hub`: where the hub's rows are nested otherwise."""

    def rows(path: Path) -> Iterator[Row]:
        try:
            yield from _guarded(flatten)(file(path))
        except BROKEN as error:
            raise DataError(f"{path} is not in its data set's form: {type(error).__name__} {error}") from error

    return Form(rows, _guarded(hub or flatten))


FORMS: dict[str, Form] = {
    "flat": Form(flat_rows, iter),
    "headless": Form(_headless, iter),
    "agieval": _nested(_agieval),
    "olmes": _nested(_olmes),
    "bbh": _nested(_bbh),
    "hellaswag": _nested(_hellaswag),
    "toxigen": _nested(_toxigen),
    "qmsum": _nested(_qmsum),
    "rocstories": _nested(_rocstories),
    "drop": _nested(_drop, _drop_pairs, _drop_hub),
    "race": _nested(_race, _race_file, iter),
    "crass": _nested(iter, _crass),
    "ms_marco": _nested(_ms_marco, _ms_marco_table),
    "mt_bench": _nested(iter, _mt_bench),
}
"""Name in a layout's `form` -> how its files, or its rows on the hub, become flat rows."""
