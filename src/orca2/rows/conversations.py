"""The turns of a stored conversation -> system message, history, question and answer.

    turns as stored                                                   what trains
    system user assistant user assistant                              the last answer; with `loss_on_history` both
    developer user assistant                                          as with `system`
    user assistant user                                               the last turn is left out: nobody answers it
    assistant user assistant                                          the first turn is left out: it answers nothing
    user user assistant                                               joined by a blank line, or rejected
    user assistant user assistant(weight 0)                           up to the last answer with weight: the first one
    user assistant(tool_calls) tool assistant                         rejected: turns of tools are not trained on

A turn says who speaks in `role` or `from`, and what in `content` or `value`: a text, or a list of text parts. What is
left out and what is not used is noted, so that nothing is lost in silence.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from orca2.errors import DataError
from orca2.records import Turn

Note = tuple[str, str]
"""(what was done with a row, the name of the column or key that it was done with, or nothing)."""
RepeatedTurns = Literal["join", "reject"]
"""What is done with several turns in a row of one speaker."""

UNUSED_KEY = "have keys of turns that are not used"
_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot", "bard", "bing"), "assistant"),
}
_TOOLS = frozenset(("tool", "tool_call", "tool_calls", "tool_response", "observation", "ipython"))
_FUNCTIONS = frozenset(("function", "function_call", "function_response"))
_CALLS = ("tool_calls", "function_call")
_WEIGHTS = ("weight", "train", "loss")
"""Keys that say whether an answer bears loss: OpenAI's, axolotl's and ms-swift's."""
_TRACES = ("reasoning_content", "reasoning", "thinking")
_TEXT_PARTS = ("text", "input_text", "output_text")
_KNOWN = frozenset(("role", "from", "content", "value", *_CALLS, *_WEIGHTS, *_TRACES))
_BETWEEN_PARTS = "\n"
"""Separator with which vLLM joins the text parts of a message for templates that want one text."""
_BETWEEN_TURNS = "\n\n"


class Said(NamedTuple):
    """One stored turn."""

    number: int
    """Number of the turn, from 1."""
    role: str
    text: str
    reasoning: str = ""
    loss: bool = True
    """Whether an answer may bear loss."""


@dataclass(frozen=True, kw_only=True)
class StoredConversation:
    """What a stored conversation holds."""

    system: str
    turns: tuple[Turn, ...]
    """At least one turn; the answer of the last one bears loss."""
    reasoning: str
    """The trace of the last answer."""
    notes: list[Note] = field(default_factory=list)


def read_conversation(turns: Any, repeated: RepeatedTurns, prompt: int = 0) -> StoredConversation:
    """`prompt`: so many turns at the start bear no loss. Raises DataError with the reason why nothing can train."""
    listed = as_list(turns, "the conversation")
    if not listed:
        raise DataError("the conversation is empty")
    notes: list[Note] = []
    said = [_said(number, turn, notes) for number, turn in enumerate(listed, start=1)]
    said = [each._replace(loss=each.loss and each.number > prompt) for each in said]
    system, said = _without_system(said, repeated)
    whole = len(said)
    while said and said[0].role == "assistant":
        said = said[1:]
    if len(said) < whole:
        notes.append(("begin with the assistant: that turn is left out", ""))
    whole = len(said)
    while said and said[-1].role == "user":
        said = said[:-1]
    if not said:
        raise DataError("no turn of the user has an answer after it")
    if len(said) < whole:
        notes.append(("end with the user: that turn is left out", ""))
    said = _joined(said, repeated, notes)
    pairs = [
        (Turn(user=user.text, answer=answer.text, loss=answer.loss), answer.reasoning)
        for user, answer in zip(said[::2], said[1::2], strict=True)
    ]
    whole = len(pairs)
    while pairs and not pairs[-1][0].loss:
        pairs.pop()
    if not pairs:
        raise DataError("no answer of the conversation bears loss: each has weight 0 or belongs to the prompt")
    if len(pairs) < whole:
        notes.append(("end with turns of weight 0: they are left out, as nothing after them is learnt", ""))
    return StoredConversation(
        system=system, turns=tuple(turn for turn, _ in pairs), reasoning=pairs[-1][1], notes=notes
    )


def read_history(value: Any) -> tuple[Turn, ...]:
    """Earlier turns in one of three forms: objects with `user` and `answer`, pairs, or a list of messages.

    Raises DataError for anything else.
    """
    turns = as_list(value, "history")
    if turns and all(isinstance(turn, Mapping) and {"role", "from"} & set(turn) for turn in turns):
        return read_conversation(turns, "reject").turns
    pairs = []
    for turn in turns:
        if isinstance(turn, Mapping) and {"user", "answer"} <= set(turn):
            pairs.append(Turn(user=turn["user"], answer=turn["answer"], loss=turn.get("loss") is not False))
        elif isinstance(turn, Sequence) and not isinstance(turn, str) and len(turn) == 2:
            pairs.append(Turn(user=turn[0], answer=turn[1]))
        else:
            raise DataError("history must be a list of objects with 'user' and 'answer', of pairs, or of messages")
    return tuple(pairs)


def as_list(value: Any, what: str) -> list[Any]:
    """A list, or the JSON text of one, as tables hold it. Raises DataError."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{what} is a text that is not JSON: {error}") from None
    if not isinstance(value, list):
        raise DataError(f"{what} must be a list, not {'nothing' if value is None else type(value).__name__}")
    return value


def _said(number: int, turn: Any, notes: list[Note]) -> Said:
    if not isinstance(turn, Mapping):
        raise DataError(f"turn {number} is not an object with 'role' and 'content', or 'from' and 'value'")
    given = {key: value for key, value in turn.items() if value is not None}
    role = given.get("role", given.get("from"))
    if not isinstance(role, str):
        raise DataError(f"turn {number} has no text 'role' or 'from'")
    if role in _TOOLS | _FUNCTIONS or any(given.get(key) for key in _CALLS):
        raise DataError(f"turn {number} is a call or a reply of a tool; turns of tools are not trained on")
    if role not in _ROLES:
        raise DataError(f"turn {number} has the role {role!r}; known are {', '.join(_ROLES)}")
    role = _ROLES[role]
    text, reasoning = _content(number, given.get("content", given.get("value")))
    if role == "assistant":
        traces = [given[key] for key in _TRACES if isinstance(given.get(key), str)]
        reasoning = reasoning or next(iter(traces), "")
        loss = all(_bears_loss(number, key, given[key]) for key in _WEIGHTS if key in given)
        unused = given.keys() - _KNOWN
    else:
        loss = True
        unused = {key for key, value in given.items() if key not in _KNOWN or (key in (*_WEIGHTS, *_TRACES) and value)}
    notes += [(UNUSED_KEY, f"{key} of {role}") for key in sorted(unused) if given[key] not in ("", [], {})]
    return Said(number, role, text, reasoning, loss)


def _content(number: int, content: Any) -> tuple[str, str]:
    """The text of a turn, and its trace where that is a part of its own."""
    if isinstance(content, str):
        return content, ""
    if not isinstance(content, list) or not content:
        raise DataError(f"turn {number} has no text 'content' or 'value'")
    texts: list[str] = []
    traces: list[str] = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
            continue
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        if kind in _TEXT_PARTS and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind in ("thinking", "reasoning") and isinstance(part.get("thinking", part.get("text")), str):
            traces.append(part.get("thinking", part.get("text")))
        else:
            raise DataError(f"turn {number} has a part of type {kind!r} in its content; only texts are trained on")
    return _BETWEEN_PARTS.join(texts), _BETWEEN_TURNS.join(traces)


def _bears_loss(number: int, key: str, weight: Any) -> bool:
    if isinstance(weight, (bool, int, float)) and weight in (0, 1):
        return bool(weight)
    raise DataError(f"turn {number} has {key} {weight!r}; only 0 (no loss on it) and 1 can be honoured")


def _without_system(said: list[Said], repeated: RepeatedTurns) -> tuple[str, list[Said]]:
    """The system message at the start, and the turns after it."""
    first = next((at for at, each in enumerate(said) if each.role != "system"), len(said))
    if first > 1 and repeated == "reject":
        raise DataError(f"turns 1 to {first} are all system messages; repeated_turns=join joins them")
    for each in said[first:]:
        if each.role == "system":
            raise DataError(f"turn {each.number} is a system message inside the conversation, not at its start")
    return _BETWEEN_TURNS.join(each.text for each in said[:first]), said[first:]


def _joined(said: list[Said], repeated: RepeatedTurns, notes: list[Note]) -> list[Said]:
    """The turns with those of one speaker in a row made one. Raises DataError where they must not be."""
    joined: list[Said] = []
    for each in said:
        if not joined or joined[-1].role != each.role:
            joined.append(each)
            continue
        last = joined[-1]
        where = f"turns {each.number - 1} and {each.number} are both the {each.role}'s"
        if repeated == "reject":
            raise DataError(f"{where}; repeated_turns=join joins them")
        if last.loss != each.loss:
            raise DataError(f"{where}, one with loss and one without, so they are not a single turn")
        joined[-1] = last._replace(
            text=_BETWEEN_TURNS.join((last.text, each.text)),
            reasoning=_BETWEEN_TURNS.join(filter(None, (last.reasoning, each.reasoning))),
        )
    if len(joined) < len(said):
        notes.append(("have several turns of one speaker in a row: they are joined", ""))
    return joined
