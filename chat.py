"""Talk to a student.

One question a line. `/new` begins a new conversation, Ctrl-D ends.

    python chat.py student=runs/tiny-mixed-cautious
    python chat.py student=<hub id> format=own messages=empty    # a model of others
"""

from orca2.help import answer_help

answer_help(__file__)  # before torch and its like are imported, which takes seconds

import sys
from collections.abc import Iterator
from typing import Any

from lightning_modules.quiet import quiet_libraries
from orca2.chatting import FORGET, converse
from orca2.console import open_console
from orca2.settings import build_all, run_main


def main(cfg: Any) -> None:
    """Answer what is typed, or what is piped in, until it ends."""
    quiet_libraries()
    console = open_console()
    job = build_all(cfg)
    student = job["backend"].find(job["student"])
    name, system = next(iter(job["messages"].of(student.own_messages).items()))
    console.print(f"{student.name} under the message {name!r}. {FORGET}: a new conversation; Ctrl-D: the end.")
    with job["backend"].open(student, job["format"], 0) as backend:
        try:
            # Not `console.print`: the answer is text, whatever markup it looks like.
            converse(backend, system, typed(), lambda text: print(text, flush=True), job["max_new_tokens"])
        except KeyboardInterrupt:
            print()


def typed() -> Iterator[str]:
    """Lines from the terminal with a sign that asks for them, or from a pipe."""
    while True:
        try:
            yield input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return


if __name__ == "__main__":
    run_main("chat", main)
