"""Our benchmarks in lm-eval's own harness: the same samples, prompts and scores."""

import json
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from orca2.errors import ConfigError
from orca2.evaluation.benchmark import Sample
from orca2.evaluation.lm_eval_tasks import command, export_tasks, process_results
from orca2.evaluation.sample_plan import SamplePlan, make_plan
from orca2.evaluation.stand_ins import GoldAnswers, RandomAnswers
from orca2.hashing import hash64
from orca2.settings import build

CONF = Path(__file__).parents[3] / "conf"


def plan(folder: Path, *names: str) -> SamplePlan:
    """A few samples of each benchmark, from files made here."""
    rows = [{"question": f"What is {i} + {i}?", "answer": f"#### {2 * i}"} for i in range(12)]
    (folder / "gsm8k").mkdir(parents=True, exist_ok=True)
    (folder / "gsm8k" / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    arc = [
        {
            "id": f"M{i}",
            "question": {"stem": "Hot?", "choices": [{"text": "sun", "label": "1"}, {"text": "ice", "label": "2"}]},
            "answerKey": str(1 + i % 2),
        }
        for i in range(12)
    ]
    (folder / "arc").mkdir(exist_ok=True)
    (folder / "arc" / "ARC-Easy-Test.jsonl").write_text("\n".join(map(json.dumps, arc)))
    (folder / "mt_bench").mkdir(exist_ok=True)
    (folder / "mt_bench" / "question.jsonl").write_text(json.dumps({"question_id": 1, "turns": ["a", "b"]}))
    with initialize_config_dir(str(CONF), version_base="1.3"):
        built = {name: build(compose(overrides=[f"+benchmark={name}"]).benchmark) for name in names}
    return make_plan(built, folder, None, 0, False)


def text_of(sample: Sample) -> str:
    """Right for some samples, a guess for the others."""
    stand_in = GoldAnswers() if hash64(sample.id) % 2 else RandomAnswers()
    return stand_in.answer(sample, 0)


def test_scores_survive_the_way_to_lm_eval_and_back(tmp_path: Path) -> None:
    """A sample that loses its options or its gold answers on the way would be scored as another question."""
    made = plan(tmp_path / "data", "gsm8k", "arc_easy")
    assert export_tasks(made, tmp_path / "tasks") == {"orca2_gsm8k": 12, "orca2_arc_easy": 12}
    for name, planned in made.benchmarks.items():
        lines = (tmp_path / "tasks" / "data" / f"{name}.jsonl").read_text().splitlines()
        for line, sample in zip(lines, planned.samples, strict=True):
            document, text = json.loads(line), text_of(sample)
            found = planned.benchmark.read(text, sample)
            assert document["prompt"] == sample.turns[0]
            assert process_results(document, [text]) == {
                **planned.benchmark.score(found, sample),
                "format_ok": float(found.ok),
            }
            assert process_results(document, [""]) == {"accuracy": 0.0, "format_ok": 0.0}


def test_what_lm_eval_cannot_score_stays_here(tmp_path: Path) -> None:
    """lm-eval asks one turn, knows no judge, and would read a strict final line leniently: other scores than here."""
    for name in ("mt_bench", "procedural"):
        with pytest.raises(ConfigError, match="several turns, a judge, or a strict final line"):
            export_tasks(plan(tmp_path / "data", name), tmp_path / "tasks")
    assert "--apply_chat_template" in command(["orca2_gsm8k"], tmp_path, "runs/mine/student")


def test_tasks_of_another_version_are_refused(tmp_path: Path) -> None:
    """A kind that was renamed since would end lm-eval with a bare KeyError after hours of answers."""
    export_tasks(plan(tmp_path / "data", "gsm8k"), tmp_path / "tasks")
    document = json.loads((tmp_path / "tasks" / "data" / "gsm8k.jsonl").read_text().splitlines()[0])
    document["sample"] = json.dumps(json.loads(document["sample"]) | {"kind": "last_word"})
    with pytest.raises(ConfigError, match=r"another version exported: kind = 'last_word'; allowed are .*'word'"):
        process_results(document, ["Answer: 1"])


@pytest.mark.slow
def test_lm_eval_runs_our_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """lm-eval's own evaluator must find the tasks by their folder and report our accuracy, to the last digit."""
    pytest.importorskip("lm_eval", reason="extra lm-eval")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    from lm_eval import simple_evaluate
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    made = plan(tmp_path / "data", "gsm8k", "arc_easy")
    tasks = export_tasks(made, tmp_path / "tasks")
    answers = {s.turns[0]: text_of(s) for planned in made.benchmarks.values() for s in planned.samples}

    class Answering(LM):  # type: ignore[misc]
        """Answers from the dictionary above."""

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
            assert all(request.args[1]["max_gen_toks"] == 1024 for request in requests)
            return [answers[request.args[0]] for request in requests]

        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
            raise NotImplementedError

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
            raise NotImplementedError

    manager = TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False)
    found = simple_evaluate(model=Answering(), tasks=list(tasks), task_manager=manager, bootstrap_iters=0)["results"]
    for name, planned in made.benchmarks.items():
        scores = [
            planned.benchmark.score(planned.benchmark.read(answers[s.turns[0]], s), s)["accuracy"]
            for s in planned.samples
        ]
        assert 0 < sum(scores) < len(scores)
        assert found[f"orca2_{name}"]["accuracy,none"] == sum(scores) / len(scores)
        assert 0 < found[f"orca2_{name}"]["format_ok,none"] <= 1
