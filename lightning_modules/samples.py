"""Answers to a few fixed held-out questions, written while the student trains."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import WandbLogger
from typing_extensions import override

from lightning_modules.student import StudentModule
from orca2.evaluation.held_out import Answered, answer_questions
from orca2.files import append_whole, atomic_write_text, unwritten_is_a_warning
from orca2.generation.hf import HFGenerator
from orca2.modelling.sharding import is_sharded, root_gathered
from orca2.records import Question
from orca2.rendering.renderer import Renderer


class SampleAnswers(L.Callback):
    """Every `every_steps` steps: greedy answers to `questions`, to `samples.jsonl` and to W&B as a table."""

    def __init__(
        self,
        questions: Sequence[Question],
        renderer: Renderer,
        system: str,
        max_len: int,
        every_steps: int,
        max_new_tokens: int,
        path: Path,
    ) -> None:
        self.questions = questions
        self.renderer = renderer
        self.system = system
        self.max_len = max_len
        self.every_steps = every_steps
        self.max_new_tokens = max_new_tokens
        self.path = path

    @override
    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        assert isinstance(module, StudentModule)
        if not self.questions or module.report is None or trainer.global_step % self.every_steps:
            return
        # Sharded layers are gathered for every token, so the ranks must all generate the same.
        together = is_sharded(module.student)
        generator = HFGenerator(
            module.student.model, self.renderer.pad_id, [self.renderer.end_id], self.max_len, together=together
        )
        if trainer.is_global_zero or together:
            with root_gathered(module.student):
                answers = answer_questions(generator, self.renderer, self.questions, self.system, self.max_new_tokens)
            if trainer.is_global_zero:
                self._write(trainer, answers)

    def keep_until(self, step: int) -> None:
        """Drop the answers of steps after `step`, which will be asked again, and a line that a crash cut off."""
        if not self.path.exists():
            return
        with self.path.open(encoding="utf-8") as file:
            kept = [line for line in file if line.endswith("\n") and json.loads(line)["step"] <= step]
        with unwritten_is_a_warning(self.path):
            atomic_write_text(self.path, "".join(kept))

    def _write(self, trainer: L.Trainer, answers: Sequence[Answered]) -> None:
        lines = [json.dumps({"step": trainer.global_step, **a.as_json()}, ensure_ascii=False) + "\n" for a in answers]
        with unwritten_is_a_warning(self.path):
            append_whole(self.path, "".join(lines))
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_text(
                    "samples",
                    columns=["step", "task", "question", "answer", "gold", "correct"],
                    data=[[trainer.global_step, a.task, a.user, a.text, a.gold, a.correct] for a in answers],  # type: ignore[list-item]
                )
