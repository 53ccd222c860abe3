"""A conversation keeps its turns, forgets when told, and begins anew when the context is full."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from orca2.chatting import converse
from orca2.generation import Chat, ChatReply


@dataclass
class EchoingBackend:
    """Answers with the question in capitals; counts a token for each character."""

    context: int | None = None
    identity: Mapping[str, str] = field(default_factory=dict)
    asked: list[Chat] = field(default_factory=list)

    def prompt_tokens(self, chat: Chat) -> int:
        return len(chat.user) + sum(len(turn.user) + len(turn.answer) for turn in chat.history)

    def answer(self, chats: Sequence[Chat]) -> Iterator[tuple[int, ChatReply]]:
        for index, chat in enumerate(chats):
            self.asked.append(chat)
            text = chat.user.upper()[: chat.max_new_tokens]
            reason = "stop" if len(text) == len(chat.user) else "length"
            yield (
                index,
                ChatReply(
                    text=text, finish_reason=reason, prompt="", prompt_tokens=0, answer_tokens=len(text), seconds=0.0
                ),
            )


def talk(backend: EchoingBackend, *lines: str, max_new_tokens: int = 100) -> list[str]:
    told: list[str] = []
    converse(backend, "Be brief.", iter(lines), told.append, max_new_tokens)
    return told


def histories(backend: EchoingBackend) -> list[list[str]]:
    return [[turn.user for turn in chat.history] for chat in backend.asked]


def test_each_question_comes_with_the_turns_before_it() -> None:
    """Without them the student would not know what "it" refers to."""
    backend = EchoingBackend()
    assert talk(backend, "a", "", "b", "/new", "c") == ["A", "B", "(a new conversation)", "C"]
    assert histories(backend) == [[], ["a"], []]
    assert {chat.system for chat in backend.asked} == {"Be brief."}


def test_a_full_context_begins_anew_and_says_so() -> None:
    """A prompt without room for an answer gets an empty one forever."""
    backend = EchoingBackend(context=5)
    assert talk(backend, "ab", "cd") == ["AB", "(the context is full: a new conversation)", "CD"]
    assert histories(backend) == [[], []]


def test_a_cut_answer_is_marked() -> None:
    """It would look like the student's whole answer."""
    assert talk(EchoingBackend(), "abcd", max_new_tokens=2) == ["AB … (cut at the limit)"]


def test_a_command_that_is_not_known_is_not_asked() -> None:
    """The student would answer `/help` with something, and the answer would stay in the conversation."""
    backend = EchoingBackend()
    told = talk(backend, "/help", "/exit now", "/etc/hosts", " /help", "/new")
    assert told[:2] == [
        "(/help is not a command; /new begins a new conversation. A space before it asks it.)",
        "(/exit is not a command; /new begins a new conversation. A space before it asks it.)",
    ]
    assert told[2:] == ["/ETC/HOSTS", " /HELP", "(a new conversation)"]
    assert [chat.user for chat in backend.asked] == ["/etc/hosts", " /help"]


def test_an_answer_cannot_steer_the_terminal() -> None:
    """A student that writes ESC could clear the screen, or set its title."""
    assert talk(EchoingBackend(), "\x1b[2j") == ["␛[2J"]
