"""The three stand-ins as backends: `backend=gold|random|silent` measures the evaluator itself."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, get_args

from orca2.errors import ConfigError
from orca2.evaluation.benchmark import Sample
from orca2.evaluation.stand_ins import GoldAnswers, RandomAnswers, Silent, StandIn
from orca2.generation import Backend, Chat, ChatReply, Format, StudentFiles

StandInName = Literal["gold", "random", "silent"]


@dataclass(frozen=True, kw_only=True)
class StandInSpec:
    """A stand-in for a student; `student=` may be left out, and is ignored.

    Raises:
        ConfigError: there is no such stand-in.
    """

    name: StandInName
    seed: int

    def __post_init__(self) -> None:
        if self.name not in get_args(StandInName):
            raise ConfigError(f"backend name {self.name!r} is not a stand-in; choose from {get_args(StandInName)}")

    def find(self, student: str | None) -> StudentFiles:
        return StudentFiles(name=self.name, location="", fingerprint="", own_messages={})

    def open(self, student: StudentFiles, format: Format, local_rank: int) -> AbstractContextManager[Backend]:
        stand_ins: dict[StandInName, StandIn] = {
            "gold": GoldAnswers(),
            "random": RandomAnswers(self.seed),
            "silent": Silent(),
        }
        return nullcontext(StandInBackend(stand_ins[self.name], self.seed))


class StandInBackend:
    """Answers from the sample that a chat is about. Tokens are not counted: there is no tokenizer."""

    def __init__(self, stand_in: StandIn, seed: int) -> None:
        self._stand_in = stand_in
        self.identity: Mapping[str, str] = {"stand_in": stand_in.name, "seed": str(seed)}
        self.context: int | None = None

    def prompt_tokens(self, chat: Chat) -> int:
        return 0

    def answer(self, chats: Sequence[Chat]) -> Iterator[tuple[int, ChatReply]]:
        for index, chat in enumerate(chats):
            began = time.monotonic()
            assert isinstance(chat.about, Sample)
            yield (
                index,
                ChatReply(
                    text=self._stand_in.answer(chat.about, len(chat.history)),
                    finish_reason="stop",
                    prompt=f"{chat.system}\n\n{chat.user}".strip(),
                    prompt_tokens=0,
                    answer_tokens=0,
                    seconds=time.monotonic() - began,
                ),
            )
