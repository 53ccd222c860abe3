r"""Renderer: a system message, a user's turn and an answer as token ids and a loss mask.

    segment   bos S  system\nYou are …  E \n S  user\nWhat is 2+2?  E \n S  assistant\n   It is 4.  E
    mask      .   .  .                  .  .  .  .                  .  .  .  .             1         1
              |------------------------------ prompt ----------------------------------|  |- answer --|

S and E are the control tokens, put in by id. What stands between two of them is tokenized as one plain text,
in which no control token is recognized. A tokenizer does the same with the string of a chat template, so the
ids agree with `apply_chat_template`, except where a text spells a control token.

The answer's ids are what the tokenizer makes of `assistant\n{answer}`, less those of `assistant\n`. So a
prompt is a prefix of its example, and a tokenizer that begins each text with a blank adds none to the answer.
Where a tokenizer would fuse the answer's first line break with that of `assistant\n`, the answer is tokenized
alone: the prompt could not be a prefix otherwise, and its ids are not a template's.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from orca2.errors import DataError, ModelError
from orca2.reasoning import BEFORE_ANSWER, MARKERS, Trace, split
from orca2.records import Tokens, Turn
from orca2.rendering.format import ASSISTANT, SYSTEM, USER, ChatFormat
from orca2.rendering.plain import PlainText
from orca2.rendering.tokenizers import bos_id, tokenizer_hash

_CACHED_SYSTEM_MESSAGES = 256
"""More than there are generic messages and strategies; a bound for data in which each row has its own."""

_PROBES = ("a", " a", "\n\n a  b\t1234 \n", "[INST] The QUICK brown fox, isn't it? </s>")
_REPLACEMENT = "\ufffd"
_LONGEST_UTF8 = 4


class Renderer:
    """Text to ids and back. Can be sent to workers; leaves the given tokenizer alone after construction.

    Raises:
        ModelError: the tokenizer was not prepared for the format, does not reproduce plain text, or has a
            chat template that gives other ids than this renderer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, format: ChatFormat) -> None:
        self._text = PlainText(tokenizer)
        self.pad_id = self._id_of_control(tokenizer.pad_token)
        self.end_id = self._id_of_control(format.end)
        start_id = self._id_of_control(format.start)
        bos = bos_id(tokenizer, format)

        self._roles = {role: role + format.after_role for role in (SYSTEM, USER, ASSISTANT)}
        self._answer_role = self._text.ids([self._roles[ASSISTANT]])[0]
        self._answer_role_text = self._text.backend.decode(self._answer_role)
        between = self._text.ids([format.between_turns])[0]
        self._first = [start_id] if bos is None else [bos, start_id]
        self._to_turn = [self.end_id, *between, start_id]
        self._to_answer = [*self._to_turn, *self._answer_role]
        self._systems: dict[str, list[int]] = {}
        markers = [*MARKERS, *MARKERS.values()]
        added = {token.content: id for id, token in tokenizer.added_tokens_decoder.items()}
        self._marker_ids = {marker: added[marker] for marker in markers if marker in added}
        # For traces and the answers behind them: a marker that is spelled there must not end the trace.
        self._unmarked = PlainText(tokenizer, plain=markers) if self._marker_ids else self._text

        self.identity: dict[str, str | int | None] = {
            "format": format.name,
            "markup": format.markup("" if bos is None else str(tokenizer.bos_token)),
            "tokenizer": tokenizer_hash(tokenizer),
            "vocabulary": len(tokenizer),
            "bos_id": bos,
            "start_id": start_id,
            "end_id": self.end_id,
            "pad_id": self.pad_id,
        }
        self._check_lossless()
        self._check_chat_template(tokenizer)

    def prompt(self, system: str, user: str, history: Sequence[Turn] = ()) -> list[int]:
        """Ids after which the model writes its answer.

        Raises:
            DataError: a text is not valid Unicode.
        """
        return self._prompt(system, self._encode(system, user, None, history), history)[0]

    def example(
        self,
        system: str,
        user: str,
        answer: str,
        history: Sequence[Turn] = (),
        loss_on_history: bool = False,
        trace: Trace | None = None,
    ) -> Tokens:
        """The prompt, the answer's ids and the end token; the mask is True exactly on the last two.

        A `trace` stands before the answer between its markers, and bears loss with them. With `loss_on_history` the
        mask is True on the earlier answers and their end tokens as well, unless a turn says that it bears none.

        Raises:
            DataError: a text is not valid Unicode, an answer that bears loss is blank, or a trace cannot be told from
                the answer because it spells its own closing marker and the tokenizer has no control token for it.
        """
        if not isinstance(answer, str) or not answer.strip():
            raise DataError("answer is empty: nothing can be learnt from it")
        if loss_on_history:
            for i, turn in enumerate(history):
                if turn.loss and not turn.answer.strip():
                    raise DataError(f"history[{i}].answer is empty: nothing can be learnt from it")
        encoded = self._encode(system, user, answer, history)
        answer_ids = self._answer_ids(encoded.pop(), answer)
        if trace is not None:
            answer_ids = self._traced(trace, answer)
        ids, spans = self._prompt(system, encoded, history)
        mask = [False] * len(ids)
        if loss_on_history:
            for turn, (start, stop) in zip(history, spans, strict=True):
                mask[start:stop] = [turn.loss] * (stop - start)
        ids += answer_ids
        ids.append(self.end_id)
        mask += [True] * (len(answer_ids) + 1)
        return Tokens(ids, mask)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of an answer, or of a part of one, without control tokens, but with the markers of a trace."""
        # After other text, because decoders of the SentencePiece kind drop a blank at the beginning.
        return self._text.decode([*self._answer_role, *ids])[len(self._answer_role_text) :]

    def decode_marked(self, ids: Sequence[int]) -> str:
        """Text with the control tokens visible, for people to read."""
        text: str = self._text.backend.decode([*self._answer_role, *ids], skip_special_tokens=False)
        return text[len(self._answer_role_text) :]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text of each id, control tokens visible: one string per id, for coloured display.

        A character whose bytes are spread over several ids stands at the first of them, the others are empty.
        """
        pieces: list[str] = []
        while len(pieces) < len(ids):
            start, length = len(pieces), 1
            text = self.decode_marked(ids[start : start + 1])
            while text.endswith(_REPLACEMENT) and length < min(_LONGEST_UTF8, len(ids) - start):
                length += 1
                text = self.decode_marked(ids[start : start + length])
            pieces += [text, *[""] * (length - 1)]
        return pieces

    def check_identity(self, saved: Mapping[str, str | int | None]) -> None:
        """Refuses weights that were trained with another format or tokenizer.

        Raises:
            ModelError: `saved`, an earlier `identity`, differs; names the keys with both values.
        """
        keys = [key for key in self.identity | dict(saved) if self.identity.get(key) != saved.get(key)]
        if keys:
            differences = "; ".join(f"{key}: {saved.get(key)!r} then, {self.identity.get(key)!r} now" for key in keys)
            raise ModelError(
                f"the weights were trained on other token ids than this renderer makes ({differences}); "
                "use the tokenizer and the format that are stored beside the weights"
            )

    # --- encoding ---

    def _prompt(
        self, system: str, encoded: Sequence[list[int]], history: Sequence[Turn]
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """The prompt, and the spans in it of the earlier answers with their end tokens."""
        ids = self._first + self._system_ids(system) + self._to_turn
        spans = []
        for i, turn in enumerate(history):
            ids += encoded[2 * i]
            ids += self._to_answer
            start = len(ids)
            ids += self._answer_ids(encoded[2 * i + 1], turn.answer)
            spans.append((start, len(ids) + 1))
            ids += self._to_turn
        ids += encoded[-1]
        ids += self._to_answer
        return ids, spans

    def _system_ids(self, system: str) -> list[int]:
        ids = self._systems.get(system)
        if ids is None:
            if len(self._systems) >= _CACHED_SYSTEM_MESSAGES:
                self._systems.clear()
            ids = self._systems[system] = self._text.ids([self._roles[SYSTEM] + system])[0]
        return ids

    def _answer_ids(self, ids_with_role: list[int], answer: str) -> list[int]:
        length = len(self._answer_role)
        if ids_with_role[:length] == self._answer_role:
            return ids_with_role[length:]
        return self._text.ids([answer])[0]

    def _traced(self, trace: Trace, answer: str) -> list[int]:
        """Ids of a trace between its markers, and of the answer behind it."""
        opening, closing = (self._marker_ids.get(marker) for marker in (trace.opening, trace.closing))
        try:
            if opening is not None and closing is not None:
                thought, said = self._unmarked.ids([trace.between, BEFORE_ANSWER + answer])
                return [opening, *thought, closing, *said]
            text = f"{trace.opening}{trace.between}{trace.closing}{BEFORE_ANSWER}{answer}"
            if split(text).reasoning != trace.text.strip():
                raise DataError(
                    f"the reasoning trace spells {trace.opening!r} or {trace.closing!r}, which would end it early"
                )
            return self._answer_ids(self._text.ids([self._roles[ASSISTANT] + text])[0], text)
        except (TypeError, UnicodeEncodeError):
            _refuse_invalid({"reasoning": trace.text})
            raise

    def _encode(self, system: str, user: str, answer: str | None, history: Sequence[Turn]) -> list[list[int]]:
        """Ids of the turns with their roles, in one call of the backend: user, answer, user, …"""
        try:
            texts = []
            for turn in history:
                texts += [self._roles[USER] + turn.user, self._roles[ASSISTANT] + turn.answer]
            texts.append(self._roles[USER] + user)
            if answer is not None:
                texts.append(self._roles[ASSISTANT] + answer)
            self._system_ids(system)
            return self._text.ids(texts)
        except (TypeError, UnicodeEncodeError):
            fields = {"system": system, "user": user, "answer": answer}
            for i, turn in enumerate(history):
                fields |= {f"history[{i}].user": turn.user, f"history[{i}].answer": turn.answer}
            _refuse_invalid(fields)
            raise

    # --- checks at construction ---

    def _id_of_control(self, token: str | None) -> int:
        id = None if token is None else self._text.backend.token_to_id(token)
        if id is None:
            raise ModelError(f"the tokenizer has no token {token!r}; prepare it for the format with prepare_tokenizer")
        return int(id)

    def _check_lossless(self) -> None:
        for probe in _PROBES:
            read = self.decode(self._answer_ids(self._text.ids([self._roles[ASSISTANT] + probe])[0], probe))
            if read != probe:
                raise ModelError(
                    f"the tokenizer turns the answer {probe!r} into {read!r}; no student can learn to write "
                    "with it. Use a tokenizer that keeps case, blanks and line breaks"
                )

    def _check_chat_template(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if tokenizer.chat_template is None:
            raise ModelError("the tokenizer has no chat template; prepare it for the format with prepare_tokenizer")
        messages = [
            {"role": SYSTEM, "content": "Be brief. "},
            {"role": USER, "content": "What is 12+3?\n"},
            {"role": ASSISTANT, "content": "It is 15."},
            {"role": USER, "content": " Why?"},
        ]
        expected = self.prompt("Be brief. ", " Why?", [Turn(user="What is 12+3?\n", answer="It is 15.")])
        found: Any = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        if found != expected:
            raise ModelError(
                f"the tokenizer's chat template gives {self.decode_marked(found)!r} and the renderer "
                f"{self.decode_marked(expected)!r}, or other ids for the same text: the exported student "
                "would be asked otherwise than it was trained. Prepare the tokenizer with this format; if it "
                "was, its control tokens strip the text beside them, so use another tokenizer"
            )


def _refuse_invalid(fields: Mapping[str, str | None]) -> None:
    for name, text in fields.items():
        try:
            if text is not None or name != "answer":
                str.encode(text)  # type: ignore[arg-type]
        except UnicodeEncodeError as error:
            raise DataError(
                f"{name} is not valid Unicode ({error.reason} at character {error.start}); repair the row"
            ) from None
        except TypeError:
            raise DataError(f"{name} is {type(text).__name__}, not text; repair the row") from None
