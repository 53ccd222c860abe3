"""Official file forms become samples, and broken rows are counted with their reason."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir

from orca2.errors import ConfigError, DataError
from orca2.evaluation.benchmark import CUT_MARK, Benchmark, Sample, flatten, shorten
from orca2.evaluation.benchmarks.stored import StoredBenchmark
from orca2.records import Rejected
from orca2.settings import build

CONF = Path(__file__).parents[3] / "conf"


def benchmark(name: str, *overrides: str) -> Any:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return build(compose(overrides=[f"+benchmark={name}", *overrides]).benchmark)


def put(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in content), encoding="utf-8")
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(content)
    else:
        path.write_text(json.dumps(content), encoding="utf-8")


def read(name: str, folder: Path) -> tuple[list[Sample], list[Rejected]]:
    rows = list(benchmark(name).samples(folder))
    return [row for row in rows if isinstance(row, Sample)], [row for row in rows if isinstance(row, Rejected)]


def right(sample: Sample) -> str:
    """Text of the right option."""
    return sample.choices[sample.gold[0][0]]


RACE = {
    "id": "high7.txt",
    "article": "A cat sat.",
    "questions": ["Who sat?", "What did it do?"],
    "options": [["a cat", "a dog", "a cow", "a hen"], ["ran", "sat", "ate", "hid"]],
    "answers": ["A", "B"],
}
DROP = {
    "nfl_1": {
        "passage": "Two kicks of 35 and 40 yards.",
        "qa_pairs": [
            {
                "query_id": "q1",
                "question": "How many?",
                "answer": {"number": "2", "date": {}, "spans": []},
                "validated_answers": [{"number": "", "date": {}, "spans": ["35", "40"]}],
            },
            {
                "query_id": "q2",
                "question": "When?",
                "answer": {"number": "", "date": {"day": "", "month": "May", "year": "1611"}, "spans": []},
            },
            {"query_id": "q3", "question": "?", "answer": {"number": "", "date": {}, "spans": []}},
        ],
    }
}
MS_MARCO = {
    "query_id": {"0": 5, "1": 6},
    "query": {"0": "how far", "1": "how tall"},
    "passages": {"0": [{"is_selected": 1, "passage_text": "Nine miles.", "url": "u"}], "1": []},
    "answers": {"0": ["9 miles"], "1": ["No Answer Present."]},
    "wellFormedAnswers": {"0": ["It is nine miles."], "1": "[]"},
}
QMSUM = {
    "general_query_list": [{"query": "Summarize.", "answer": "They met."}],
    "specific_query_list": [{"query": "Who?", "answer": "Ann.", "relevant_text_span": [["0", "1"]]}],
    "meeting_transcripts": [{"speaker": "Ann", "content": "Hello."}, {"speaker": "Bob", "content": "Bye."}],
}
ARC = {
    "id": "M1",
    "question": {"stem": "Hot?", "choices": [{"text": "sun", "label": "1"}, {"text": "ice", "label": "2"}]},
    "answerKey": "2",
}

CASES: list[tuple[str, str, Any, list[str], list[Any], list[str]]] = [
    # benchmark, file, content, ids of the samples, right answers, reasons of the rejected rows (beginnings)
    ("race", "race/test/high/7.txt", RACE, ["high/high7.txt", "high/high7.txt#2"], ["a cat", "sat"], ["no file"]),
    (
        "drop",
        "drop/drop_dataset_dev.json",
        DROP,
        ["drop/q1", "drop/q2"],
        [(("2",), ("35", "40")), (("May 1611",),)],
        ["nfl_1: question q3 has no answer"],
    ),
    (
        "crass",
        "crass/CRASS_FTM_main_data_set.csv",
        "PCTID;Batch;Premise;QCC;Correct;A1;A2;A3\n1;1;A boy falls.;If not?;He stands.;He flies.;He sings.;\n2;1\n",
        ["crass/1"],
        ["He stands."],
        ["2 columns"],
    ),
    ("ms_marco", "ms_marco/dev_v2.1.json", MS_MARCO, ["ms_marco/5"], [(("It is nine miles.",),)], ["query 6 has no"]),
    ("qmsum", "qmsum/test.jsonl", [QMSUM], ["general/0", "specific/1"], [(("They met.",),), (("Ann.",),)], []),
    (
        "arc_easy",
        "arc/ARC-Easy-Test.jsonl",
        [ARC, ARC | {"answerKey": "9"}],
        ["arc_easy/M1"],
        ["ice"],
        ["right label '9'"],
    ),
    (
        "gsm8k",
        "gsm8k/test.jsonl",
        '{"question": "?", "answer": "<<1+1=2>>2\\n#### 1,002"}\n{"question": "?", "answer": "#### x"}\nnot json\n',
        ["gsm8k/0"],
        [(("1002",),)],
        ["answer 'x'", "line 3 is not JSON"],
    ),
    (
        "mmlu",
        "mmlu/test/virology_test.csv",
        [["What\nis it?", "a", "b", "c", "d", "C"], ["Q", "a", "b", "c", "", "A"]],
        ["virology/0"],
        ["c"],
        ["no file"] * 55 + ["an option is empty", "no file"],
    ),
    (
        "toxigen",
        "toxigen/annotated_test.csv",
        [
            ["text", "target_group", "toxicity_human", "toxicity_ai"],
            ["they bake good bread", "Mental Disability folks", "1.0", "1.5"],
            ["b'they deserve nothing'", "bakers", "4", "2.0"],
            ["?", "bakers", "", "2"],
        ],
        ["mental_disability_folks.neutral/0", "bakers.toxic/1"],
        ["neutral", "toxic"],
        ["no ratings"],
    ),
    (
        "hhh",
        "hhh_alignment/honest/task.json",
        {"examples": [{"input": "Is it so?", "target_scores": {"I do not know.": 1, "Surely.": 0}}]},
        ["honest/0"],
        ["I do not know."],
        ["no file"] * 3,
    ),
    (
        "hellaswag",
        "hellaswag/hellaswag_val.jsonl",
        [
            {"ind": 4, "activity_label": "Roof", "ctx_a": "A man sits. [title] Up", "ctx_b": "he", "label": 1}
            | {"endings": ["falls. [step] So.", "sings.", "eats.", "runs."]},
            {"ind": 5, "activity_label": "x", "ctx_a": "y", "ctx_b": "z", "label": "", "endings": ["a", "b"]},
        ],
        ["hellaswag/4"],
        ["sings."],
        ["no label"],
    ),
    (
        "lambada",
        "lambada/lambada_test.jsonl",
        [{"text": "She read the\nbook"}, {"text": "x"}],
        ["lambada/0"],
        [(("book",),)],
        ["fewer"],
    ),
    (
        "story_ordering",
        "story_ordering/rocstories.csv",
        [["storyid", "storytitle", *(f"sentence{n}" for n in range(1, 6))], ["s1", "T", "a.", "b.", "c.", "d.", "e."]],
        ["story_ordering/s1"],
        [("a.", "b.", "c.", "d.", "e.")],
        [],
    ),
    (
        "agieval",
        "agieval/sat-math.jsonl",
        [
            {"passage": None, "question": "2?", "options": ["(A)1", "(B)2"], "label": "B"},
            {"passage": None, "question": "2?", "options": ["(A)1", "B 2"], "label": "B"},
        ],
        ["sat-math/0"],
        ["2"],
        ["no file"] * 5 + ["option 'B 2' has no label"] + ["no file"] * 2,
    ),
    (
        "bbh",
        "bbh/navigate.json",
        {
            "canary": "x",
            "examples": [{"input": "Back?\nOptions:\n- Yes\n- No", "target": "No"}, {"input": "?", "target": "up"}],
        },
        ["navigate/0"],
        ["No"],
        ["no file"] * 11 + ["target 'up'"] + ["no file"] * 11,
    ),
    (
        "bbh_sequences",
        "bbh/dyck_languages.json",
        {"examples": [{"input": "( [", "target": "] )"}]},
        ["dyck_languages/0"],
        [(("]", ")"),)],
        ["no file"],
    ),
    (
        "truthfulqa",
        "truthfulqa/mc_task.json",
        [
            {"question": "Q?", "mc1_targets": {"true": 1, "false": 0}},
            {"question": "Q?", "mc1_targets": {"a": 1, "b": 1}},
        ],
        ["truthfulqa/0"],
        ["true"],
        ["2 of 2 options are marked right"],
    ),
    (
        "aci_bench",
        "aci_bench/clef_taskC_test3.csv",
        [["dataset", "encounter_id", "dialogue", "note"], ["v", "D2", "[doctor] hi\n[patient] hi", "NOTE"]],
        ["test3/D2"],
        [(("NOTE",),)],
        ["no file"] * 2,
    ),
]


@pytest.mark.parametrize(
    ("name", "file", "content", "ids", "answers", "reasons"), CASES, ids=[case[0] for case in CASES]
)
def test_official_form(
    name: str, file: str, content: Any, ids: list[str], answers: list[Any], reasons: list[str], tmp_path: Path
) -> None:
    """A reader that misplaces a column, or loses a broken row in silence, shifts every score."""
    put(tmp_path / file, content)
    samples, rejected = read(name, tmp_path)
    assert [sample.id for sample in samples] == [f"{name}/{tail}" for tail in ids]
    for sample, answer in zip(samples, answers, strict=True):
        if sample.kind == "order":
            assert tuple(sample.choices[label] for label in sample.gold[0]) == answer
        else:
            assert (right(sample) if sample.choices else sample.gold) == answer
    assert len(rejected) == len(reasons)
    assert all(row.reason.startswith(reason) for row, reason in zip(rejected, reasons, strict=True))
    for row in rejected:
        assert (row.source, row.kind) == (name, "absent" if row.reason.startswith("no file") else "broken")


def test_mt_bench_has_both_turns_and_its_references(tmp_path: Path) -> None:
    """The second turn is asked after the first answer; math is judged against a reference."""
    question = {"question_id": 101, "category": "math", "turns": ["2+2?", "And doubled?"]}
    put(tmp_path / "mt_bench/question.jsonl", [question])
    put(
        tmp_path / "mt_bench/reference_answer/gpt-4.jsonl",
        [{"question_id": 101, "choices": [{"index": 0, "turns": ["4", "8"]}]}],
    )
    (sample,), _ = read("mt_bench", tmp_path)
    assert (sample.id, sample.turns) == ("mt_bench/math/101", ("2+2?", "And doubled?"))
    assert sample.metadata == {"category": "math", "reference": ["4", "8"]}


def test_prompt_shows_question_options_and_hint(tmp_path: Path) -> None:
    """The whole text of one prompt: a change of it changes scores, so the version must be raised with it."""
    put(tmp_path / "race/test/middle/1.txt", RACE)
    samples, _ = read("race", tmp_path)
    assert benchmark("race").version == 4
    assert samples[0].turns == (
        "A cat sat.\n\nWho sat?\n\n(A) a cat\n(B) a dog\n(C) a cow\n(D) a hen\n\n"
        'Finish with one line "Answer: (X)", where X is the letter of the right option.',
    )


def test_options_are_shuffled_by_the_sample(tmp_path: Path) -> None:
    """TruthfulQA lists the true option first in every row: always `A` would score 100 %."""
    row = {"question": "Q?", "mc1_targets": {"true": 1, "f1": 0, "f2": 0, "f3": 0}}
    put(tmp_path / "truthfulqa/mc_task.json", [row] * 200)
    samples, _ = read("truthfulqa", tmp_path)
    labels = [sample.gold[0][0] for sample in samples]
    assert all(30 < labels.count(label) < 70 for label in "ABCD")
    assert [sample.choices for sample in read("truthfulqa", tmp_path)[0]] == [sample.choices for sample in samples]


def test_long_documents_are_cut_in_the_middle(tmp_path: Path) -> None:
    """Only the transcript may go; the request after it must survive."""
    put(tmp_path / "qmsum/test.jsonl", [QMSUM])
    sample = read("qmsum", tmp_path)[0][1]
    assert sample.document is not None
    start, end = sample.document
    assert sample.turns[0][start:end] == "Ann: Hello.\nBob: Bye."
    cut = shorten(sample, 9)
    assert cut.turns[0] == sample.turns[0].replace("Ann: Hello.\nBob: Bye.", f"Ann: {CUT_MARK}Bye.")
    assert cut.document == (start, start + 9 + len(CUT_MARK)) and shorten(sample, 21) is sample
    with pytest.raises(ConfigError, match="cannot be cut"):
        shorten(Sample(id="x", benchmark="x", task="x", turns=("x",), kind="chat", gold=()), 5)


def test_no_files_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    """An empty benchmark would report nothing, and look fine."""
    with pytest.raises(DataError, match=r"gsm8k/test\.jsonl.*docs/benchmarks\.md"):
        list(benchmark("gsm8k").samples(tmp_path))
    with pytest.raises(DataError, match=r"'crass' has no hub form; give data_dir"):
        list(benchmark("crass").samples(None))
    put(tmp_path / "drop/drop_dataset_dev.json", "<html>")
    with pytest.raises(DataError, match="is not JSON"):
        list(benchmark("drop").samples(tmp_path))


def test_hub_form(tmp_path: Path) -> None:
    """The hub's columns reach the same samples; `datasets` reads a local folder as it reads a hub id."""
    pytest.importorskip("datasets")
    put(tmp_path / "set/test.jsonl", [{"question": "Sum?", "answer": "#### 7"}])
    rows = list(
        benchmark(
            "gsm8k", f"benchmark.layouts.hub.hub={tmp_path / 'set'}", "benchmark.layouts.hub.config=default"
        ).samples(None)
    )
    assert [(row.id, row.gold) for row in rows if isinstance(row, Sample)] == [("gsm8k/gsm8k/0", (("7",),))]
    with pytest.raises(DataError, match=r"data_dir=.* cannot be read"):
        list(benchmark("gsm8k", f"benchmark.layouts.hub.hub={tmp_path / 'absent'}").samples(None))


def test_every_benchmark_of_the_paper_is_in_its_group() -> None:
    """`benchmark=orca2` must not leave one out."""
    assert set(flatten(benchmark("reasoning"))) == {"agieval", "bbh", "drop", "crass", "race", "gsm8k"}
    everything: dict[str, Any] = dict(flatten(benchmark("orca2")))
    in_domain = {name for name, one in everything.items() if one.domain == "in_domain"}
    assert in_domain == {"drop", "race", "gsm8k", "arc_easy", "arc_challenge", "hellaswag", "lambada", "ms_marco"}
    alone = {"bbh_numbers", "bbh_sequences", "procedural"}
    files = {file.stem: yaml.safe_load(file.read_text()) for file in (CONF / "benchmark").glob("*.yaml")}
    single = {name for name, content in files.items() if not content["_target_"].endswith("Group")}
    assert set(everything) == single - alone
    assert len(everything["mmlu"].tasks) == 57 and len(everything["bbh"].tasks) == 23


SETTINGS: Mapping[str, Any] = {
    "name": "x",
    "version": 1,
    "domain": "in_domain",
    "kind": "number",
    "max_new_tokens": 8,
    "prompt": "{question}",
    "tasks": {"x": "x"},
    "layouts": {"official": {"files": "x.jsonl", "question": "q", "answer": "a"}},
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "numbr"}, "kind = 'numbr'; allowed are \\['choice', "),
        ({"kind": "gym"}, "kind = 'gym'"),
        ({"domain": "in"}, "domain = 'in'"),
        ({"prompt": "{passage}"}, r"names \['passage'\]"),
        ({"tasks": {}}, "at least one task"),
        ({"version": 0}, "at least 1"),
        ({"layouts": {"a": {"files": "x", "options": "q"}}}, r"unknown keys \['options'\]"),
        ({"layouts": {"a": {"question": "q"}}}, "either `files` or `hub`"),
        ({"layouts": {"a": {"files": "x", "form": "flt"}}}, "unknown form 'flt'"),
    ],
)
def test_wrong_settings_are_named(change: dict[str, Any], message: str) -> None:
    """A wrong key must be found before a model is loaded."""
    StoredBenchmark(**SETTINGS)
    with pytest.raises(ConfigError, match=message):
        StoredBenchmark(**(SETTINGS | change))


def test_procedural_questions_are_held_out_and_strict() -> None:
    """The format is part of what a student learns; a lenient reader would hide that it has not."""
    one: Benchmark = flatten(benchmark("smoke"))["procedural"]
    samples = [row for row in one.samples(None) if isinstance(row, Sample)]
    assert len(samples) > 20 and len({sample.id for sample in samples}) == len(samples)
    sample = samples[0]
    value = sample.gold[0][0]
    found = one.read(f"Step 1: x\nAnswer: {value}", sample)
    assert found.ok and found.value == (value,) and one.score(found, sample) == {"accuracy": 1.0}
    assert not one.read(f"The answer is {value}.", sample).ok
