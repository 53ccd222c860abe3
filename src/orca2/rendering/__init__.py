"""The only place where text becomes token ids and a loss mask."""

from orca2.rendering.format import ChatFormat
from orca2.rendering.renderer import Renderer
from orca2.rendering.template import TemplateFormat, TemplateRenderer
from orca2.rendering.tokenizers import prepare_tokenizer, tokenizer_hash, train_byte_bpe

__all__ = [
    "ChatFormat",
    "Renderer",
    "TemplateFormat",
    "TemplateRenderer",
    "prepare_tokenizer",
    "tokenizer_hash",
    "train_byte_bpe",
]
