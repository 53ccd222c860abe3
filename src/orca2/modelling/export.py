"""The trained student as others load it: a folder in the Hugging Face format, proven by reading it back.

<folder>/  config.json  model.safetensors  generation_config.json     (several files and an index where it was sharded)
           tokenizer.json  tokenizer_config.json  chat_template.jinja
           prompt.json      renderer identity and the erased system message
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from orca2.errors import ModelError
from orca2.modelling.attention import NAME, standard_attention
from orca2.modelling.build import READ_ERRORS, embedding_rows
from orca2.modelling.sharding import weight_shapes
from orca2.modelling.weight_files import INDEX, stored_tensors
from orca2.rendering import ChatFormat, Renderer

PROMPT_FILE = "prompt.json"
FILE_BYTES = 5_000_000_000
"""Weights in one file of a sharded student, which a rank holds in host memory; huggingface_hub's default."""


def export_student(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    prompt_info: Mapping[str, Any],
    gathering: Iterable[tuple[str, Tensor]] | None = None,
) -> None:
    """Write model, tokenizer and prompt to `folder`, whole or not at all; an earlier export is replaced.

    `prompt_info` goes to `prompt.json`. `gathering`: the whole weights of a sharded model, one after the other, which
    are compared with what was stored while they pass, since the model in memory never has them all.
    Raises `ModelError` where `folder` holds something else than an earlier export, or cannot be written.
    """
    with _replacing(folder) as fresh:
        with standard_attention(model):
            if gathering is None:
                model.save_pretrained(fresh)
            else:
                _describe(model, fresh)
        if gathering is not None:
            _write_weights(model, gathering, fresh)
        try:
            tokenizer.save_pretrained(fresh)
        except Exception as error:  # of the tokenizers library: plain exceptions, also for a full disk
            raise ModelError(f"cannot write the student to {folder}: {error}") from error
        text = json.dumps(dict(prompt_info), indent=2, ensure_ascii=False, sort_keys=True)
        (fresh / PROMPT_FILE).write_text(text + "\n", encoding="utf-8")
        if NAME in (fresh / "config.json").read_text(encoding="utf-8"):
            raise ModelError(f"{folder}: config.json names the attention {NAME!r}, which no other program has")


def verify_export(folder: Path, model: PreTrainedModel) -> None:
    """Load `folder` as any program would and compare every weight with `model`, bit for bit.

    Raises `ModelError` where it cannot be loaded, its tokenizer has more entries than it has rows, or it differs.
    """
    again = _loaded(folder, model.dtype)
    loaded, buffers = dict(again.named_parameters()), dict(again.named_buffers())
    for name, weight in model.named_parameters():
        stored = loaded.pop(name, None)
        if stored is None:
            raise ModelError(f"{folder}: {name} is missing")
        if not torch.equal(stored, weight.detach().to("cpu", stored.dtype)):
            raise ModelError(f"{folder}: {name} differs from the model in memory")
    for name, buffer in model.named_buffers():
        if name in buffers and buffers[name].dtype != buffer.dtype:
            raise ModelError(f"{folder}: {name} is {buffer.dtype} in memory and {buffers[name].dtype} when loaded")
    if loaded:
        raise ModelError(f"{folder}: {len(loaded)} tensors are not those of the model in memory, such as {min(loaded)}")


def require_lasting(tokenizer: PreTrainedTokenizerBase, format: ChatFormat) -> None:
    """Save the tokenizer, read it back and compare what it would train on, before hours are spent on it.

    transformers builds some families' tokenizers from a few stored settings and not from their tokenizer.json, so that
    one which was read from unusual files comes back as another: every prompt of the exported student would differ.
    Raises `ModelError`.
    """
    with tempfile.TemporaryDirectory(prefix="orca2-tokenizer-") as folder:
        tokenizer.save_pretrained(folder)
        again: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    before, after = (Renderer(each, format).identity for each in (tokenizer, again))
    if changed := [f"{key}: {before[key]!r}, then {after[key]!r}" for key in before if before[key] != after[key]]:
        raise ModelError(
            f"the tokenizer {tokenizer.name_or_path} is another one when it is saved and read back "
            f"({'; '.join(changed)}); save it with the installed transformers and check its ids, or take the "
            "tokenizer of another release"
        )


def verify_names(folder: Path) -> None:
    """Compare the tensors stored in `folder` with those that the model class of its config expects; no weight is read.

    This is all that is left to prove if the weights were compared as they were written. Raises `ModelError`.
    """
    try:
        with torch.device("meta"):
            expected = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder, trust_remote_code=False))
        entries = len(AutoTokenizer.from_pretrained(folder, trust_remote_code=False))
    except READ_ERRORS as error:
        raise ModelError(f"the exported student {folder} cannot be loaded again: {error}") from error
    shapes = {name: tuple(weight.shape) for name, weight in expected.named_parameters()}
    stored = {name: tensor.shape for name, tensor in stored_tensors(str(folder)).items()}
    for name in sorted(shapes.keys() | (stored.keys() - dict(expected.named_buffers()).keys())):
        if shapes.get(name) != stored.get(name):
            raise ModelError(f"{folder}: {name} is {stored.get(name)} in the files, {shapes.get(name)} in the config")
    _require_rows(folder, entries, expected)


def _describe(model: PreTrainedModel, folder: Path) -> None:
    """What `save_pretrained` writes beside the weights."""
    model.config.dtype = str(model.dtype).removeprefix("torch.")
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)


def _write_weights(model: PreTrainedModel, gathering: Iterable[tuple[str, Tensor]], folder: Path) -> None:
    """Files of at most FILE_BYTES and their index, each written and compared as soon as its tensors are there."""
    sizes = {name: torch.empty(shape, dtype=dtype, device="meta") for name, shape, dtype in weight_shapes(model)}
    split = split_torch_state_dict_into_shards(sizes, max_shard_size=FILE_BYTES)
    waiting: dict[str, dict[str, Tensor]] = {name: {} for name in split.filename_to_tensors}
    for name, tensor in gathering:
        file = split.tensor_to_filename[name]
        waiting[file][name] = tensor.cpu().contiguous()
        if len(waiting[file]) == len(split.filename_to_tensors[file]):
            _write_file(folder / file, waiting.pop(file))
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _write_file(path: Path, tensors: Mapping[str, Tensor]) -> None:
    try:
        save_file(dict(tensors), path, metadata={"format": "pt"})
        # Not mapped: the pages would count as the process's memory.
        with safe_open(path, framework="pt", backend="pread") as stored:
            different = [name for name, tensor in tensors.items() if not torch.equal(stored.get_tensor(name), tensor)]
    except SafetensorError as error:
        raise ModelError(f"cannot write {path}: {error}") from error
    if different:
        raise ModelError(f"{path}: {different[0]} differs from the model in memory")


def _loaded(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The exported model on the CPU."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, trust_remote_code=False
        )
    except READ_ERRORS as error:
        raise ModelError(f"the exported student {folder} cannot be loaded again: {error}") from error
    _require_rows(folder, len(tokenizer), loaded)
    return loaded


def _require_rows(folder: Path, entries: int, model: PreTrainedModel) -> None:
    rows = embedding_rows(model)
    if entries > rows:
        raise ModelError(f"{folder}: the tokenizer has {entries} entries, the model only {rows} rows")


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """An empty folder that takes the place of `folder` where the block ends well, and is removed where it does not."""
    # Beside the target: a rename is atomic only within one file system. What a killed process left is cleared away.
    fresh, old = (folder.with_name(f".{folder.name}.{state}") for state in ("unfinished", "replaced"))
    try:
        _clear(folder, fresh, old)
        _require_replaceable(folder)
        fresh.mkdir(parents=True)
        yield fresh
        # Two renames: between them no folder stands, but never a half-written one.
        if folder.exists():
            os.rename(folder, old)
        os.rename(fresh, folder)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot write the student to {folder}: {error}") from error
    finally:
        _clear(folder, fresh, old)


def _clear(folder: Path, fresh: Path, old: Path) -> None:
    if old.exists() and not folder.exists():
        os.rename(old, folder)
    for left in (fresh, old):
        shutil.rmtree(left, ignore_errors=True)


def _require_replaceable(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir() or (any(folder.iterdir()) and not (folder / PROMPT_FILE).is_file()):
        raise ModelError(f"{folder} exists and is not an exported student; choose another folder or remove it")
