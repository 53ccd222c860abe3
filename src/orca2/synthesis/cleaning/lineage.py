"""Tasks made from a benchmark of the paper, known by their names. Text matching alone would not find them:
a benchmark's question under another template, or turned around, shares few long n-grams with it.

    natural_instructions/task732_mmmlu_answer_generation_...   ──▶ mmlu
    gsm8k/gsm8k/test.jsonl, hub/hub/openai/gsm8k/main/test      ──▶ gsm8k       its training split is not blocked

Names were counted over the 1,654 tasks of Natural Instructions and the tasks of the FLAN collection. A task
built on
a benchmark's training split is blocked too, unless the benchmark is declared in-domain: these tasks mix the
splits.
"""

import fnmatch
from collections.abc import Mapping

from orca2.rows.items import TaskItem

BLOCKED: Mapping[str, tuple[str, ...]] = {
    "agieval": (
        "*lsat*",
        "*logiqa*",
        "*reclor*",
        "*/task*_aqua_*",
        "*aqua?rat*/test*",
        "*agieval*",
        "*agi_eval*",
        "*/sat_*",
        "*gaokao*",
    ),
    "bbh": ("*bigbench*", "*big_bench*", "*big-bench*", "*/bbh*"),
    "drop": ("*_drop_*", "*/drop*"),
    "crass": ("*crass*",),
    "race": ("*_race_*", "*/race*"),
    "gsm8k": ("*gsm8k*/test*",),
    "mmlu": ("*mmmlu*", "*mmlu*", "*hendrycks_test*"),
    "arc": ("*_arc_*", "*/arc_*", "*/arc-*", "*ai2_arc*"),
    "hellaswag": ("*hellaswag*",),
    "lambada": ("*lambada*",),
    "mt_bench": ("*mt_bench*", "*mt-bench*"),
    "aci_bench": ("*aci_bench*", "*aci-bench*", "*acibench*"),
    "qmsum": ("*qmsum*",),
    "ms_marco": ("*ms_marco*", "*msmarco*", "*ms-marco*"),
    "truthfulqa": ("*truthful_qa*", "*truthfulqa*"),
    "toxigen": ("*toxigen*",),
    "hhh": ("*hhh_alignment*", "*/hh?rlhf*"),
}
"""Benchmark to patterns of `collection/task/file`, lower case; a hub data set's file is `repo/subset/split`. `arc_*` is
anchored: a task may say `search_` or `arcade`."""


def benchmark_behind(item: TaskItem) -> str | None:
    """The benchmark that an item's task is made from; None where its name tells of none."""
    file = item.lineage.partition("#")[0]
    name = f"{item.collection}/{item.task}/{file}".lower()
    for benchmark, patterns in BLOCKED.items():
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            return benchmark
    return None
