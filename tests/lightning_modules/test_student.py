"""The training step: the same loss however a step is cut, exact resume, and no step with a bad gradient."""

from collections.abc import Callable
from typing import Any

import lightning as L
import pytest
import torch

from lightning_modules.carried import CarriedOptimizer
from orca2.checkpointing.folder import checkpoints_in
from orca2.checkpointing.shards import training_tensors
from orca2.errors import CheckpointError, TrainingError
from orca2.modelling.student_model import cast_parameters

# fp32 sums in another order; the weights are of order 0.02 to 1 and each step moves them by about 1e-3.
TOLERANCE = 2e-5


def test_one_times_four_equals_four_times_one(make_fit: Callable[..., Any]) -> None:
    """Averaging the means of micro-batches instead of tokens changes the loss with the layout (transformers #34191)."""
    four_passes = make_fit(per_micro=1).run()
    one_pass = make_fit(per_micro=4).run()
    assert four_passes.recorder.ids == one_pass.recorder.ids
    assert len(four_passes.recorder.losses) > 5
    assert four_passes.recorder.losses == pytest.approx(one_pass.recorder.losses, rel=1e-5)
    for name, weight in four_passes.weights.items():
        torch.testing.assert_close(weight, one_pass.weights[name], rtol=0, atol=TOLERANCE)


def test_workers_change_nothing(make_fit: Callable[..., Any]) -> None:
    """Prefetching workers must give the same steps, to the bit."""
    alone, helped = make_fit(workers=0).run(), make_fit(workers=2).run()
    assert alone.recorder.ids == helped.recorder.ids
    assert alone.recorder.losses == helped.recorder.losses


def of_dtype(dtype: torch.dtype, fit: Any) -> Any:
    """The fit with weights in `dtype`; bf16 ones have the optimizer that rounds at random."""
    cast_parameters(fit.module.student, dtype)
    return fit


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_resume_is_exact_to_the_bit(weights: torch.dtype, make_fit: Callable[..., Any]) -> None:
    """A resumed run that replays or skips data, or forgets optimizer or rounding, has another loss sequence."""
    whole = of_dtype(weights, make_fit()).run(every=3)
    stopped = of_dtype(weights, make_fit())

    class StopAfter(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
            if trainer.global_step == 5:
                raise KeyError("killed")

    with pytest.raises(KeyError):
        stopped.run(StopAfter(), every=3)
    newest = checkpoints_in(stopped.folder / "checkpoints")[-1]
    assert newest.name == "step-00000003"
    resumed = of_dtype(weights, make_fit()).run(resume=newest.parent)
    assert resumed.recorder.ids == whole.recorder.ids[3:]
    assert resumed.recorder.losses == whole.recorder.losses[3:]
    for name, weight in whole.weights.items():
        assert torch.equal(weight, resumed.weights[name]), name
    assert resumed.data.report.summary() == whole.data.report.summary()


def test_every_row_is_settled(make_fit: Callable[..., Any]) -> None:
    """The schedule follows settled rows: one lost row and it would never reach its end."""
    fit = make_fit().run()
    assert fit.module.progress == 1.0
    ids = [identity for step in fit.recorder.ids for identity in step]
    assert len(ids) == len(set(ids)) == fit.data.total_rows


def test_a_gradient_that_is_not_finite_is_not_stepped(make_fit: Callable[..., Any]) -> None:
    """One NaN in the weights would end the run's use; the error must come before the step."""
    fit = make_fit()

    class Poison(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, module: Any, *_: Any) -> None:
            if trainer.global_step == 2:
                module.student.model.get_input_embeddings().weight.register_hook(lambda grad: grad * float("nan"))
                self.before = {k: v.clone() for k, v in module.student.state_dict().items()}

    poison = Poison()
    with pytest.raises(TrainingError, match=r"step 2: .*not finite"):
        fit.run(poison)
    assert all(torch.equal(value, fit.weights[name]) for name, value in poison.before.items())


def test_a_length_in_tokens_ends_with_the_step_that_reaches_it(make_fit: Callable[..., Any]) -> None:
    """Over the end of an epoch, and resumed from its last checkpoint it must not take one step more."""
    whole = make_fit(rows=40)
    whole.run()
    tokens = whole.data.report.useful_tokens

    def in_tokens() -> Any:
        fit = make_fit(rows=40)
        fit.data.epochs = 2**31
        fit.module.total_tokens = round(1.5 * tokens)
        return fit

    first = in_tokens().run(every=1)
    trained = first.data.report.useful_tokens
    assert first.module.progress == 1 and first.module.tokens_settled == trained
    assert 0 <= trained - 1.5 * tokens < 4 * 256, "it ends with a step of four packs"
    assert len({identity for ids in first.recorder.ids for identity in ids}) == 40

    again = in_tokens().run(resume=first.folder / "checkpoints")
    assert again.recorder.ids == []
    assert again.module.tokens_settled == trained


def test_moments_are_carried_and_the_rate_is_not(make_fit: Callable[..., Any]) -> None:
    """A stage that keeps the optimizer's state must find the moments that the stage before ended with."""
    before = make_fit(rows=40).run()
    wanted = moments(before)
    seen: list[dict[str, torch.Tensor]] = []

    class Look(L.Callback):
        def on_train_start(self, *_: Any) -> None:
            seen.append(moments(after))

    after = make_fit(rows=40)
    after.run(CarriedOptimizer(before.folder / "checkpoints", after.folder / "checkpoints"), Look())
    assert wanted and all(torch.equal(seen[0][name], tensor) for name, tensor in wanted.items())
    lost = make_fit(rows=40)
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        lost.run(CarriedOptimizer(lost.folder / "nowhere", lost.folder / "checkpoints"))


def test_moments_of_another_step_or_a_damaged_file_are_refused(make_fit: Callable[..., Any]) -> None:
    """Wrong moments raise no error that anyone would see: the stage would only learn worse."""
    before = make_fit(rows=40).run()
    steps, (newest,) = len(before.recorder.losses), checkpoints_in(before.folder / "checkpoints")

    def refused(match: str) -> None:
        after = make_fit(rows=40)
        with pytest.raises(CheckpointError, match=match):
            after.run(CarriedOptimizer(newest.parent, after.folder / "checkpoints"))

    (before.folder / "manifest.json").write_text(f'{{"steps": {steps + 1}}}')
    refused(f"newest checkpoint is of step {steps}, and the run ended with step {steps + 1}")
    (before.folder / "manifest.json").unlink()
    shard = newest / "shard-00001.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    refused("SHA-256 is not that of the manifest")


def moments(fit: Any) -> dict[str, torch.Tensor]:
    """Copies of the optimizer's tensors, by name."""
    tensors = training_tensors(fit.module.student, fit.module.trainer.optimizers[0])
    return {name: tensor.clone() for name, tensor in tensors.items() if name.startswith("optimizer.")}
