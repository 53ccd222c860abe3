"""A conversation with a student, line by line; the prompts are those of training and evaluation."""

import re
from collections.abc import Callable, Iterator

from orca2.generation import Backend, Chat
from orca2.reasoning import split
from orca2.records import Turn
from orca2.terminal import visible

FORGET = "/new"
"""What a person types to begin a new conversation."""
_COMMAND = re.compile(r"/[a-z]+(\s|$)")
"""A command; a path is not one, because it has a second slash."""


def converse(
    backend: Backend, system: str, lines: Iterator[str], tell: Callable[[str], None], max_new_tokens: int
) -> list[Turn]:
    """Answer line after line, each with the turns before it; the turns since the last `/new`.

    `max_new_tokens`: of one answer. A conversation that no longer fits the student's context begins anew, and says so.
    A first word such as `/help` is a command and not a question, and only `/new` is known; a space before it makes it
    part of the text. Printed text shows control characters.
    Raises ModelError where the backend cannot go on.
    """
    history: list[Turn] = []
    for line in lines:
        if line.strip() == FORGET:
            history = []
            tell("(a new conversation)")
            continue
        if not line.strip():
            continue
        if _COMMAND.match(line):
            tell(
                f"({line.split()[0]} is not a command; {FORGET} begins a new conversation. A space before it asks it.)"
            )
            continue
        chat = Chat(system=system, user=line, history=tuple(history), max_new_tokens=max_new_tokens)
        if history and backend.context is not None and backend.prompt_tokens(chat) >= backend.context:
            history = []
            chat = Chat(system=system, user=line, max_new_tokens=max_new_tokens)
            tell("(the context is full: a new conversation)")
        ((_, reply),) = backend.answer([chat])
        tell(visible(reply.text) + (" … (cut at the limit)" if reply.finish_reason == "length" else ""))
        # Reasoning models are trained on histories without the traces of earlier turns.
        history.append(Turn(user=line, answer=split(reply.text).answer))
    return history
