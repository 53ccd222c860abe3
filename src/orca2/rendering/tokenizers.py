"""Tokenizers: prepared for a chat format, identified by a hash, and trained for the embedded tiny student."""

import hashlib
import json
import os
from collections.abc import Callable, Collection, Hashable, Iterable
from typing import Any, TypeVar

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from orca2.errors import ConfigError, ModelError
from orca2.rendering.format import ChatFormat

# The few short texts of an example gain nothing from threads. In the workers of a loader these would compete
# for cores, and they do not survive a fork.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

Made = TypeVar("Made")

END_OF_TEXT = "<|endoftext|>"

_WORDS = Regex(r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\n|[^\S\n]+(?!\S)|[^\S\n]+")
"""Pieces that no merge of the tiny tokenizer crosses: a word with the blank before it, one digit, a run of
marks, one line break, blanks. A line break stands alone, so that no text fuses with the markup before it."""


def prepare_tokenizer(tokenizer: PreTrainedTokenizerBase, format: ChatFormat, default_system: str | None = None) -> int:
    """Gives the tokenizer the format's control tokens and chat template. Doing it twice changes nothing.

    Tokens that exist are used as they are, so a tokenizer with ChatML of its own does not grow. LLaMA-2's
    grows by three, padding first, to the paper's 32,003 (arXiv 2311.11045, section 4.2). The
    end-of-sequence token becomes the end of a turn, so that `generate` of any library stops there.

    `default_system` is the system message that the template uses for conversations without one.

    Returns:
        The number of tokens added.

    Raises:
        ModelError: the tokenizer has no `tokenizers` backend, or no BOS token though `format.bos` is true.
        ConfigError: the format is a foreign template.
    """
    if not isinstance(format, ChatFormat):
        raise ConfigError(f"format={format.name} asks models as others tuned them and trains no student; take chatml")
    backend = backend_of(tokenizer)
    before = len(tokenizer)
    has_padding = tokenizer.pad_token is not None and tokenizer.pad_token not in (format.start, format.end)
    pad = str(tokenizer.pad_token) if has_padding else format.pad
    # One call each, in this order, because ids are given in the order of adding.
    for token in (pad, format.start, format.end):
        # Also where the token exists: it becomes special, or text could spell it.
        tokenizer.add_tokens([AddedToken(token, special=True, normalized=False)], special_tokens=True)
    tokenizer.pad_token = pad
    tokenizer.eos_token = format.end
    if hasattr(tokenizer, "legacy"):
        # LLaMA-2's class takes it from the files and stores none: read back, it would put fewer blanks.
        tokenizer.init_kwargs["legacy"] = tokenizer.legacy
    backend.no_padding()
    backend.no_truncation()
    tokenizer.chat_template = format.chat_template(default_system, bos_id(tokenizer, format) is not None)
    return len(tokenizer) - before


def bos_id(tokenizer: PreTrainedTokenizerBase, format: ChatFormat) -> int | None:
    """Id that every rendered text begins with, or None.

    Raises:
        ModelError: the format demands BOS and the tokenizer has none.
    """
    bos = tokenizer.bos_token_id
    if format.bos is True and bos is None:
        raise ModelError(
            f"format={format.name} has bos: true, but the tokenizer {tokenizer.name_or_path} has no BOS "
            "token; use bos: auto"
        )
    if format.bos == "auto":
        # Seen from what it does: `add_bos_token` knows nothing of a post-processor from a tokenizer.json. Files of
        # Llama 3 and DeepSeek leave it to the chat template alone (after `prepare_tokenizer` it is this project's).
        adds = backend_of(tokenizer).encode("a").ids[:1] == [bos]
        bos = bos if adds or "bos_token" in str(tokenizer.chat_template) else None
    return int(bos) if format.bos and bos is not None else None


def backend_of(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """The `tokenizers` object behind a transformers tokenizer.

    Raises:
        ModelError: there is none.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ModelError(
            f"the tokenizer {tokenizer.name_or_path} is a {type(tokenizer).__name__}, without a `tokenizers` "
            "backend; use a model that has a tokenizer.json, or convert its tokenizer"
        )
    return tokenizer.backend_tokenizer


def content_backend(
    tokenizer: PreTrainedTokenizerBase, opening: bool = False, plain: Collection[str] = ()
) -> Tokenizer:
    """A copy of the backend that reads every text as plain text in the middle of a conversation, or at its opening.
    Added tokens that are not special, such as Qwen3's `</think>`, are read in texts, but for those in `plain`.

    A copy, because transformers resets padding, truncation and `encode_special_tokens` on its own one in each call.
    Equal tokenizers share it: making one of a quarter of a million tokens takes seconds.
    """
    plain = frozenset(plain)
    return _once(tokenizer, (opening, plain), lambda stored: _content_backend(stored, opening, plain))


def _content_backend(stored: str, opening: bool, plain: Collection[str]) -> Tokenizer:
    state = json.loads(stored)
    state["padding"] = state["truncation"] = state["post_processor"] = None
    if not opening:
        # After a control token no text is the first piece of the string.
        _never_first(state["pre_tokenizer"])
    for token in state["added_tokens"]:
        token["special"] = token["special"] or token["content"] in plain
    backend: Tokenizer = Tokenizer.from_str(json.dumps(state))
    backend.encode_special_tokens = True
    return backend


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 over all that decides the ids of a text: vocabulary, merges, added tokens, normalizer,
    splitting, decoder.

    Left out: what is set per call (padding, truncation), and the post-processor, which the renderer does
    not use.
    """
    return _once(tokenizer, "hash", _hash_of)


def _hash_of(stored: str) -> str:
    state = json.loads(stored)
    for key in ("version", "padding", "truncation", "post_processor"):
        del state[key]
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


_MADE: dict[tuple[bytes, Hashable], Any] = {}
"""What was made of a tokenizer, by the digest of its JSON. The JSON of a large one takes 48 MB, and is not kept."""
_MOST_MADE = 8
"""Enough for two tokenizers; ours."""


def _once(tokenizer: PreTrainedTokenizerBase, what: Hashable, make: Callable[[str], Made]) -> Made:
    """What `make` makes of the tokenizer's JSON; equal tokenizers get the same object."""
    stored = backend_of(tokenizer).to_str()
    key = hashlib.sha256(stored.encode()).digest(), what
    if key not in _MADE:
        if len(_MADE) == _MOST_MADE:
            del _MADE[next(iter(_MADE))]
        _MADE[key] = make(stored)
    made: Made = _MADE[key]
    return made


def train_byte_bpe(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE for the embedded tiny student: lossless on any text, and the same on every machine.

    Digits are split one by one, as LLaMA does. `vocab_size` includes `<|endoftext|>` (padding) but not the
    tokens that a chat format adds; little text gives a smaller vocabulary.

    Raises:
        ConfigError: `vocab_size` does not hold the 256 bytes and `<|endoftext|>`.
    """
    if vocab_size < 257:
        raise ConfigError(
            f"vocab_size is {vocab_size}; byte-level BPE needs at least 257 (256 bytes and {END_OF_TEXT})"
        )
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_WORDS, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,  # ours: a pair seen once is not worth an embedding
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer=trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=END_OF_TEXT, eos_token=END_OF_TEXT)


def _never_first(pre_tokenizer: dict[str, Any] | None) -> None:
    if pre_tokenizer is None:
        return
    if pre_tokenizer["type"] == "Metaspace" and pre_tokenizer["prepend_scheme"] == "first":
        pre_tokenizer["prepend_scheme"] = "never"
    for inner in pre_tokenizer.get("pretokenizers", ()):
        _never_first(inner)
