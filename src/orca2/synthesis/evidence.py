"""What a selection of strategies leaves behind: the table of evidence, to read and to compute with, and a config.

<folder>/strategy/<name>.yaml   accepted as strategy=<path>, or as strategy=<name> from conf/strategy
                  <name>.json   every count, per group, strategy and judge
                  <name>.md     the same as tables
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from orca2.errors import ConfigError, DataError
from orca2.files import atomic_write_json, atomic_write_text
from orca2.synthesis.selection import GroupEvidence, StrategyEvidence, by_task

FOLDER = "strategy"
"""Name of the config group, so that a command line can find the file by its path."""


def evidence_table(evidence: Mapping[str, GroupEvidence]) -> dict[str, Any]:
    """The evidence ready for JSON: tallies, score and P(best) per strategy, and calls against the full grid."""
    groups = {}
    for name, group in sorted(evidence.items()):
        rows = {
            strategy: {"score": round(one.score, 4), "mean_tokens": round(one.mean_tokens, 1), **asdict(one)}
            for strategy, one in group.strategies.items()
        }
        groups[name] = {
            "chosen": group.chosen, "reason": group.reason, "tasks": list(group.tasks), "calls": group.calls,
            "full_grid": group.full_grid, "strategies": rows,
        }  # fmt: skip
    return {
        "calls": sum(group.calls for group in evidence.values()),
        "full_grid": sum(group.full_grid for group in evidence.values()),
        "groups": groups,
    }


def evidence_markdown(evidence: Mapping[str, GroupEvidence], name: str) -> str:
    """The evidence as one table per group, the chosen strategy first."""
    table = evidence_table(evidence)
    lines = [
        f"# Strategies measured: {name}",
        "",
        f"{table['calls']:,} probes, of {table['full_grid']:,} that every strategy on every item would have taken. "
        "Right of asked, per judge; score is the posterior mean of the accuracy, averaged over the judges; P(best) is "
        "the probability that no other strategy is better once tokens are paid for.",
    ]
    for group, one in sorted(evidence.items()):
        lines += ["", f"## {group}: {one.chosen or 'not measured'}", "", f"{one.reason}.", ""]
        if not one.calls:
            continue
        judges = list(next(iter(one.strategies.values())).tallies)
        lines.append("| strategy | " + " | ".join(judges) + " | tokens | score | P(best) | |")
        lines.append("|---|" + "---:|" * (len(judges) + 3) + "---|")
        ranked = sorted(one.strategies.items(), key=lambda entry: (entry[1].status != "chosen", -entry[1].score))
        lines += [_row(strategy, found) for strategy, found in ranked]
    return "\n".join(lines) + "\n"


def write_selection(
    evidence: Mapping[str, GroupEvidence], name: str, members: Sequence[str], default: str, folder: Path
) -> Path:
    """Write the three files below `folder`; returns the config's path, which is written last.

    Raises ConfigError where the default or a chosen strategy is not a member.
    """
    chosen = by_task(evidence)
    if unknown := sorted(({default} | set(chosen.values())) - set(members)):
        raise ConfigError(f"strategies {unknown} are not among the members {sorted(members)}")
    config = outcome_path(folder, name)
    atomic_write_json(config.with_suffix(".json"), evidence_table(evidence))
    atomic_write_text(config.with_suffix(".md"), evidence_markdown(evidence, name))
    content = {
        "defaults": [*(f"{member}@members.{member}" for member in members), "_self_"],
        "_target_": "orca2.strategies.StrategyMixture",
        "name": name,
        "by_task": dict(sorted(chosen.items())),
        "default": default,
    }
    head = f"# Each task has the strategy that answered it best; measured, the evidence is in {name}.md.\n"
    atomic_write_text(config, head + yaml.safe_dump(content, sort_keys=False, width=110))
    return config


def outcome_path(folder: Path, name: str) -> Path:
    """Path of the config of a selection."""
    return folder / FOLDER / f"{name}.yaml"


def read_outcome(config: Path) -> dict[str, str]:
    """Task to strategy, as `write_selection` wrote it. Raises DataError where it is damaged."""
    try:
        chosen = yaml.safe_load(config.read_text(encoding="utf-8"))["by_task"]
        return {str(task): str(strategy) for task, strategy in chosen.items()}
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{config} is not the outcome of a measurement ({error}); delete it to measure again"
        ) from error


def _row(strategy: str, one: StrategyEvidence) -> str:
    counts = " | ".join(f"{tally.right}/{tally.asked}" for tally in one.tallies.values())
    status = {"in": "", "out": "given up", "chosen": "**chosen**"}[one.status]
    return f"| {strategy} | {counts} | {one.mean_tokens:.0f} | {one.score:.3f} | {one.p_best:.2f} | {status} |"
