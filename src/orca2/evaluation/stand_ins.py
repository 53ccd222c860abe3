"""Three answerers without a model, which make the evaluator itself testable.

    gold     the right answer in one of many wordings, with reasoning that names others   every score 1
    random   a seeded guess in the right format                                            chance
    silent   nothing                                                                       every score 0

Each is a pure function of (sample, turn): it does not matter in which order or batch samples are answered.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from orca2.evaluation.benchmark import Sample
from orca2.records import AnswerKind


class StandIn(Protocol):
    """Answers a sample in place of a student."""

    @property
    def name(self) -> str: ...

    def answer(self, sample: Sample, turn: int) -> str:
        """The text of turn number `turn`, from 0."""
        ...


@dataclass(frozen=True, slots=True)
class GoldAnswers:
    """Right answers. `wording` picks one for every sample; None draws it by the sample's id."""

    wording: int | None = None
    name: str = "gold"

    def answer(self, sample: Sample, turn: int) -> str:
        rng = Random(f"gold/{sample.id}/{turn}")
        wordings = gold_wordings(sample)
        index = rng.randrange(len(wordings)) if self.wording is None else self.wording % len(wordings)
        return wordings[index]


@dataclass(frozen=True, slots=True)
class RandomAnswers:
    """A guess among the possible answers, in the format that the prompt asks for."""

    seed: int = 0
    name: str = "random"

    def answer(self, sample: Sample, turn: int) -> str:
        rng = Random(f"random/{self.seed}/{sample.id}/{turn}")
        return f"Answer: {_guess(sample, rng)}"


@dataclass(frozen=True, slots=True)
class Silent:
    """No answer."""

    name: str = "silent"

    def answer(self, sample: Sample, turn: int) -> str:
        return ""


def gold_wordings(sample: Sample) -> list[str]:
    """Every wording of the right answer that a reader of this kind of answer must understand."""
    return _strict_wordings(sample) if sample.strict else _WORDINGS[sample.kind](sample)


def _guess(sample: Sample, rng: Random) -> str:
    labels = list(sample.choices)
    if sample.kind == "order":
        return ", ".join(rng.sample(labels, len(labels)))
    if labels:
        return rng.choice(labels)
    if sample.kind == "number":
        return str(rng.randrange(100))
    if sample.kind == "yes_no":
        return rng.choice(("yes", "no"))
    words = [word for word in sample.turns[0].split() if word.isalpha()]
    return rng.choice(words or ["none"])


def _choice_wordings(sample: Sample) -> list[str]:
    """The reasoning before the answer names every other option, and decides nothing."""
    label = sample.gold[0][0]
    text = sample.choices[label].strip()
    others = [other for other in sample.choices if other != label]
    reasoning = "Let's look at each one. A first look favours " + " and ".join(f"({other})" for other in others) + "."
    wordings = [
        f"Answer: {label}",
        f"{reasoning}\n\nAnswer: ({label})",
        f"{reasoning} That does not hold up.\n\n**Answer:** {label}",
        f"{reasoning}\n\n**Final Answer: {label}.**",
        f"{reasoning}\nANSWER:\n{label}",
        f"### Reasoning\n{reasoning}\n\n### Answer\n**({label})**",
        f"{reasoning} So the correct answer is ({label}).",
        f"{reasoning} On reflection, the best choice is option {label}.",
        f"{reasoning}\n\n$\\boxed{{{label}}}$",
        f"{reasoning}\n\nFinal answer: $\\boxed{{\\text{{{label}}}}}$",
        f"{reasoning} I choose ({label}).",
        f"({label})",
        f"{label}\n\nThis follows from what is given.",
        f"#### {label}",
        f"Answer: The correct option is ({label}).",
        f"Answer: Let's go through them. {reasoning}\nSo the answer is ({label}).",
        f"{reasoning}\n\n**Correct option:** ({label})",
        f"{reasoning}\n\nOption: {label}",
    ]
    if len(label) == 1:
        wordings += [
            f"Option {label} is the correct answer.",
            f"{reasoning}\n\nAnswer: {label}) {text}",
            f"{label}. {text}",
            f"answer: {label.lower()}",
        ]
    return wordings


def _single_wordings(sample: Sample, plain: str, styled: Sequence[str] = ()) -> list[str]:
    """Announcements that hold any short answer."""
    reasoning = "Let's work it out. One might first think of 7 or 12, then of 3."
    return [
        f"Answer: {plain}",
        f"{reasoning}\n\nAnswer: {plain}",
        f"{reasoning}\n\n**Answer:** {plain}",
        f"{reasoning}\n\n**Final Answer:** **{plain}**",
        f"{reasoning}\n\nFinal answer:\n{plain}",
        f"{reasoning}\n\n### Answer\n{plain}",
        f"{reasoning}\n#### {plain}",
        f"ANSWER: {plain}",
        f"{reasoning}\n\nThe final answer: {plain}",
        f"Step 1: read the question.\nStep 2: answer it.\n\n__Answer__: {plain}",
        f"Answer: The answer is {plain}",
        f"Answer: Let's think step by step. It takes 3 steps.\nSo the final answer is {plain}",
        *styled,
    ]


def _number_wordings(sample: Sample) -> list[str]:
    number = sample.gold[0][0]
    grouped = f"{int(number):,}" if number.lstrip("-").isdigit() else number
    return _single_wordings(
        sample,
        number,
        (
            f"Answer: ${grouped}" if not number.startswith("-") else f"Answer: {grouped}",
            f"We take 5 of 20, then the rest. So the answer is {grouped}.",
            f"First 2 + 3 = 5. The final answer is {number} in all, because 5 were taken.",
            f"3 of them stay.\n\n$\\boxed{{{grouped}}}$",
            f"There were 4 and 9.\n\nAnswer: 1 + 1 = {number}",
            f"There were 4 and 9.\nTherefore, it comes to {grouped} in the end.",
            f"Answer: {number}.00" if "." not in number else f"Answer: {number}",
            f"Answer: In the end she gets {grouped} of them.",
            f"Answer: x = {number}\n\nOf 16, 9 were taken.",
            f"### Answer\nAfter the last sale, **{grouped}** remain.",
            f"Answer:\nThere are 16 of them every day.\n9 are sold.\nThe answer is {grouped}.",
            f"Answer: She has 16 of them. She sells 9.\nTherefore, she has {grouped} now.",
            number,
        ),
    )


def _span_wordings(sample: Sample) -> list[str]:
    """Wordings of each annotator's answer."""
    wordings = []
    for plain in map("; ".join, sample.gold):
        styled = (f"It is stated in the passage. So the answer is {plain}.", f"Answer: {plain}.")
        wordings += _single_wordings(sample, plain, styled)
    return wordings


def _word_wordings(sample: Sample) -> list[str]:
    word = sample.gold[0][0]
    return _single_wordings(
        sample, word, (word, f'Answer: "{word}"', f"Answer: {word.upper()}", f"The missing word is {word}.")
    )


def _list_wordings(sample: Sample) -> list[str]:
    plain = " ".join(sample.gold[0])
    listed = ", ".join(sample.gold[0])
    return _single_wordings(sample, plain, (f"Answer: {listed}", plain))


def _order_wordings(sample: Sample) -> list[str]:
    order = sample.gold[0]
    styles = (
        ", ".join(order),
        " ".join(order),
        " -> ".join(order),
        ", ".join(f"({label})" for label in order),
        ", ".join(f"({label})" for label in order[:-1]) + f", and ({order[-1]})",
    )
    return [
        *_single_wordings(sample, styles[0]),
        *(f"(A) sets the scene.\n\nAnswer: {style}" for style in styles),
        f"The correct order is {styles[0]}.",
        styles[0],
    ]


def _text_wordings(sample: Sample) -> list[str]:
    return [sample.gold[0][0]]


def _chat_wordings(sample: Sample) -> list[str]:
    return [f"Here is a reply to: {sample.turns[0]}", *filter(None, sample.metadata["reference"])]


def _strict_wordings(sample: Sample) -> list[str]:
    """The families demand one strict format, so only what stands before it varies."""
    final = f"Answer: {sample.gold[0][0]}"
    return [
        final,
        *(f"{before}\n{final}" for before in ("Step 1: look.", "Recall: it is given.", "Guess: none\nCheck: no")),
    ]


_WORDINGS: Mapping[AnswerKind, Callable[[Sample], list[str]]] = {
    "choice": _choice_wordings,
    "number": _number_wordings,
    "span": _span_wordings,
    "word": _word_wordings,
    "list": _list_wordings,
    "order": _order_wordings,
    "text": _text_wordings,
    "chat": _chat_wordings,
}
