"""Checks one answer by its kind: reads the final answer, compares it with the gold answers.

number       1,000.50 = 1000.5                   compared as exact decimals
choice       (B), B) its text, its text          compared as labels; yes_no alike
word list order                                  part by part, letter case aside
span         the Eiffel tower = Eiffel Tower     articles and case aside; a part or an extension is undecided
expression   60/19, 4*sqrt(3)                    exactly, or by math-verify
gym          as its generator's scorer says
text         undecided, unless it is the gold answer word for word
"""

import re
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

from orca2.answers.extraction import Extraction, extract, reader_of
from orca2.answers.extraction.quantities import whole_quantity
from orca2.answers.verification.expressions import ExpressionChecker
from orca2.answers.verification.gym_scorer import GymScorer
from orca2.answers.verification.hedges import hedge, other_label
from orca2.rows.items import Option, TaskItem

Outcome = Literal["right", "wrong", "undecided"]
OUTCOMES: tuple[Outcome, ...] = ("right", "wrong", "undecided")

GYM_SCORE = 0.99
"""The generators give partial scores to wrong answers; only full ones count."""

YES_NO = (Option("yes", "yes"), Option("no", "no"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether an answer is right, and why it was judged so."""

    outcome: Outcome
    reason: str
    value: str | None
    """What was read as the final answer."""


class Verifier:
    """Checks answers of every kind. Close it, or use it in a `with` block: it may own worker processes."""

    def __init__(self, timeout: float) -> None:
        """`timeout`: seconds for comparing two expressions, or for a generator's scorer. Raises ConfigError where it
        is not positive."""
        self.expressions = ExpressionChecker(timeout)
        self.gym = GymScorer(timeout)

    def check(self, item: TaskItem, answer: str) -> Verdict:
        """Raises ConfigError where a kind needs an extra that is not installed."""
        if not item.gold:
            return _undecided("no gold answer is known")
        if not answer.strip():
            return Verdict(outcome="wrong", reason="empty", value=None)
        if any(_same_text(answer, gold) for gold in item.gold) and item.answer_kind in (
            "text",
            "span",
            "gym",
        ):
            return Verdict(outcome="right", reason="the gold answer word for word", value=answer.strip())
        if item.answer_kind == "text":
            return _undecided("free text; no rule can check it")
        if item.answer_kind == "gym":
            return _check_gym(item, answer, self.gym)
        return self._check_extracted(item, answer)

    def close(self) -> None:
        self.expressions.close()
        self.gym.close()

    def __enter__(self) -> "Verifier":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_extracted(self, item: TaskItem, answer: str) -> Verdict:
        extraction = _read(item, answer)
        if not extraction.ok or extraction.span is None:
            return _undecided(f"no single final answer was found ({extraction.rule})")
        value = ", ".join(extraction.value)
        numeric = item.answer_kind in ("number", "order", "expression", "span")
        reason = hedge(answer, extraction.span, number=numeric)
        if reason is None and (options := _options(item)):
            chosen = next(option for option in options if option.label == value)
            reason = other_label(answer, extraction.span, chosen, [option.label for option in options])
        if reason is not None:
            return _undecided(reason, value)
        outcomes = {self._compare(item, gold, extraction.value) for gold in item.gold}
        outcome = next(outcome for outcome in ("right", "undecided", "wrong") if outcome in outcomes)
        shown = item.gold[0] if len(item.gold) == 1 else f"one of {list(item.gold)}"
        return Verdict(outcome=outcome, reason=f"read {value!r}, gold is {shown}", value=value)

    def _compare(self, item: TaskItem, gold: str, value: tuple[str, ...]) -> Outcome:
        if item.answer_kind == "number":
            return _outcome(value[0] == whole_quantity(gold))
        if item.answer_kind == "yes_no":
            return _outcome(value[0] == gold.casefold().rstrip("."))
        if item.answer_kind == "choice":
            return _outcome(value[0] == gold)
        if item.answer_kind == "expression":
            equal = self.expressions.equal(gold, "; ".join(value))
            return "undecided" if equal is None else _outcome(equal)
        if item.answer_kind in ("list", "order"):
            parts = re.split(r"[\s,]+", gold.strip()) if item.answer_kind == "list" else [gold]
            return _outcome([_bare_part(part) for part in value] == [_bare_part(part) for part in parts])
        return _compare_spans(gold, "; ".join(value))


def _outcome(right: bool) -> Outcome:
    return "right" if right else "wrong"


def _undecided(reason: str, value: str | None = None) -> Verdict:
    return Verdict(outcome="undecided", reason=reason, value=value)


def _read(item: TaskItem, answer: str) -> Extraction:
    options = {option.label: option.text for option in _options(item)}
    return extract(answer, reader_of(item.answer_kind, item.user, options), item.user)


def _options(item: TaskItem) -> tuple[Option, ...]:
    return YES_NO if item.answer_kind == "yes_no" else item.options


def _same_text(one: str, other: str) -> bool:
    return " ".join(one.split()) == " ".join(other.split())


def _compare_spans(gold: str, value: str) -> Outcome:
    left, right = _bare_span(gold), _bare_span(value)
    if left == right:
        return "right"
    # `Paris` and `Paris, France` may mean the same: a rule cannot tell.
    return "undecided" if not left or not right or left in right or right in left else "wrong"


def _bare_part(text: str) -> str:
    return text.casefold().strip("*_`.")


def _bare_span(text: str) -> str:
    text = " ".join(text.casefold().split()).strip("\"'“”‘’`*_ ").rstrip(".!,;")
    return re.sub(r"^(?:the|a|an) ", "", text)


_ANSWER_MARK = re.compile(r"^[ \t*_#]*(?:final )?answer[ \t*_]*:", re.IGNORECASE | re.MULTILINE)

_UNSURE = re.compile(r"\b(?:not|never|or|either|neither|maybe|perhaps|possibly|about|roughly)\b|n't\b", re.IGNORECASE)


def _check_gym(item: TaskItem, answer: str, gym: GymScorer) -> Verdict:
    marks = list(_ANSWER_MARK.finditer(answer))
    if len(marks) != 1:
        return _undecided(f"{len(marks)} lines begin with 'Answer:'; one is needed")
    value = answer[marks[0].end() :].strip("*_ \n")
    if not value:
        return _undecided("nothing follows 'Answer:'")
    if any(_same_text(value, gold) for gold in item.gold):
        return Verdict(outcome="right", reason="the gold answer word for word", value=value)
    said = _UNSURE.search(value)
    if said and not any(_UNSURE.search(gold) for gold in item.gold):
        return _undecided(f"{said[0]!r} stands beside the value, and many scorers read past it", value)
    score = gym.score(item, value)
    if score is None:
        return _undecided("the generator's scorer cannot read it in time", value)
    return Verdict(outcome=_outcome(score >= GYM_SCORE), reason=f"the generator's scorer gives {score:g}", value=value)
