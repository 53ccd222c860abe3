"""A Hugging Face model in this process, greedy, through the model's own chat template.

The one place outside `orca2.rendering` that reads a chat template: a teacher speaks its own format,
not the student's.

    template with a placeholder for each content   <|user|>\\nPLACEHOLDER 1<|end|>\\n<|assistant|>\\n
                                                   |--markup-|--content--|--------markup--------|
    markup is tokenized with its control tokens, content without: `<|end|>` in a task's text ends nothing
"""

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orca2.asking.budget import FREE, Price
from orca2.asking.cache import Cache
from orca2.asking.models.gathering import Gathering, in_thread
from orca2.asking.requests import Answer, Decoding, Request
from orca2.errors import ConfigError, ModelError
from orca2.serving.limits import Limits
from orca2.serving.outcomes import Failure, Reply, Usage

LINGER = 0.05
"""Seconds without a new request after which a batch that is not full is answered."""
PROBE_BYTES = 2**20
"""Bytes from either end of each weight file that enter the fingerprint: enough to tell two trainings apart."""


@dataclass(frozen=True, kw_only=True)
class LocalTeacher:
    """A causal language model from a folder, greedy: best-of-n needs a teacher that samples.

    Raises:
        ConfigError: the folder does not hold a model. `open` raises ModelError where model, tokenizer or
        template do not work.
    """

    name: str
    path: str
    device: str
    dtype: str
    max_tokens: int
    batch_size: int
    model: str = field(init=False)
    """Folder's name and a fingerprint of its files and the dtype, so that other answers have other keys."""
    price: Price = field(default=FREE, init=False)
    cached: bool = field(default=True, init=False)
    decoding: Decoding = field(init=False)
    limits: Limits = field(init=False)

    def __post_init__(self) -> None:
        if not (Path(self.path) / "config.json").is_file():
            raise ConfigError(
                f"teacher={self.name}: {self.path!r} holds no config.json; give the folder of a Hugging Face model"
            )
        object.__setattr__(self, "model", fingerprint(Path(self.path), self.dtype))
        object.__setattr__(self, "decoding", Decoding(max_tokens=self.max_tokens, temperature=0.0))
        # Twice a batch, so that the next one is full when the last one ends.
        object.__setattr__(self, "limits", Limits(concurrency=2 * self.batch_size))

    @asynccontextmanager
    async def open(self, cache: Cache, runs: Sequence[str]) -> AsyncIterator[Answer]:
        student = _Loaded(self.path, self.device, self.dtype, self.model)
        gathering = Gathering(in_thread(student.answer_all), self.batch_size, LINGER)
        try:
            yield gathering.answer
        finally:
            await gathering.close()


class _Loaded:
    """The model in memory."""

    def __init__(self, path: str, device: str, dtype: str, model: str) -> None:
        # Imported here: they take seconds, and no other teacher needs them.
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from orca2.generation.hf import HFGenerator, end_ids_of

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True)
            network = AutoModelForCausalLM.from_pretrained(
                path, dtype=getattr(torch, dtype), use_safetensors=True, local_files_only=True
            )
            network.to(device)  # type: ignore[arg-type]  # transformers wraps `to` without its types
        except (OSError, ValueError, AttributeError, RuntimeError) as error:
            raise ModelError(f"the teacher in {path} cannot be loaded: {error}") from error
        if not self._tokenizer.chat_template:
            raise ModelError(f"the teacher in {path} has no chat template; take an instruction-tuned model")
        end_ids = end_ids_of(network) | ({self._tokenizer.eos_token_id} - {None})
        pad = self._tokenizer.pad_token_id
        self._longest = int(network.config.max_position_embeddings)
        self._generator = HFGenerator(
            network, pad_id=min(end_ids) if pad is None else pad, end_ids=end_ids, max_len=self._longest
        )
        self._model = model

    def answer_all(self, requests: Sequence[Request]) -> list[Reply | Failure]:
        """Blocking: one batch."""
        prompts = [prompt_ids(self._tokenizer, request.messages) for request in requests]
        answers: list[Reply | Failure] = [
            Failure(kind="too_long", reason=f"{len(prompt)} tokens of {self._longest}") for prompt in prompts
        ]
        fitting = [i for i, prompt in enumerate(prompts) if len(prompt) < self._longest]
        most = max(request.decoding.max_tokens for request in requests)
        for i, found in zip(fitting, self._generator.generate([prompts[i] for i in fitting], most), strict=True):
            if requests[i].sample:
                reason = "the local teacher is greedy, so all its samples are equal; ask for one"
                answers[i] = Failure(kind="invalid", reason=reason)
                continue
            # Greedy: a shorter limit gives a prefix of the longer answer.
            ids = found.ids[: requests[i].decoding.max_tokens]
            answers[i] = Reply(
                text=self._tokenizer.decode(ids, skip_special_tokens=True),
                finish_reason=found.finish_reason if len(ids) == len(found.ids) else "length",
                usage=Usage(prompt_tokens=len(prompts[i]), completion_tokens=len(ids)),
                model=self._model,
            )
        return answers


def prompt_ids(tokenizer: Any, messages: Sequence[dict[str, str]]) -> list[int]:
    """The chat as token ids, up to the answer. Raises ModelError where the template does not take it."""
    places = [f"<<content {i}>>" for i in range(len(messages))]
    chat = [{"role": message["role"], "content": place} for message, place in zip(messages, places, strict=True)]
    try:
        rest: str = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # templates are programs of others and raise what they like
        raise ModelError(f"the teacher's chat template refuses {[m['role'] for m in messages]}: {error}") from error
    ids: list[int] = []
    for message, place in zip(messages, places, strict=True):
        markup, found, rest = rest.partition(place)
        if not found:
            raise ModelError(
                f"the teacher's chat template drops or changes the {message['role']} message; take a teacher "
                f"whose template keeps it"
            )
        ids += tokenizer(markup, add_special_tokens=False)["input_ids"]
        ids += tokenizer(message["content"], add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return ids + list(tokenizer(rest, add_special_tokens=False)["input_ids"])


def fingerprint(folder: Path, settings: str) -> str:
    """`<folder's name>@<12 digits>`: of the settings, and the names, sizes and ends of the files, that decide the
    answers.
    """
    digest = hashlib.sha256(settings.encode())
    for path in sorted(folder.iterdir()):
        if path.suffix not in (".json", ".safetensors", ".jinja", ".model"):
            continue
        size = path.stat().st_size
        digest.update(f"{path.name}/{size}/".encode())
        with path.open("rb") as file:
            digest.update(file.read(PROBE_BYTES))
            file.seek(max(0, size - PROBE_BYTES))
            digest.update(file.read())
    return f"{folder.resolve().name}@{digest.hexdigest()[:12]}"
