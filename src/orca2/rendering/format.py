r"""Chat markup: where the turns of a conversation begin and end.

A conversation is a row of blocks with a line break between them:

    <s><|im_start|>system\n{system}<|im_end|>\n      <s> only with `bos`
    <|im_start|>user\n{user}<|im_end|>\n
    <|im_start|>assistant\n{answer}<|im_end|>        a prompt ends before {answer}, an example with <|im_end|>

The system block is always there, also when the system message is empty. A student then meets one shape of
prompt under every erasing: the empty message, under which the paper evaluates, is a message like any other.
"""

import json
import re
from dataclasses import dataclass
from typing import Literal

from orca2.errors import ConfigError

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"

_TEMPLATE = """
{%- macro text_of(content) %}
    {%- if content is string %}
        {{- content }}
    {%- elif content is mapping %}
        {{- raise_exception('the content of a message is a text or a list of text parts, not a mapping') }}
    {%- elif content is not none and content is defined %}
        {%- for part in content %}
            {%- if part is not mapping or part['type'] not in ['text', 'input_text', 'output_text'] %}
                {{- raise_exception('only parts of type text can be read') }}
            {%- endif %}
            {{- ('' if loop.first else PART_BREAK) + part['text'] }}
        {%- endfor %}
    {%- endif %}
{%- endmacro %}
{%- if tools %}
    {{- raise_exception('this model was trained without tools') }}
{%- endif %}
{%- if messages and messages[0]['role'] in ['system', 'developer'] %}
    {%- set system = text_of(messages[0]['content']) %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set system = DEFAULT %}
    {%- set turns = messages %}
{%- endif %}
{{- BOS + START + 'system' + AFTER_ROLE + system + END }}
{%- for turn in turns %}
    {%- if turn['role'] == 'tool' or turn['tool_calls'] %}
        {{- raise_exception('this model was trained without tools: give their results in a message by user') }}
    {%- elif turn['role'] not in ['user', 'assistant'] %}
        {{- raise_exception('the first message may be by system or developer, others by user or assistant') }}
    {%- endif %}
    {{- BETWEEN + START + turn['role'] + AFTER_ROLE }}
    {%- if turn['role'] == 'assistant' %}
        {%- generation %}
            {{- text_of(turn['content']) + END }}
        {%- endgeneration %}
    {%- else %}
        {{- text_of(turn['content']) + END }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- BETWEEN + START + 'assistant' + AFTER_ROLE }}
{%- endif %}"""
"""Words in capitals are filled in. Text parts are joined as in the data (`orca2.rows.conversations`)."""


@dataclass(frozen=True)
class ChatFormat:
    """Markup of the ChatML kind: `start`, `end` and `pad` are control tokens, the rest is plain text.

    Raises:
        ConfigError: a control token is empty, has outer blanks or is used twice, or `bos` is not as below.
    """

    name: str
    start: str
    end: str
    pad: str
    after_role: str
    between_turns: str
    bos: bool | Literal["auto"]
    """`auto`: begin with the beginning-of-sequence token where the tokenizer or its chat template would add one."""

    def __post_init__(self) -> None:
        tokens = {"start": self.start, "end": self.end, "pad": self.pad}
        for key, token in tokens.items():
            if not token or token != token.strip():
                raise ConfigError(
                    f"format={self.name}: {key} is {token!r}; a control token is text without outer blanks"
                )
        if len(set(tokens.values())) < len(tokens):
            raise ConfigError(f"format={self.name}: start, end and pad must be three different tokens, not {tokens}")
        if self.bos not in (True, False, "auto"):
            raise ConfigError(f"format={self.name}: bos is {self.bos!r}; choose true, false or auto")

    def markup(self, bos: str) -> str:
        """The markup around placeholders, for people to read and for `Renderer.identity`."""
        blocks = [f"{self.start}{role}{self.after_role}{{{role}}}{self.end}" for role in (SYSTEM, USER, ASSISTANT)]
        return bos + self.between_turns.join(blocks)

    def chat_template(self, default_system: str | None, with_bos: bool) -> str:
        """Jinja template that gives the same text as the renderer's, for use outside of this project.

        `default_system` is the system message of conversations that bring none (None: the empty message). A first
        message by `developer`, as newer servers call it, is a system message; a content may be null or a list of text
        parts. Turns of tools, which no student is trained on, are a template error.

        Answers stand between the markers of `return_assistant_tokens_mask` (TRL's `assistant_only_loss`) together with
        their end tokens: the mask is the one of this project where all answers of a conversation bear loss.

        Text such as `<|im_end|>` inside a message becomes a control token here, because a template gives one
        string to tokenize; the renderer is safe. `apply_chat_template(..., sanitize_control_tokens=True)`
        of transformers 5.23 keeps such text plain too, but its ids differ from the renderer's.
        """
        start, end, between = _literal(self.start), _literal(self.end), _literal(self.between_turns)
        after_role, default = _literal(self.after_role), _literal(default_system or "")
        template = _TEMPLATE
        constants = {
            "DEFAULT": default,
            "BOS": "bos_token" if with_bos else "''",
            "START": start,
            "END": end,
            "BETWEEN": between,
            "AFTER_ROLE": after_role,
            "PART_BREAK": _literal("\n"),
        }
        # One pass, so that a default message that contains such a word stays as it is.
        return re.sub(r"\b[A-Z]+(_[A-Z]+)?\b", lambda word: constants[word[0]], template)


def _literal(text: str) -> str:
    """A Jinja string literal. Jinja reads JSON's escapes except surrogate pairs, hence no ASCII escapes."""
    return json.dumps(text, ensure_ascii=False)
