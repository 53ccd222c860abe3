r"""Prompts in the chat format of a model that others trained: a baseline is asked as it was tuned.

    template   <s>[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{user} [/INST]     rendered with placeholders
    pieces     <s> | [INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nWhat is 2+2? [/INST]
    ids        by id | one plain text, markup and contents together, in which no control token is recognized

So the ids are those of `apply_chat_template`, except where a content spells a control token: that stays text.
Markup that a format writes in ordinary characters, such as `[INST]`, is ordinary text by the format's own making.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from orca2.errors import ConfigError, ModelError
from orca2.records import Tokens, Turn
from orca2.rendering.format import ASSISTANT, SYSTEM, USER
from orca2.rendering.plain import PlainText
from orca2.rendering.tokenizers import backend_of, tokenizer_hash

FIXED: dict[str, Any] = {"date_string": "26 Jul 2024"}
"""Given to every template: Llama 3's write a date, by default today's, and prompts would change every day.
This is the date that Llama 3.1's own template falls back on."""
_PLACE = re.compile(r"<<content (\d+)>>")


@dataclass(frozen=True)
class TemplateFormat:
    """A chat format as a Jinja template, such as models on the hub carry.

    Raises:
        ConfigError: `empty_system` is neither `omit` nor `keep`.
    """

    name: str
    template: str | None
    """The Jinja template; None: the tokenizer's own."""
    empty_system: Literal["omit", "keep"]
    """What an empty system message becomes: no message, or one without text. Many templates write a message of
    their own where there is none."""

    def __post_init__(self) -> None:
        if self.empty_system not in ("omit", "keep"):
            raise ConfigError(f"format={self.name}: empty_system is {self.empty_system!r}; choose omit or keep")


class TemplateRenderer:
    """Does what `Renderer` does for prompts of a foreign chat format.

    A template is a program that came with the weights: it runs in jinja's sandbox, which takes away all but text and
    bounds each range, but not the time. One that was made to loop for hours only delays its own user's start,
    at the checks below, before any work; Ctrl-C ends a loop of the template, but not one large power of numbers.

    Raises:
        ModelError: there is no template, it does not take a user's turn, it gives other ids than this renderer
            for ordinary texts, or no token ends an answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, format: TemplateFormat) -> None:
        self._tokenizer, self._format = tokenizer, format
        self._template: Any = format.template or tokenizer.chat_template
        if not isinstance(self._template, str):
            raise ModelError(
                f"format={format.name}: the tokenizer {tokenizer.name_or_path} has no chat template of its own; "
                "choose the format that the model was tuned with, such as format=llama2_chat"
            )
        self._text = PlainText(tokenizer)
        self._opening = PlainText(tokenizer, opening=True)
        self._tokens = {
            self._text.control[id]: (id, token)
            for id, token in backend_of(tokenizer).get_added_tokens_decoder().items()
            if id in self._text.control
        }
        spelled = "|".join(map(re.escape, sorted(self._tokens, key=len, reverse=True)))
        self._control = re.compile(spelled) if spelled else None
        self._anchor = self._text.ids(["a"])[0]
        self._anchor_text = self._text.backend.decode(self._anchor)
        self._trims = self._find_trims()
        self._lead, end = self._answer_frame()
        self.end_id = self._end_id(end)
        self.pad_id: int = self.end_id if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
        self.identity: dict[str, str | int | None] = {
            "format": format.name,
            "markup": self._template,
            "tokenizer": tokenizer_hash(tokenizer),
            "vocabulary": len(tokenizer),
            "end_id": self.end_id,
            "pad_id": self.pad_id,
            "empty_system": format.empty_system,
        }
        self._check_template()

    def prompt(self, system: str, user: str, history: Sequence[Turn] = ()) -> list[int]:
        """Ids after which the model writes its answer. Raises ModelError where the template refuses the roles."""
        return self._ids(self._messages(system, user, None, history), generate=True)

    def example(self, system: str, user: str, answer: str, history: Sequence[Turn] = ()) -> Tokens:
        """The prompt, the answer's ids and the end token; the mask is True exactly on the last two."""
        prompt = self.prompt(system, user, history)
        whole = self._ids(self._messages(system, user, answer, history), generate=False)
        fits = whole[: len(prompt)] == prompt and self.end_id in whole[len(prompt) :]
        answer_ids = whole[len(prompt) :] if fits else self._text.ids([self._lead + answer])[0] + [self.end_id]
        answer_ids = answer_ids[: answer_ids.index(self.end_id) + 1]
        return Tokens(prompt + answer_ids, [False] * len(prompt) + [True] * len(answer_ids))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of an answer without control tokens and without the blank that the format puts before it."""
        text = self._text.decode([*self._anchor, *ids])
        return text[len(self._anchor_text) :].removeprefix(self._lead)

    def decode_marked(self, ids: Sequence[int]) -> str:
        """Text with the control tokens visible, for people to read."""
        return str(self._text.backend.decode(ids, skip_special_tokens=False))

    # --- the template ---

    def _messages(self, system: str, user: str, answer: str | None, history: Sequence[Turn]) -> list[dict[str, str]]:
        messages = [{"role": SYSTEM, "content": system}] if system or self._format.empty_system == "keep" else []
        for turn in history:
            messages += [{"role": USER, "content": turn.user}, {"role": ASSISTANT, "content": turn.answer}]
        messages.append({"role": USER, "content": user})
        return messages if answer is None else [*messages, {"role": ASSISTANT, "content": answer}]

    def _written(self, messages: Sequence[dict[str, str]], generate: bool, around: str = "") -> str:
        """The template's text, with a placeholder for each content."""
        chat = [
            {"role": message["role"], "content": f"{around}<<content {i}>>{around}"}
            for i, message in enumerate(messages)
        ]
        try:
            text = self._tokenizer.apply_chat_template(
                chat, chat_template=self._template, tokenize=False, add_generation_prompt=generate, **FIXED
            )
        except Exception as error:  # templates are programs of others and raise what they like
            roles = [message["role"] for message in messages]
            raise ModelError(f"format={self._format.name}: the chat template refuses {roles}: {error}") from error
        found = {int(match[1]) for match in _PLACE.finditer(str(text))}
        lost = [messages[i]["role"] for i in range(len(messages)) if i not in found]
        if lost:
            raise ModelError(
                f"format={self._format.name}: the chat template leaves out the messages of {lost}; use another format"
                + (", or format.empty_system=omit" if SYSTEM in lost else "")
            )
        return str(text)

    def _ids(self, messages: Sequence[dict[str, str]], generate: bool) -> list[int]:
        contents = [
            message["content"].strip() if self._trims[message["role"]] else message["content"] for message in messages
        ]
        pieces: list[Any] = [""]  # texts and control tokens by turns
        # Markup and contents by turns: `split` gives the number of a content at every odd place.
        for place, part in enumerate(_PLACE.split(self._written(messages, generate))):
            if place % 2:
                pieces[-1] += contents[int(part)]
            else:
                self._add_markup(pieces, part)
        return self._encode(pieces)

    def _add_markup(self, pieces: list[Any], markup: str) -> None:
        at = 0
        for match in self._control.finditer(markup) if self._control else ():
            pieces[-1] += markup[at : match.start()]
            pieces += [self._tokens[match[0]], ""]
            at = match.end()
        pieces[-1] += markup[at:]

    def _encode(self, pieces: Sequence[Any]) -> list[int]:
        ids: list[int] = []
        for place, piece in enumerate(pieces):
            if place % 2:
                ids.append(piece[0])
                continue
            # Some control tokens take the blanks beside them.
            text = piece.lstrip() if place and pieces[place - 1][1].rstrip else piece
            text = text.rstrip() if place + 1 < len(pieces) and pieces[place + 1][1].lstrip else text
            if text:
                ids += (self._text if ids else self._opening).ids([text])[0]
        return ids

    # --- what the template does, found by trying ---

    def _find_trims(self) -> dict[str, bool]:
        """Role -> whether the template strips its contents, as Llama 2's does."""
        trims = {SYSTEM: False}
        plain = self._messages("", "u", "a", ())
        for messages in (self._messages("s", "u", "a", ()), plain):
            try:
                text = self._written(messages, False, around=" ")
            except ModelError:
                if messages is plain or not messages or messages[0]["role"] != SYSTEM:
                    raise
                continue  # no system messages: a user who gives one is told then
            return trims | {message["role"]: f" <<content {i}>> " not in text for i, message in enumerate(messages)}
        raise AssertionError("the second try returns or raises")

    def _answer_frame(self) -> tuple[str, str]:
        """What stands before and after an answer, as seen from the prompt."""
        messages = self._messages("", "u", "a", ())
        text = self._written(messages, generate=False)
        prompt = self._written(messages[:-1], generate=True)
        before, _, after = text.partition(f"<<content {len(messages) - 1}>>")
        return (before[len(prompt) :] if before.startswith(prompt) else ""), after

    def _end_id(self, after: str) -> int:
        match = self._control.search(after) if self._control else None
        if match:
            return int(self._tokens[match[0]][0])
        if self._tokenizer.eos_token_id is None:
            raise ModelError(f"format={self._format.name}: no control token ends an answer, and the tokenizer has none")
        return int(self._tokenizer.eos_token_id)

    def _check_template(self) -> None:
        history = [Turn(user="What is 12+3?", answer="It is 15.")]
        messages = self._messages("", "Why?\nSay it.", None, history)
        found: Any = self._tokenizer.apply_chat_template(
            messages, chat_template=self._template, add_generation_prompt=True, return_dict=False, **FIXED
        )
        expected = self.prompt("", "Why?\nSay it.", history)
        if found != expected:
            raise ModelError(
                f"format={self._format.name}: the chat template gives {self._tokenizer.decode(found)!r} and this "
                f"renderer {self._tokenizer.decode(expected)!r}, or other ids for the same text; use another format"
            )
