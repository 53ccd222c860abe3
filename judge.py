"""Judge saved answers.

Grades chats, finds unsupported statements and annotates conversations, as the benchmark of each sample asks for. The
same command again pays for nothing twice. The report of the folder is written anew.

    python judge.py out_dir=runs/mine/evaluations/chat teacher=openai teacher.model=<name> max_usd=5
    python judge.py out_dir=<folder of one student> against=<folder of another> teacher=openai teacher.model=<name>
"""

from orca2.help import answer_help

answer_help(__file__)  # before torch and its like are imported, which takes seconds

from collections import Counter
from pathlib import Path
from typing import Any

from orca2.asking.budget import Budget
from orca2.console import open_console
from orca2.errors import ConfigError
from orca2.evaluation.judging.judge_pass import judge, questions
from orca2.evaluation.report.load import load_run, run_name
from orca2.evaluation.report.write import MARKDOWN, add_judged, write_report
from orca2.evaluation.verdicts import VERDICTS, read_verdicts, renewed, write_verdicts
from orca2.progress import answering
from orca2.settings import build_all, run_main


def main(cfg: Any) -> None:
    """Ask the judge what it was not asked yet, and say what it said."""
    console = open_console()
    job = build_all(cfg)
    if job["out_dir"] is None:
        raise ConfigError("out_dir = null: give out_dir=<folder of an evaluation>")
    folder, teacher = Path(job["out_dir"]), job["teacher"]
    budget = Budget(**{key: job[key] for key in ("max_usd", "max_tokens", "max_requests")})
    other = None if job["against"] is None else Path(job["against"])
    against = None if other is None else load_run("against", other).records
    asked = questions(load_run("judged", folder).records, job["judge_runs"], against, str(other or ""))
    console.print(f"judge: {teacher.model}; {len(asked):,} questions")
    cache = Path(job["cache"]) if job["cache"] else folder / "judge_cache.sqlite"
    with answering(console, len(asked), 0) as on_done:
        done = judge(asked, teacher, cache, budget, on_done)
    write_verdicts(folder, renewed(read_verdicts(folder), done.verdicts))
    summary = write_report([load_run(run_name(folder), folder)], folder)
    add_judged(folder, summary.judged)
    for one in summary.judged:
        if not one.part:
            console.print(
                f"{one.benchmark}, {one.message}, {one.rubric} by {one.who}: {one.value.value:.3f} "
                f"[{one.value.low:.3f}, {one.value.high:.3f}], n {one.n:,}, no verdict {one.missing:,}, "
                f"spread of the judge {one.spread:.3f}"
            )
    missing = Counter(verdict.problem for verdict in done.verdicts if verdict.problem)
    if missing:
        console.print(f"without a verdict: {', '.join(f'{kind} {count:,}' for kind, count in missing.items())}")
    console.print(f"spent     {done.spending}")
    console.print(f"verdicts  {folder / VERDICTS}\nreport    {folder / MARKDOWN}")
    if done.stop:
        raise ConfigError(f"stopped at a cap: {done.stop}; raise it and give the same command again")


if __name__ == "__main__":
    run_main("judge", main)
