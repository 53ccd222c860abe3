"""The loss on held-out rows: what it is, when it is measured, and that it disturbs nothing."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F

from orca2.data.mixture import Mixture
from orca2.data.procedural import ProceduralSource
from orca2.data.validation_rows import hold_out
from orca2.modelling.build import build_model
from orca2.modelling.sharding import full_weights
from tests.small_fit import MODEL, Fit


class KillAt(L.Callback):
    """Ends the fit as a crash would, after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise KeyError("killed")


def measured(folder: Path) -> dict[int, float]:
    """Step -> loss, from metrics.csv; each step once."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [(int(row["step"]), row["validation/loss"]) for row in csv.DictReader(file)]
    found = [(step, float(text)) for step, text in rows if text]
    assert len(dict(found)) == len(found)
    return dict(found)


def plain_loss(model: Any, rendered: Any) -> float:
    """Mean loss per label token as the model itself computes it, one row at a time, without packs."""
    total, count = 0.0, 0
    for row in rendered:
        ids = torch.from_numpy(row.ids).long()
        with torch.no_grad():
            logits = model(ids[None]).logits[0, :-1].float()
        labels = torch.where(torch.from_numpy(row.loss_mask)[1:], ids[1:], -100)
        total += float(F.cross_entropy(logits, labels, reduction="sum"))
        count += int((labels != -100).sum())
    return total / count


def test_the_loss_is_the_models_own_on_the_held_out_rows(make_fit: Callable[..., Fit]) -> None:
    """A mean of means, a shifted label or another prompt would be a number that nobody can compare."""
    fit = make_fit(validation_rows=12)
    rows = hold_out(fit.data.source, 12, fit.data.seed, fit.data.strategy, fit.data.render).rendered
    assert len(rows) == 12 and len({row.info.label_tokens for row in rows}) > 3
    plain = build_model(MODEL, fit.tokenizer, seed=7)
    before = plain_loss(plain, rows)
    fit.run()
    plain.load_state_dict(dict(full_weights(fit.module.student.model)))
    after = plain_loss(plain, rows)
    figures = fit.validation.figures
    assert figures["validation/loss_before"] == pytest.approx(before, rel=1e-5)
    assert figures["validation/loss"] == pytest.approx(after, rel=1e-5)
    assert after < before - 0.1
    assert figures["validation/rows"] == 12
    assert figures["validation/label_tokens"] == sum(row.info.label_tokens for row in rows)
    assert any("validation: loss" in line for line in fit.told)


def test_measuring_changes_nothing_in_the_training(make_fit: Callable[..., Fit]) -> None:
    """A measurement that left the student in another mode, or drew a random number, would make it another run."""
    often, seldom = make_fit(validation_rows=12).run(validate_every=1), make_fit(validation_rows=12).run()
    assert often.recorder.losses == seldom.recorder.losses
    assert often.module.student.training
    assert all(torch.equal(often.weights[name], weight) for name, weight in seldom.weights.items())


@pytest.mark.parametrize("every", [3, 1000])
def test_each_step_is_measured_once_also_after_a_crash(make_fit: Callable[..., Fit], every: int) -> None:
    """A killed run measures again what its checkpoint does not know: the curve must have it once, and the start too."""
    fit = make_fit(rows=90, validation_rows=10)
    with pytest.raises(KeyError):
        fit.run(KillAt(5), every=every, validate_every=2)
    again = Fit(fit.folder, rows=90, validation_rows=10).run(every=every, validate_every=2)
    last = again.module.trainer.global_step
    whole = make_fit(rows=90, validation_rows=10).run(validate_every=2)
    assert last > 6
    assert list(measured(fit.folder)) == sorted({*range(0, last + 1, 2), last})
    assert measured(fit.folder) == measured(whole.folder)
    assert again.validation.figures == whole.validation.figures


def test_without_held_out_rows_nothing_is_measured(make_fit: Callable[..., Fit]) -> None:
    """The default must train on every row and say nothing of a validation."""
    fit = make_fit(rows=40).run(validate_every=1)
    assert fit.validation.figures == {} and "validation" not in (fit.folder / "metrics.csv").read_text()
    assert fit.data.report.kept == 40


def test_a_mixture_is_measured_for_each_of_its_sources(make_fit: Callable[..., Fit]) -> None:
    """One mean over a large and a small source hides that the small one is not learnt."""
    members = {
        name: ProceduralSource(name=name, size=60, seed=seed, split="train", level=1, families={family: 1.0})
        for name, seed, family in (("sums", 1, "addition"), ("lists", 2, "sorting"))
    }
    fit = make_fit(source=Mixture(name="both", members=members, when_exhausted="continue"), validation_rows=6).run()
    figures, rows = fit.validation.figures, fit.data.validation.rendered
    assert figures["validation/rows"] == 12
    labels = {name: sum(row.info.label_tokens for row in rows if row.info.source == name) for name in members}
    whole = sum(figures[f"validation/loss/source/{name}"] * count for name, count in labels.items())
    assert figures["validation/loss"] == pytest.approx(whole / sum(labels.values()), rel=1e-9)
