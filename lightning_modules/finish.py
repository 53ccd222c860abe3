"""The end of a run: export the student, prove the export, ask held-out questions, write the results."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.loggers import Logger
from rich.console import Console
from transformers import PreTrainedTokenizerBase

from lightning_modules.loggers import RunCsvLogger
from orca2.data.report import merge_lists
from orca2.display import loss_curve, score_table
from orca2.erasing import Erasing
from orca2.errors import DataError
from orca2.evaluation.held_out import Answered, HeldOutSpec, TaskScore, answer_questions, flat_metrics, summarise
from orca2.files import atomic_write_json, atomic_write_text
from orca2.generation.hf import HFGenerator
from orca2.modelling.export import export_student, verify_export, verify_names
from orca2.modelling.sharding import full_weights, gathered, is_sharded
from orca2.modelling.student_model import StudentForLoss
from orca2.processes.ranks import everyone, from_first, here, is_first
from orca2.records import Question
from orca2.rendering.renderer import Renderer
from orca2.runs import RunDirectory


def require_kept(counts: Mapping[str, Any], source: str, run: RunDirectory) -> None:
    """Raise DataError where no row was trained on: the student would be the model that it started from.

    `counts`: the data report, all ranks. Every rank calls it.
    """
    if counts["kept"]:
        return
    from_first(lambda: merge_lists(run.rejected))
    raise DataError(
        "source {}: none of {rows:,} rows could be used, so nothing was trained: {broken:,} broken, {too_long:,} too "
        "long, {left_out:,} left out; the rows and why: {}".format(source, run.rejected, **counts)
    )


def export(
    student: StudentForLoss,
    tokenizer: PreTrainedTokenizerBase,
    renderer: Renderer,
    erasing: Erasing,
    run: RunDirectory,
    console: Console,
) -> None:
    """Write `student/` in the Hugging Face format and prove that it holds the student's weights. Raises ModelError.

    Every rank calls it; the first one writes. Sharded weights pass through it tensor by tensor and are compared with
    the files as they pass; whole ones are loaded again.
    """
    prompt = {"renderer": renderer.identity, "erasing": erasing.name, "system": erasing.inference}
    gathering = full_weights(student.model) if is_sharded(student) else None

    def write() -> None:
        try:
            export_student(student.model, tokenizer, run.student, prompt, gathering)
        finally:
            go_to_the_end()
        if gathering is None:
            verify_export(run.student, student.model)
        else:
            verify_names(run.student)

    def go_to_the_end() -> None:
        """The other ranks wait in each gathering, also where the first has failed."""
        for _ in gathering or ():
            pass

    if not is_first():
        go_to_the_end()
    from_first(write)
    console.print(f"exported to {run.student}: read back, every weight equal")


def ask_held_out(
    student: StudentForLoss,
    renderer: Renderer,
    questions: Sequence[Question],
    held_out: HeldOutSpec,
    max_len: int,
) -> dict[str, list[Answered]]:
    """The answers under each system message, by the message's name. Every rank asks its share and gets all."""
    generator = HFGenerator(student.model, renderer.pad_id, [renderer.end_id], max_len)
    ranks = here()
    own = questions[ranks.rank :: ranks.world]
    with gathered(student):
        answers = {
            name: answer_questions(generator, renderer, own, erasing.inference, held_out.max_new_tokens)
            for name, erasing in held_out.messages.items()
        }
    shares = everyone(answers)
    return {
        name: [shares[number % ranks.world][name][number // ranks.world] for number in range(len(questions))]
        for name in answers
    }


def write_results(
    run: RunDirectory,
    answers: Mapping[str, Sequence[Answered]],
    counts: Mapping[str, Any],
    figures: Mapping[str, float],
    loggers: Sequence[Logger],
    own: str | None,
) -> dict[str, float]:
    """`answers.jsonl` and `results.json`; the metrics also go to the loggers.

    `counts`: the data report, all ranks; `figures`: those of validation and of a benchmark, if there were any; `own`:
    the message that the student was trained to be asked under, whose scores also stand under the name `own`.
    """
    scores = {message: summarise(answered) for message, answered in answers.items()}
    if own is not None:
        scores["own"] = scores[own]
    metrics = flat_metrics(scores) | {f"data/{name}": value for name, value in counts.items()} | dict(figures)
    samples = run.path / "answers.jsonl"
    lines = [
        json.dumps({"message": message, **answer.as_json()}, ensure_ascii=False)
        for message, answered in answers.items()
        for answer in answered
    ]
    atomic_write_text(samples, "".join(line + "\n" for line in lines))
    atomic_write_json(run.results, {**metrics, "samples": samples.name})
    for logger in loggers:
        if not isinstance(logger, RunCsvLogger):  # metrics.csv holds the curve; results.json holds these
            logger.log_metrics(metrics)
    return metrics


def show_results(
    run: RunDirectory,
    answers: Mapping[str, Sequence[Answered]],
    counts: Mapping[str, Any],
    figures: Mapping[str, float],
    console: Console,
) -> None:
    """The data report, the table of scores, the loss curve, and where the student lies."""
    console.print(
        "rows {rows:,}: {kept:,} kept, {broken:,} broken, {too_long:,} too long, {left_out:,} left out, {held_out:,} "
        "held out; packs {utilisation:.2%} full; {useful_tokens:,} useful tokens, {label_tokens:,} with loss".format(
            **counts
        )
    )
    if "validation/loss" in figures:
        console.print(_validation_line(figures))
    if run.rejected.exists():
        console.print(f"rejected rows and why: {run.rejected}")
    scores: dict[str, list[TaskScore]] = {message: summarise(answered) for message, answered in answers.items()}
    if any(scores.values()):
        console.print(score_table(scores))
    if run.metrics.exists():  # not where the disk was full
        console.print(loss_curve(run.metrics))
    console.print(f"student   {run.student}\nresults   {run.results}\nmetrics   {run.metrics}")


def _validation_line(figures: Mapping[str, float]) -> str:
    before = f"{figures['validation/loss_before']:.4f} before training, " if "validation/loss_before" in figures else ""
    return (
        f"validation: loss {before}{figures['validation/loss']:.4f} after it, per label token, on "
        f"{figures['validation/rows']:,} rows with {figures['validation/label_tokens']:,} label tokens"
    )
