"""A conversation with a student, line by line; the prompts are those of training and evaluation."""

from collections.abc import Callable, Iterator

from orca2.generation import Backend, Chat
from orca2.records import Turn

FORGET = "/new"
"""What a person types to begin a new conversation."""


def converse(
    backend: Backend, system: str, lines: Iterator[str], tell: Callable[[str], None], max_new_tokens: int
) -> list[Turn]:
    """Answer line after line, each with the turns before it; the turns since the last `/new`.

    `max_new_tokens`: of one answer. A conversation that no longer fits the student's context begins anew, and says so.
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
        chat = Chat(system=system, user=line, history=tuple(history), max_new_tokens=max_new_tokens)
        if history and backend.context is not None and backend.prompt_tokens(chat) >= backend.context:
            history = []
            chat = Chat(system=system, user=line, max_new_tokens=max_new_tokens)
            tell("(the context is full: a new conversation)")
        ((_, reply),) = backend.answer([chat])
        tell(reply.text + (" … (cut at the limit)" if reply.finish_reason == "length" else ""))
        history.append(Turn(user=line, answer=reply.text))
    return history
