"""The trained student as others load it: a folder in the Hugging Face format, proven by reading it back.

<folder>/  config.json  model.safetensors  generation_config.json
           tokenizer.json  tokenizer_config.json  chat_template.jinja
           prompt.json      renderer identity and the erased system message
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from orca2.errors import ModelError
from orca2.modelling.attention import NAME, standard_attention
from orca2.modelling.build import READ_ERRORS, embedding_rows

PROMPT_FILE = "prompt.json"


def export_student(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    prompt_info: Mapping[str, Any],
    state_dict: Mapping[str, Tensor] | None = None,
) -> None:
    """Write model, tokenizer and prompt to `folder`, whole or not at all; an earlier export is replaced.

    `prompt_info` goes to `prompt.json`. `state_dict` stands in for the weights of a model that is sharded.
    Raises `ModelError` where `folder` holds something else than an earlier export, or cannot be written.
    """
    _require_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target: a rename is atomic only within one file system.
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with standard_attention(model):
            model.save_pretrained(fresh, state_dict=None if state_dict is None else dict(state_dict))
        tokenizer.save_pretrained(fresh)
        text = json.dumps(dict(prompt_info), indent=2, ensure_ascii=False, sort_keys=True)
        (fresh / PROMPT_FILE).write_text(text + "\n", encoding="utf-8")
        if NAME in (fresh / "config.json").read_text(encoding="utf-8"):
            raise ModelError(f"{folder}: config.json names the attention {NAME!r}, which no other program has")
        # mkdtemp makes private folders; an export is for others as well.
        fresh.chmod(0o755)
        _swap(fresh, folder)
    except OSError as error:
        raise ModelError(f"cannot write the student to {folder}: {error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def verify_export(folder: Path, model: PreTrainedModel, state_dict: Mapping[str, Tensor] | None = None) -> None:
    """Load `folder` as any program would and compare every weight with `model`, or with `state_dict`, bit for bit.

    Raises `ModelError` where it cannot be loaded, its tokenizer has more entries than it has rows, or it differs.
    """
    weights = dict(model.named_parameters()) if state_dict is None else state_dict
    loaded = dict(_loaded(folder, model.dtype).named_parameters())
    for name, weight in weights.items():
        if name not in loaded:  # a buffer
            continue
        stored = loaded.pop(name)
        if not torch.equal(stored, weight.detach().to("cpu", stored.dtype)):
            raise ModelError(f"{folder}: {name} differs from the model in memory")
    if loaded:
        raise ModelError(f"{folder}: {len(loaded)} tensors are not those of the model in memory, such as {min(loaded)}")


def _loaded(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The exported model on the CPU."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, trust_remote_code=False
        )
    except READ_ERRORS as error:
        raise ModelError(f"the exported student {folder} cannot be loaded again: {error}") from error
    rows = embedding_rows(loaded)
    if len(tokenizer) > rows:
        raise ModelError(f"{folder}: the tokenizer has {len(tokenizer)} entries, the model only {rows} rows")
    return loaded


def _require_replaceable(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir() or (any(folder.iterdir()) and not (folder / PROMPT_FILE).is_file()):
        raise ModelError(f"{folder} exists and is no exported student; choose another folder or remove it")


def _swap(fresh: Path, folder: Path) -> None:
    if not folder.exists():
        os.rename(fresh, folder)
        return
    # Two renames: between them no folder stands, but never a half-written one.
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent)) / "student"
    os.rename(folder, old)
    os.rename(fresh, folder)
    shutil.rmtree(old.parent, ignore_errors=True)
