"""Benchmarks: every form of file and every kind of answer gives samples and reasons, or one error."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orca2.answers.extraction import Extraction
from orca2.evaluation.benchmark import Sample
from orca2.evaluation.benchmarks.kinds import KINDS
from orca2.evaluation.benchmarks.stored import StoredBenchmark
from orca2.records import AnswerKind
from orca2.rows.forms import FORMS
from tests.fuzz.mutations import FILE_LOOPS, LOOPS, ROWS_SECONDS, Mutator, attack
from tests.linear_time import assert_linear

ARC = {"id": "M1", "question": "Hot?", "options": ["sun", "ice"], "labels": ["1", "2"], "label": "2", "answer": "x 2"}
FORM_ROWS: dict[str, Any] = {
    "flat": [ARC, ARC | {"label": None, "index": 0}, ARC | {"scores": {"sun": 1, "ice": 0}}],
    "headless": "Hot?,sun,ice,A\n\"a, \"\"b\"\"\",c,d,B\n",
    "agieval": [{"question": "Hot?", "options": ["(A)sun", "(B) ice"], "label": "A"}],
    "olmes": [{"query": "Question: Hot?\nAnswer:", "options": ["a", "b"], "index": 1}],
    "bbh": {
        "examples": [
            {"input": "Hot?\nOptions:\n(A) sun\n(B) ice", "target": "(A)"},
            {"input": "Hot?\nOptions:\n- sun\n- ice", "target": "sun"},
            {"input": "not ( True )", "target": "False"},
        ]
    },
    "hellaswag": [
        {"ind": 1, "activity_label": "Run", "ctx_a": "He [title] runs", "ctx_b": "he", "endings": ["[step] a", "b"],
         "label": "0"}
    ],
    "toxigen": [
        {"toxicity_human": 5, "toxicity_ai": "1.5", "target_group": "a b", "text": "b'x\\xff'"},
        {"toxicity_human": 1, "toxicity_ai": 1, "target_group": "c", "text": "y"},
    ],
    "qmsum": [
        {
            "general_query_list": [{"query": "Summarize.", "answer": "They met."}],
            "specific_query_list": [{"query": "Who?", "answer": "Ann."}],
            "meeting_transcripts": [{"speaker": "Ann", "content": "Hello."}],
        }
    ],
    "rocstories": [{"storyid": "s", **{f"sentence{number}": f"S {number}." for number in range(1, 6)}}],
    "drop": {
        "nfl": {
            "passage": "Two kicks.",
            "qa_pairs": [
                {"query_id": "q1", "question": "How many?", "answer": {"number": "2", "date": {}, "spans": []},
                 "validated_answers": [{"number": "", "date": {"month": "May"}, "spans": ["35", "40"]}]},
            ],
        }
    },
    "race": {"article": "A cat.", "questions": ["Who?"], "options": [["a", "b", "c", "d"]], "answers": ["A"]},
    "crass": "PCTID;Batch;Premise;QCC;Correct;A1;A2\n1;1;A boy falls.;If not?;He stands.;He flies.;He sings.\n",
    "ms_marco": {
        "query_id": {"0": 5}, "query": {"0": "how far"}, "passages": {"0": [{"passage_text": "Nine miles."}]},
        "answers": {"0": ["9 miles"]}, "wellFormedAnswers": {"0": ["It is nine miles."]},
    },
    "mt_bench": [{"question_id": 1, "category": "c", "turns": ["a", "b"], "reference": ["r"]}],
}  # fmt: skip
"""Form -> what an official file of it holds; a text is a table."""
KIND_ROWS: Mapping[AnswerKind, dict[str, Any]] = {
    "choice": {"passage": "p", "question": "Hot?", "options": ["sun", "ice"], "labels": ["1", "2"], "label": "2"},
    "number": {"question": "1+1?", "answer": "so #### 1,002"},
    "span": {"passage": "Two kicks.", "question": "How many?", "answers": [["2"], ["35", "40"]]},
    "word": {"text": "He said no"},
    "list": {"question": "Sort: b a", "answer": "a b"},
    "order": {"sentences": ["a", "b", "c"]},
    "text": {"document": "d", "query": "q", "answers": ["a", "b"]},
    "chat": {"turns": ["a", "b"], "category": "c", "reference": ["r"]},
}
PROMPTS: Mapping[AnswerKind, str] = {
    "choice": "{passage}{question}\n{options}\n{hint}", "number": "{question}\n{hint}", "word": "{passage}{hint}",
    "span": "{passage}{question}{hint}", "list": "{question}{hint}", "order": "{options}{hint}",
    "text": "{document}\n{query}", "chat": "{question}",
}  # fmt: skip
KIND_OF_FORM: Mapping[str, AnswerKind] = {
    "drop": "span", "qmsum": "text", "ms_marco": "text", "mt_bench": "chat", "rocstories": "order",
}  # fmt: skip
COLUMNS: Mapping[str, Mapping[str, str]] = {
    "headless": {"question": "0", "options": "1, 2", "label": "3"},
    "olmes": {"question": "query", "options": "options", "index": "index"},
    "hellaswag": {"question": "context", "options": "endings", "index": "label", "id": "ind"},
    "toxigen": {"question": "statement", "options": "options", "index": "index", "task": "task"},
    "rocstories": {"sentences": "sentences", "id": "id"},
    "race": {"passage": "article", "question": "question", "options": "options", "label": "answer"},
    "crass": {"question": "question", "options": "options", "index": "index", "id": "id"},
    "qmsum": {"document": "document", "query": "query", "answers": "answer", "task": "task"},
    "ms_marco": {"document": "document", "query": "query", "answers": "answers", "id": "query_id"},
    "mt_bench": {"turns": "turns", "category": "category", "reference": "reference", "id": "question_id"},
    "drop": {"passage": "passage", "question": "question", "answers": "answers", "id": "id"},
}
OTHERS = {"question": "question", "options": "options", "labels": "labels", "label": "label", "index": "index",
          "scores": "scores", "id": "id"}  # fmt: skip
FORM_INPUTS, KIND_INPUTS, TEXT_INPUTS = 1_000, 1_500, 150
"""Inputs of each form of file; of each kind of answer, with its answers; of texts, whose scores take longer."""
INPUTS = len(FORM_ROWS) * FORM_INPUTS + (len(KIND_ROWS) - 1) * KIND_INPUTS + TEXT_INPUTS


def suffix_of(form: str) -> str:
    return ".csv" if isinstance(FORM_ROWS[form], str) else ".jsonl" if isinstance(FORM_ROWS[form], list) else ".json"


def benchmark(kind: AnswerKind, form: str, columns: Mapping[str, str]) -> StoredBenchmark:
    layout: dict[str, str | None] = {"files": "x*.*", "form": form, **columns}
    return StoredBenchmark(
        name="b", version=1, domain="in_domain", kind=kind, max_new_tokens=8, prompt=PROMPTS[kind],
        tasks={"t": "x"}, layouts={"official": layout}, shuffle=kind == "choice",
    )  # fmt: skip


def written(form: str, rows: Any) -> bytes:
    if isinstance(rows, list) and suffix_of(form) == ".jsonl":
        return "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    return rows.encode(errors="replace") if isinstance(rows, str) else json.dumps(rows).encode()


def read(form: str, folder: Path, content: bytes) -> None:
    """Every sample; each can be asked and written."""
    (folder / f"x{suffix_of(form)}").write_bytes(content)
    for sample in benchmark(KIND_OF_FORM.get(form, "choice"), form, COLUMNS.get(form, OTHERS)).samples(folder):
        if isinstance(sample, Sample):
            json.dumps([sample.id, sample.turns, sample.gold], ensure_ascii=False).encode()
        else:
            assert sample.reason


def test_every_form_and_kind_is_here() -> None:
    """A new form of file or kind of answer must not go unfuzzed."""
    assert set(FORM_ROWS) == set(FORMS) and set(KIND_ROWS) == set(PROMPTS) == set(KINDS)


@pytest.mark.parametrize("form", FORM_ROWS)
def test_what_is_damaged_was_whole(form: str, tmp_path: Path) -> None:
    """Damage to a file that gives no sample in the first place tries nothing."""
    (tmp_path / f"x{suffix_of(form)}").write_bytes(written(form, FORM_ROWS[form]))
    made = benchmark(KIND_OF_FORM.get(form, "choice"), form, COLUMNS.get(form, OTHERS))
    assert all(isinstance(sample, Sample) for sample in made.samples(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("form", FORM_ROWS)
def test_forms_of_files(form: str, tmp_path: Path) -> None:
    """A row that a form could not take ended the whole evaluation."""
    whole = written(form, FORM_ROWS[form])

    def make(mutator: Mutator) -> bytes:
        if isinstance(FORM_ROWS[form], str) or mutator.draw.random() < 0.3:
            return mutator.data(whole)
        return written(form, mutator.value(FORM_ROWS[form]))

    attack(f"form {form}", FORM_INPUTS, make, lambda content: read(form, tmp_path, content))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KIND_ROWS)
def test_kinds_of_answers(kind: AnswerKind, tmp_path: Path) -> None:
    """A strange row, a strange answer to it, and their score."""
    made = benchmark(kind, "flat", {name: name for name in sorted(KINDS[kind].columns)})

    def make(mutator: Mutator) -> tuple[Any, str]:
        return mutator.value(KIND_ROWS[kind], sorted(KINDS[kind].columns)), mutator.text(
            "So the answer is\nAnswer: (A)"
        )

    def answer(given: tuple[Any, str]) -> None:
        row, text = given
        (tmp_path / "x.jsonl").write_text(json.dumps(row), encoding="utf-8")
        for sample in made.samples(tmp_path):
            if isinstance(sample, Sample):
                found = made.read(text, sample)
                assert isinstance(found, Extraction) and found.ok == bool(found.value)
                assert all(0.0 <= score <= 1.0 for score in made.score(found, sample).values())

    answer((KIND_ROWS[kind], "Answer: A"))  # imports what the scores need
    attack(f"kind {kind}", TEXT_INPUTS if kind == "text" else KIND_INPUTS, make, answer)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORM_ROWS)
def test_forms_are_read_in_linear_time(form: str, tmp_path: Path) -> None:
    """One sign all over a file, or all over a text of a row."""
    whole = written(form, FORM_ROWS[form]).decode()
    is_table = suffix_of(form) == ".csv"
    for piece in (*LOOPS, "[a", "b'", "b'(", "-1"):
        used = piece if is_table else json.dumps(piece)[1:-1]
        for word in places(form)[: 0 if is_table and "\n" in piece else 2]:
            assert_linear(
                lambda content: read(form, tmp_path, content),
                lambda length: whole.replace(word, word + used * (length // len(used)) + "x", 1).encode(),  # noqa: B023
                (piece, word),
            )
    for piece in FILE_LOOPS:
        assert_linear(
            lambda content: read(form, tmp_path, content),
            lambda length: (whole + piece * (length // len(piece))).encode(),  # noqa: B023
            piece,
            ROWS_SECONDS,
        )


def places(form: str) -> list[str]:
    """Words of a form's file behind which a text goes on."""
    return [word for word in ("Hot?", "sun", "He [title]", "Who?", "Two kicks", "A cat", "boy", "miles", "S 1")
            if word in written(form, FORM_ROWS[form]).decode()]  # fmt: skip
