"""SmolLM2-135M-Instruct, whose weights are real: its loss is transformers' own, and training on GSM8K lowers it."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from orca2.modelling.build import build_model, build_tokenizer
from orca2.modelling.spec import ModelSpec
from orca2.modelling.student_model import StudentForLoss
from orca2.records import Tokens
from orca2.rendering.renderer import Renderer
from orca2.settings import build, compose_config
from tests.commands import ROOT
from tests.real.runs import run_job

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]

GSM8K = Path(os.environ.get("ORCA2_SHARED_DATA", ROOT.parent / "shared" / "data")) / "benchmarks/gsm8k/train.jsonl"
HELD_OUT = 12
TRAINED = 24
SYSTEM = build(compose_config("train").erasing).inference


def sums(count: int) -> list[dict[str, str]]:
    """Rows in GSM8K's form, for a machine without the official file."""
    rows = []
    for i in range(count):
        price, pens, given = 3 + i % 7, 12 + i, 2 + i % 5
        left, worth = pens - given, (pens - given) * price
        question = f"Tom has {pens} pens and gives away {given}. A pen costs {price} dollars. What is the rest worth?"
        answer = (
            f"Tom has {pens} - {given} = <<{pens}-{given}={left}>>{left} pens left.\n"
            f"They are worth {left} * {price} = <<{left}*{price}={worth}>>{worth} dollars.\n#### {worth}"
        )
        rows.append({"question": question, "answer": answer})
    return rows


def mathematics() -> list[dict[str, str]]:
    count = HELD_OUT + TRAINED
    if not GSM8K.exists():
        return sums(count)
    with GSM8K.open(encoding="utf-8") as file:
        return [json.loads(line) for line, _ in zip(file, range(count), strict=False)]


def mean_loss(folder: Path, examples: Sequence[Tokens]) -> float:
    """Nats per label token, by transformers alone: logits of each whole sequence, no code of this project."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    total, labels = 0.0, 0
    with torch.no_grad():
        for ids, mask in examples:
            wanted = torch.tensor([id if bears else -100 for id, bears in zip(ids, mask, strict=True)])
            logits_TV = model(torch.tensor([ids])).logits[0, :-1]
            total += float(F.cross_entropy(logits_TV, wanted[1:], reduction="sum"))
            labels += sum(mask)
    return total / labels


def norm_of_gradients(model: nn.Module) -> float:
    squares = [p.grad.double().square().sum() for p in model.parameters() if p.grad is not None]
    return float(torch.stack(squares).sum()) ** 0.5


def test_loss_and_gradient_are_those_of_transformers(real_model: Callable[[str], Path]) -> None:
    """Fails if packing, attention, the chunked head or the grown vocabulary change what a real model is trained on."""
    spec = ModelSpec(name="smollm2", max_len=512, weights=str(real_model("smollm2")))
    chat = build(compose_config("train").format)
    tokenizer = build_tokenizer(spec, chat)
    renderer = Renderer(tokenizer, chat)
    examples = [renderer.example(SYSTEM, row["question"], row["answer"]) for row in mathematics()[:3]]
    labels = sum(sum(tokens.loss_mask) for tokens in examples)

    plain = build_model(spec, tokenizer, seed=0)
    expected = torch.zeros(())
    for ids, mask in examples:  # each alone, as anybody would
        wanted = torch.tensor([id if bears else -100 for id, bears in zip(ids, mask, strict=True)])
        logits_TV = plain(torch.tensor([ids])).logits[0, :-1]
        expected = expected + F.cross_entropy(logits_TV, wanted[1:], reduction="sum")
    (expected / labels).backward()

    student = StudentForLoss(build_model(spec, tokenizer, seed=0), "sdpa")  # all in one row
    ids_T = torch.tensor([id for ids, _ in examples for id in ids])
    mask_T = torch.tensor([bears for _, mask in examples for bears in mask])
    lengths = [len(ids) for ids, _ in examples]
    positions_T = torch.cat([torch.arange(length) for length in lengths])
    places_N = mask_T.nonzero()[:, 0] - 1
    losses_N = student(ids_T[None], positions_T[None], lengths, places_N, ids_T[places_N + 1])
    (losses_N.sum() / labels).backward()

    assert len(losses_N) == labels > 100
    assert float(losses_N.detach().sum()) == pytest.approx(float(expected.detach()), rel=1e-4)
    assert norm_of_gradients(student) == pytest.approx(norm_of_gradients(plain), rel=1e-4)


def test_training_lowers_the_loss_on_questions_it_has_not_seen(
    real_model: Callable[[str], Path], tmp_path: Path
) -> None:
    """Fails if the whole way from GSM8K's file to an exported student does not teach a real model."""
    rows = mathematics()
    held_out, trained = rows[:HELD_OUT], rows[HELD_OUT:]
    assert len(trained) == TRAINED
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in trained), encoding="utf-8")
    results = run_job(
        [
            *("model=hub", f"model.weights={real_model('smollm2')}", "model.max_len=512", "trainer=cpu"),
            *("source=gsm8k", f"source.path={file}", f"source.cache_dir={tmp_path / 'cache'}", "held_out.samples=0"),
            *("packs_per_step=2", "packs_per_micro_batch=1", f"run_dir={tmp_path / 'run'}"),
        ]
    )
    assert results["data/kept"] == TRAINED
    student = tmp_path / "run" / "student"
    renderer = Renderer(AutoTokenizer.from_pretrained(student), build(compose_config("train").format))
    # The ids of the student's tokenizer are the base's on all texts, so both are measured on the same ones.
    examples = [renderer.example(SYSTEM, row["question"], row["answer"]) for row in held_out]
    before, after = mean_loss(real_model("smollm2"), examples), mean_loss(student, examples)
    print(f"held-out loss {before:.4f} -> {after:.4f}")
    assert after < before - 0.05
