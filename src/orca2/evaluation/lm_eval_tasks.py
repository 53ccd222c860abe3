"""Our benchmarks as tasks of lm-evaluation-harness: our samples, prompts, extraction and scores, its models.

    <folder>/  orca2_gsm8k.yaml   the task
               scoring.py         what the YAML calls: this module's `process_results`
               data/gsm8k.jsonl   one sample a line, as this project would ask it

    lm_eval --model hf --model_args pretrained=<run>/student --apply_chat_template \\
            --include_path <folder> --tasks orca2_gsm8k

Only what one answer decides can go there: no second turn, no judge, and not the strict final line of the task
families. lm-eval does not say which answers ran into their limit, so a final answer that is cut off there is read as it
stands; here it does not count (rule `cut_off`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from orca2.errors import ConfigError
from orca2.evaluation.benchmark import Sample
from orca2.evaluation.benchmarks.kinds import KINDS, rules_of, score_of
from orca2.evaluation.sample_plan import SamplePlan
from orca2.files import atomic_write_text
from orca2.reasoning import split

PREFIX = "orca2_"
SCORING = "scoring.py"


def export_tasks(plan: SamplePlan, folder: Path) -> dict[str, int]:
    """Write every benchmark of the plan that can go there; returns task -> samples.

    Raises:
        ConfigError: none can.
    """
    written = {}
    for name, planned in plan.benchmarks.items():
        samples = [sample for sample in planned.samples if _fits(sample)]
        if not samples:
            continue
        data = folder / "data" / f"{name}.jsonl"
        atomic_write_text(data, "".join(json.dumps(_document(sample)) + "\n" for sample in samples))
        metrics = [*planned.benchmark.metrics, "format_ok"]
        task = _task(name, planned.benchmark.version, planned.benchmark.max_new_tokens, metrics, data)
        atomic_write_text(folder / f"{PREFIX}{name}.yaml", task)
        written[f"{PREFIX}{name}"] = len(samples)
    if not written:
        raise ConfigError(
            f"none of {sorted(plan.benchmarks)} can be a task of lm-eval: they have several turns, a judge, "
            "or a strict final line"
        )
    atomic_write_text(
        folder / SCORING,
        '"""Called by the tasks beside it."""\n\nfrom orca2.evaluation.lm_eval_tasks import process_results\n',
    )
    return written


def command(tasks: Sequence[str], folder: Path, student: str) -> str:
    """The command line that measures a student on them."""
    return (
        f"lm_eval --model hf --model_args pretrained={student} --apply_chat_template --include_path {folder} "
        f"--tasks {','.join(tasks)}"
    )


def process_results(document: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Metric to value for one answer, as lm-eval asks for them."""
    sample = _sample(document)
    rules = rules_of(sample.kind, f"sample {sample.id!r}, which another version exported")
    found = rules.read(split(results[0]).answer, sample)
    return {**score_of(found, sample, rules), "format_ok": float(found.ok)}


def _fits(sample: Sample) -> bool:
    return not sample.strict and bool(KINDS[sample.kind].metrics) and len(sample.turns) == 1


def _document(sample: Sample) -> dict[str, Any]:
    gold = "; ".join(sample.gold[0]) if sample.gold else ""
    # As text: columns whose keys differ from row to row would be filled up with nulls.
    return {"prompt": sample.turns[0], "target": gold, "sample": json.dumps(asdict(sample))}


def _sample(document: Mapping[str, Any]) -> Sample:
    content = json.loads(document["sample"])
    content["gold"] = tuple(map(tuple, content["gold"]))
    content["turns"] = tuple(content["turns"])
    content["document"] = tuple(content["document"]) if content["document"] else None
    return Sample(**content)


def _task(name: str, version: int, max_new_tokens: int, metrics: Sequence[str], data: Path) -> str:
    task = {
        "task": f"{PREFIX}{name}",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data.resolve())}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{target}}",
        # No stop strings: an answer ends with the end of its turn. Without a limit of ours it would be 256 tokens.
        "generation_kwargs": {"until": [], "do_sample": False, "max_gen_toks": max_new_tokens},
        "metric_list": [{"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in metrics],
        "metadata": {"version": version},
    }
    # The only tag of lm-eval's own YAML that is needed, and that no safe writer knows.
    return yaml.safe_dump(task, sort_keys=False) + "process_results: !function scoring.process_results\n"
