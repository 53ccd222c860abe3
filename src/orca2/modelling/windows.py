"""Shrinks a model's windows to a few tokens: checks on short texts would never meet the real ones.

    sliding_window        each token sees so many, itself included       Mistral, Gemma, Qwen
    attention_chunk_size  a text is cut into chunks that are apart       Llama 4
    floor_scale           queries are scaled by their place in the row   Llama 4

transformers reads these numbers from the config when it makes masks, and from the attention modules elsewhere.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import PretrainedConfig, PreTrainedModel

NAMES = ("sliding_window", "attention_chunk_size", "floor_scale")
SHRUNK = 4
"""Tokens; a document of five crosses it."""


@contextmanager
def shrunk_windows(model: PreTrainedModel, longest: int | None = None) -> Iterator[None]:
    """Within the block each window of the model has `SHRUNK` tokens, but one that texts of `longest` never leave.

    The scale counts tokens of a whole row, however short its texts, so it is always shrunk.
    """
    before: list[tuple[Any, str, int]] = []
    for config in _configs(model):
        for name in NAMES:
            size = getattr(config, name, None)
            if not size or (longest is not None and size >= longest and name != "floor_scale"):
                continue
            before.append((config, name, size))
            # Some modules count the token itself, or the one after: the difference stays.
            before += [
                (module, name, there)
                for module in model.modules()
                if isinstance(there := getattr(module, name, None), int) and abs(there - size) <= 1
            ]
    sizes = {(id(owner), name): SHRUNK + size - _configured(before, name) for owner, name, size in before}
    try:
        for owner, name, _ in before:
            setattr(owner, name, sizes[id(owner), name])
        yield
    finally:
        for owner, name, size in before:
            setattr(owner, name, size)


def changing_positions(config: PretrainedConfig, longest: int | None = None) -> str | None:
    """A kind of RoPE that transformers' `dynamic_rope_update` adapts to the largest position of a whole batch.

    None also where texts of `longest` tokens are too short for it.
    """
    text: Any = config.get_text_config()
    parameters = getattr(text, "rope_parameters", None) or {}
    for one in (parameters, *(value for value in parameters.values() if isinstance(value, dict))):
        kind = str(one.get("rope_type", ""))
        since = one.get("original_max_position_embeddings") or getattr(text, "max_position_embeddings", None)
        within = longest is not None and since is not None and longest <= since
        if (kind == "longrope" or "dynamic" in kind) and not within:
            return kind
    return None


def _configs(model: PreTrainedModel) -> list[PretrainedConfig]:
    """The model's config, and that of its text model where it is another."""
    whole: PretrainedConfig = model.config
    text = whole.get_text_config()
    return [whole] if text is whole else [whole, text]


def _configured(found: list[tuple[Any, str, int]], name: str) -> int:
    return next(size for owner, known, size in found if known == name and isinstance(owner, PretrainedConfig))
