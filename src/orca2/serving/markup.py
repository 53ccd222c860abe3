"""Chat markup that a server has left in an answer, because it does not know where its model's turns end.

    Answer: 42<|im_end|>                                    cut: the turn ends there
    Answer: 42<|im_end|>\\n<|im_start|>user\\nAnd 6 * 9?    cut: the model went on with a turn that is not its own
    <|channel|>analysis ... Answer: 42                      the answer is rejected: nobody knows which part is one
    ChatML ends a turn with `<|im_end|>`.                   kept: the text speaks of it

A marker is spoken of where quotation marks or backticks stand around it, inside a code fence, or where the prompt
names it, too. `</s>` ends a turn at the end of a text that has no `<s>`: elsewhere it is HTML. The trace of a reasoning
model is split off before.
"""

import re

END_OF_TURN = (
    "<|im_end|>",  # ChatML, Qwen, SmolLM2
    "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|eot|>", "<|eom|>",  # Llama 3 and 4
    "<|endoftext|>", "<|end|>", "<|return|>",  # GPT-2 and Phi, gpt-oss
    "<end_of_turn>", "<turn|>",  # Gemma
    "</s>",  # Llama 2, Mistral
    "<｜end▁of▁sentence｜>",  # DeepSeek
    "<|END_OF_TURN_TOKEN|>", "<|END_RESPONSE|>",  # Cohere
)  # fmt: skip
OTHERS = (
    "<|im_start|>", "<|im_sep|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|python_tag|>",
    "<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|call|>", "<start_of_turn>", "<|turn>",
    "<|user|>", "<|assistant|>", "<|system|>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>",
    "<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<|START_OF_TURN_TOKEN|>", "<|START_RESPONSE|>",
)  # fmt: skip
"""Markers that begin a turn, or stand inside one."""

_ENDS = frozenset(END_OF_TURN)
_STARTS = [marker for marker in OTHERS if marker not in ("[/INST]", "<</SYS>>")]
_ALL = re.compile("|".join(map(re.escape, (*END_OF_TURN, *OTHERS, "```"))))
_NOTHING_OR_MARKUP = re.compile(rf"\s*(?:\Z|{'|'.join(map(re.escape, (*_STARTS, *END_OF_TURN)))})")
_QUOTES = frozenset("`'\"“”‘’«»")


def clean(text: str, asked: str = "") -> tuple[str, str]:
    """The text up to the end of its turn, and the first marker that is left in it, empty where there is none.

    `asked`: the prompt. Linear in the length of both.
    """
    fenced = False
    named = {"</s>": "<s>" in text or "</s>" in asked}
    for found in _ALL.finditer(text):
        start, end, marker = found.start(), found.end(), found[0]
        if marker == "```":
            fenced = not fenced
            continue
        if marker not in named:
            named[marker] = marker in asked
        if fenced or named[marker] or _quoted(text, start, end):
            continue
        if marker in _ENDS and _NOTHING_OR_MARKUP.match(text, end):
            return text[:start].rstrip(), ""
        if marker != "</s>":
            return text, marker
    return text, ""


def _quoted(text: str, start: int, end: int) -> bool:
    return text[start - 1 : start] in _QUOTES and text[end : end + 1] in _QUOTES
