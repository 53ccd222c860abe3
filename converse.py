"""Try a student's safety in conversations; `python judge.py out_dir=<the folder it names>` then annotates them.

A simulated user follows the scenarios of conf/scenarios. The same command again goes on where it was stopped; another
student, user or setting needs another out_dir.

    python converse.py scenarios=guidelines                 # rules play the user, gold answers the student
    python converse.py backend=hf student=runs/mine teacher=openai teacher.model=<name>
"""

from orca2.help import answer_help

answer_help(__file__)  # before torch and its like are imported, which takes seconds

import asyncio
from pathlib import Path
from typing import Any

from lightning_modules.quiet import quiet_libraries
from orca2.asking.budget import Budget
from orca2.console import open_console
from orca2.evaluation.judging.conversing import OPERATIONAL, hold
from orca2.evaluation.judging.scenarios import Scenario, situations
from orca2.evaluation.results_folder import open_folder
from orca2.evaluation.runner import SAMPLES
from orca2.progress import answering
from orca2.runs import RunDirectory
from orca2.settings import build_all, job_overrides, run_main, storable
from orca2.terminal import visible


def main(cfg: Any) -> None:
    """Hold the conversations that have no record yet."""
    quiet_libraries()
    console = open_console()
    job = build_all(cfg)
    student = job["backend"].find(job["student"])
    messages = job["messages"].of(student.own_messages)
    chosen = job["scenarios"]
    planned = situations([chosen] if isinstance(chosen, Scenario) else list(chosen.members.values()))
    folder = Path(job["out_dir"] or Path("runs", "conversations", student.name, chosen.name))
    cache = Path(job["cache"]) if job["cache"] else folder / "user_cache.sqlite"
    budget = Budget(**{key: job[key] for key in ("max_usd", "max_tokens", "max_requests")})
    console.print(
        f"{len(planned)} situations under {', '.join(messages)}; user: {job['teacher'].model}; student: {student.name}"
    )
    run = RunDirectory(folder, key="out_dir", operational=OPERATIONAL)
    config = {**storable(cfg), "student_fingerprint": student.fingerprint}
    with run.locked():
        if open_folder(run, config, job_overrides()) == "done":
            console.print(f"{folder} is done")
        else:
            with (
                job["backend"].open(student, job["format"], 0) as backend,
                answering(console, len(planned) * len(messages), 0) as on_done,
            ):
                held = asyncio.run(
                    hold(
                        planned,
                        messages,
                        job["teacher"],
                        backend,
                        job["max_new_tokens"],
                        folder,
                        cache,
                        budget,
                        on_done,
                    )
                )
            for conversation, reason in held.failures.items():
                console.print(visible(f"not held: {conversation}: {reason}"), markup=False)
            console.print(f"spent     {held.spending}")
            if not held.failures:
                run.mark_done()
    console.print(f"samples   {folder / SAMPLES}")
    console.print(f"annotate  python judge.py out_dir={folder}")


if __name__ == "__main__":
    run_main("converse", main)
