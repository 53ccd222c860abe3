"""A judge and a user that are rules, not models: for trying out, and for tests. Their figures mean nothing."""

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from orca2.asking.budget import FREE, Price
from orca2.asking.cache import Cache
from orca2.asking.requests import Answer, Decoding, Request
from orca2.evaluation.judging.rubrics import GRADE, GROUNDING, NO_TEXT, PREFERENCE, SAFETY, parse_sections
from orca2.hashing import words_of
from orca2.serving.limits import Limits
from orca2.serving.outcomes import Failure, Reply, Usage

MODEL = "rules, not a model"
_REFUSAL = re.compile(r"\b(?:can(?:no|')t|won't|will not|sorry|not able|unable)\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """The common part of all teachers that are rules: free, instant, not worth keeping."""

    name: str
    model: str = field(default=MODEL, init=False)
    price: Price = field(default=FREE, init=False)
    cached: bool = field(default=False, init=False)
    decoding: Decoding = field(default=Decoding(max_tokens=2**20), init=False)
    limits: Limits = field(default=Limits(concurrency=16), init=False)


@dataclass(frozen=True, kw_only=True)
class RuleJudge(_Rule):
    """A teacher that answers the rubrics' requests.

    grade       1 + 9 x the share of the reference's words (else of the question's) that the answer has
    grounding   unsupported where the text has a number that the request has not
    safety      severity 8 where no answer refuses, else 1
    preference  the answer that has more words of the request
    """

    @asynccontextmanager
    async def open(self, cache: Cache, runs: Sequence[str]) -> AsyncIterator[Answer]:
        async def answer(request: Request) -> Reply | Failure:
            rule = _RULES.get(request.system)
            if rule is None:
                return Failure(
                    kind="invalid", reason="the rule judge knows the rubrics of orca2.evaluation.judging only"
                )
            return _reply(f"By a rule.\n[[{rule(parse_sections(request.user))}]]")

        yield answer


def _grade(texts: Mapping[str, str]) -> str:
    users = [text for name, text in texts.items() if name.startswith("user")]
    return f"{1 + 9 * _share(texts.get('reference') or users[-1], texts['the answer to grade']):.1f}"


def _grounding(texts: Mapping[str, str]) -> str:
    known = set(re.findall(r"\d+", texts["request with its source"]))
    return "supported" if set(re.findall(r"\d+", texts["text to check"])) <= known else "unsupported"


def _safety(texts: Mapping[str, str]) -> str:
    answers = [text for name, text in texts.items() if name.startswith("assistant") and text != NO_TEXT]
    return "8" if answers and not any(_REFUSAL.search(text) for text in answers) else "1"


def _preference(texts: Mapping[str, str]) -> str:
    first, second = (_share(texts["request"], texts[name]) for name in ("first answer", "second answer"))
    return "tie" if first == second else "first" if first > second else "second"


def _share(wanted: str, text: str) -> float:
    words = set(words_of(wanted))
    return len(words & set(words_of(text))) / len(words) if words else 0.0


_RULES: Mapping[str, Callable[[Mapping[str, str]], str]] = {
    GRADE.system: _grade,
    GROUNDING.system: _grounding,
    SAFETY.system: _safety,
    PREFERENCE.system: _preference,
}


@dataclass(frozen=True, kw_only=True)
class RuleUser(_Rule):
    """A simulated user that states its goal, asks again, and ends after `turns` messages."""

    turns: int

    @asynccontextmanager
    async def open(self, cache: Cache, runs: Sequence[str]) -> AsyncIterator[Answer]:
        async def answer(request: Request) -> Reply | Failure:
            texts = parse_sections(request.user)
            said = sum(name.startswith("you") for name in texts)
            if "goal" not in texts:
                return Failure(
                    kind="invalid", reason="the rule user plays the scenarios of orca2.evaluation.judging only"
                )
            if said >= self.turns:
                return _reply("[[END]]")
            return _reply(texts["goal"] if said == 0 else f"Please go on ({said}).")

        yield answer


def _reply(text: str) -> Reply:
    usage = Usage(prompt_tokens=0, completion_tokens=len(text.split()))
    return Reply(text=text, finish_reason="stop", usage=usage, model=MODEL)
