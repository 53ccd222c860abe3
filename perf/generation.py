"""Generation throughput of orca2's `hf` backend and of lm-eval's, on the same student and the same prompts.

    python perf/generation.py --student runs/gsm8k_9m --train train.jsonl --gsm8k test.jsonl --json out.json
                                                                                        (extra: lm-eval)

`--student` is a run directory; where it is absent, `--train` makes it with `train.py model=llama_9m source=gsm8k`.
Both answer the first `--prompts` questions of GSM8K greedily in fp32, with at most `--max-new-tokens` tokens. Each
first tries its batch sizes on all prompts, and then runs `--rounds` times at its best one, in turn. The time
covers everything from chats to texts: rendering, tokenizing, the model, decoding. The texts must be identical.
"""

import argparse
import contextlib
import io
import json
import logging
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
OURS, THEIRS = "ours", "lm_eval"
BATCHES = {OURS: (8_192, 16_384, 32_768, 65_536, 131_072), THEIRS: (4, 8, 16, 32, 64)}
"""Tried: tokens of the cache for ours, prompts of a batch for lm-eval, whose best was 16 on 2 cores."""

Answerer = Callable[[int], tuple[float, list[str], list[int]]]
"""Batch size -> seconds, texts, and token counts of the answers (ours only)."""


def train(rows: Path, student: Path, epochs: int) -> None:
    """The student of the comparison, by the project's own command."""
    overrides = ["model=llama_9m", "source=gsm8k", f"source.path={rows}", f"epochs={epochs}", f"run_dir={student}"]
    subprocess.run([sys.executable, str(ROOT / "train.py"), *overrides], check=True, cwd=ROOT)


def chats(questions: Path, count: int, system: str, max_new_tokens: int) -> list[Any]:
    """The first `count` questions as the benchmark asks them."""
    from orca2.evaluation.benchmark import Sample
    from orca2.generation import Chat
    from orca2.settings import build, compose_config

    benchmark = build(compose_config("evaluate", ["benchmark=gsm8k"]).benchmark)
    samples = [row for row in benchmark.samples(questions.resolve().parent.parent) if isinstance(row, Sample)][:count]
    return [Chat(system=system, user=sample.turns[0], max_new_tokens=max_new_tokens) for sample in samples]


def load(student: Path) -> tuple[Any, Any, Any, int, str]:
    """Model in fp32, tokenizer, renderer, context and the message that the student was trained under."""
    from transformers import AutoTokenizer

    from orca2.generation.hf_backend import load_model
    from orca2.generation.students import find_student
    from orca2.generation.tokens import context_of, load_renderer
    from orca2.settings import build, compose_config

    files = find_student(str(student))
    renderer = load_renderer(files, build(compose_config("evaluate").format))
    model = load_model(files, torch.float32, torch.device("cpu"))
    (system,) = files.own_messages.values()
    return model, AutoTokenizer.from_pretrained(files.location), renderer, context_of(files, None), system


def ours(model: Any, renderer: Any, context: int, asked: Sequence[Any]) -> Answerer:
    """This project's backend, as `evaluate.py backend=hf` uses it."""
    from orca2.generation.hf import HFGenerator
    from orca2.generation.tokens import TokenBackend

    def answer(batch_tokens: int) -> tuple[float, list[str], list[int]]:
        generator = HFGenerator(model, renderer.pad_id, [renderer.end_id], context, batch_tokens)
        assert generator.batches
        backend = TokenBackend(renderer, generator.stream, context, {})
        began = time.perf_counter()
        replies = dict(backend.answer(asked))
        seconds = time.perf_counter() - began
        return (
            seconds,
            [replies[i].text for i in range(len(asked))],
            [replies[i].answer_tokens for i in range(len(asked))],
        )

    return answer


def theirs(model: Any, tokenizer: Any, renderer: Any, context: int, asked: Sequence[Any]) -> Answerer:
    """lm-eval's `hf` model, asked through its own interface with the student's chat template."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    for chat in asked[:20]:
        text = tokenizer.apply_chat_template(_messages(chat), tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert ids == renderer.prompt(chat.system, chat.user), "the two would be asked different prompts"

    def answer(batch_size: int) -> tuple[float, list[str], list[int]]:
        with contextlib.redirect_stderr(io.StringIO()):
            lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, max_length=context)
        began = time.perf_counter()
        requests = [
            Instance(
                request_type="generate_until",
                doc={},
                arguments=(
                    lm.apply_chat_template(_messages(chat)),
                    {"until": [tokenizer.eos_token], "do_sample": False, "max_gen_toks": chat.max_new_tokens},
                ),
                idx=index,
            )
            for index, chat in enumerate(asked)
        ]
        texts = lm.generate_until(requests, disable_tqdm=True)
        return time.perf_counter() - began, texts, []

    return answer


def _messages(chat: Any) -> list[dict[str, str]]:
    """The chat with its system message even if that is empty: so the student was trained."""
    return [{"role": "system", "content": chat.system}, {"role": "user", "content": chat.user}]


def compare(answerers: dict[str, Answerer], rounds: int, count: int) -> dict[str, Any]:
    """Best batch sizes, then timed rounds in turn; texts of the last round are compared."""

    def timed(name: str, batch: int) -> tuple[float, list[str], list[int]]:
        seconds, texts, counts = answerers[name](batch)
        print(f"{name:8} batch {batch:>6}   {count / seconds:8.2f} samples/s", flush=True)
        return count / seconds, texts, counts

    tried = {name: {batch: timed(name, batch)[0] for batch in BATCHES[name]} for name in answerers}
    best = {name: max(rates, key=rates.__getitem__) for name, rates in tried.items()}
    rates: dict[str, list[float]] = {name: [] for name in answerers}
    texts: dict[str, list[str]] = {}
    tokens: list[int] = []
    for _ in range(rounds):
        for name in answerers:
            rate, texts[name], counts = timed(name, best[name])
            rates[name].append(rate)
            tokens = counts or tokens
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "samples_per_s": rates,
        "median_samples_per_s": medians,
        "batch": best,
        "tried_samples_per_s": tried,
        "ratio": medians[OURS] / medians[THEIRS],
        "identical_texts": sum(one == other for one, other in zip(texts[OURS], texts[THEIRS], strict=True)),
        "different": [
            {"prompt": i, OURS: one, THEIRS: other}
            for i, (one, other) in enumerate(zip(texts[OURS], texts[THEIRS], strict=True))
            if one != other
        ],
        "prompts": count,
        "answer_tokens": {"mean": statistics.mean(tokens), "quantiles": statistics.quantiles(tokens, n=4)},
        "threads": torch.get_num_threads(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--train", type=Path, help="GSM8K's train.jsonl, to make the student where it is absent")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--gsm8k", type=Path, required=True, help="…/gsm8k/test.jsonl")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.train and not (arguments.student / "student").is_dir():
        train(arguments.train, arguments.student, arguments.epochs)
    logging.disable(logging.WARNING)
    torch.set_num_threads(arguments.threads)
    model, tokenizer, renderer, context, system = load(arguments.student)
    asked = chats(arguments.gsm8k, arguments.prompts, system, arguments.max_new_tokens)
    answerers = {
        OURS: ours(model, renderer, context, asked),
        THEIRS: theirs(model, tokenizer, renderer, context, asked),
    }
    result = compare(answerers, arguments.rounds, len(asked))
    for name, rates in result["samples_per_s"].items():
        each = " ".join(f"{rate:.2f}" for rate in rates)
        median = result["median_samples_per_s"][name]
        print(f"{name:8} batch {result['batch'][name]:>6}   {median:8.2f} samples/s   ({each})")
    print(f"ratio {result['ratio']:.2f}   identical texts {result['identical_texts']} of {result['prompts']}")
    print(
        f"answer tokens: mean {result['answer_tokens']['mean']:.0f}, quartiles {result['answer_tokens']['quantiles']}"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if result["identical_texts"] == result["prompts"] else 1


if __name__ == "__main__":
    sys.exit(main())
