"""What a student is, before anything is loaded. One file of `conf/model/` makes one `ModelSpec`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from orca2.errors import ConfigError
from orca2.modelling.recompute import RecomputeRequest

AttentionRequest = Literal["auto", "flash", "varlen", "sdpa", "eager"]
RouterLoss = Literal["own", "none"]

MIN_EMBEDDED_VOCABULARY = 512
"""256 bytes, the markup of a chat format, and room for merges that are worth having."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A causal language model and its tokenizer.

        weights        architecture    the model is
        hub id/folder  None            read from safetensors files
        None           a mapping       initialised at random from the run's seed

    Raises `ConfigError` for values that cannot work, before any file is opened.
    """

    name: str
    max_len: int
    """Context in tokens: the longest document and the longest prompt with its answer."""
    weights: str | None = None
    """Hub id or local folder in the Hugging Face format."""
    architecture: Mapping[str, Any] | None = None
    """Fields of the Hugging Face config, with `model_type`. `vocab_size` may be left to the tokenizer."""
    shape: Mapping[str, Any] | None = None
    """Fields of the config of `weights` that decide sizes, so that a run can be planned before anything
    is downloaded. Compared with the real config before weights are read."""
    tokenizer: str | None = None
    """Hub id or folder. None: the tokenizer beside the weights, or the embedded one for random weights."""
    tokenizer_vocabulary: int | None = None
    """Most entries of the embedded tokenizer; only for it."""
    attention: AttentionRequest = "auto"
    activation_checkpointing: RecomputeRequest = "auto"
    """What the backward pass computes again to save memory; see `modelling.recompute`. `auto` goes by size."""
    compile: bool = False
    """`torch.compile` of the decoder trunk; only with flash or varlen attention."""
    router_loss: RouterLoss = "own"
    """What a mixture of experts adds to its loss so that all experts are used. `own`: as its config says, which is
    refused where that is more than nothing, since it is not made here; `none`: it trains without."""

    def __post_init__(self) -> None:
        self._check_origin()
        self._check_tokenizer()
        if self.max_len < 2:
            self._refuse("max_len", self.max_len, "at least 2 tokens")
        if self.attention not in get_args(AttentionRequest):
            self._refuse("attention", self.attention, f"one of {', '.join(get_args(AttentionRequest))}")
        if self.router_loss not in get_args(RouterLoss):
            self._refuse("router_loss", self.router_loss, f"one of {', '.join(get_args(RouterLoss))}")
        if self.activation_checkpointing not in get_args(RecomputeRequest):
            allowed = f"one of {', '.join(get_args(RecomputeRequest))}"
            self._refuse("activation_checkpointing", self.activation_checkpointing, allowed)

    def _check_origin(self) -> None:
        if (self.weights is None) == (self.architecture is None):
            both = "both" if self.weights is not None else "neither"
            raise ConfigError(
                f"model {self.name!r}: set either `weights` (hub id or folder) or `architecture` (random "
                f"weights), not {both}"
            )
        if self.weights is None and self.shape is not None:
            self._refuse("shape", dict(self.shape), "null: it describes `weights`, and `architecture` says it all")
        for field in ("architecture", "shape"):
            fields: Mapping[str, Any] | None = getattr(self, field)
            if fields is not None and "model_type" not in fields:
                self._refuse(field, dict(fields), "a mapping with `model_type`, such as llama")

    def _check_tokenizer(self) -> None:
        embedded = self.weights is None and self.tokenizer is None
        if embedded and self.tokenizer_vocabulary is None:
            self._refuse("tokenizer_vocabulary", None, "a number of entries, since no `tokenizer` is named")
        if not embedded and self.tokenizer_vocabulary is not None:
            self._refuse(
                "tokenizer_vocabulary",
                self.tokenizer_vocabulary,
                "null: only the embedded tokenizer takes it",
            )
        if self.tokenizer_vocabulary is not None and self.tokenizer_vocabulary < MIN_EMBEDDED_VOCABULARY:
            self._refuse("tokenizer_vocabulary", self.tokenizer_vocabulary, f"at least {MIN_EMBEDDED_VOCABULARY}")

    def _refuse(self, field: str, value: object, allowed: str) -> None:
        raise ConfigError(f"model {self.name!r}: {field}={value!r} is not allowed; it must be {allowed}")
