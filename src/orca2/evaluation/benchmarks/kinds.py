"""What a benchmark's rows must hold for each kind of answer, and how that answer is asked for, read and scored.

choice   one labelled option            multiple choice, yes or no
number   one number                     GSM8K
span     one or more texts              DROP
word     one word                       LAMBADA
list     a row of words or brackets     two free-answer tasks of BBH
order    all labels in the right order  story ordering
text     free text with references      summaries and notes: overlap scores, then a judge
chat     free text                      MT-Bench: only a judge
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from orca2.answers.extraction import NOTHING, Extraction, extract, list_reader, reader_of
from orca2.answers.extraction.numbers import plain_number
from orca2.errors import ConfigError, DataError
from orca2.evaluation import metrics
from orca2.evaluation.benchmark import Sample
from orca2.records import AnswerKind
from orca2.rows.layouts import FINAL_MARK

Fields = Mapping[str, Any]
"""Column -> value of one row; None or no entry where the row lacks it."""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True)
class Filled:
    """What a kind makes of a row."""

    texts: Mapping[str, str]
    """Texts for the prompt's named places."""
    gold: tuple[tuple[str, ...], ...]
    choices: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    later_turns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KindRules:
    """What holds for one kind of answer."""

    columns: frozenset[str]
    places: frozenset[str]
    """Names that a prompt may use in braces; each is filled from the row."""
    metrics: tuple[str, ...]
    fill: Callable[[Fields, Random | None], Filled]
    """(row, shuffler or None) -> what the sample holds. Raises DataError with the reason for a malformed row."""
    read: Callable[[str, Sample], Extraction]
    score: Callable[[tuple[str, ...], Sample], dict[str, float]]


def _need(fields: Fields, column: str) -> Any:
    value = fields.get(column)
    if value is None or (isinstance(value, (str, list, dict)) and not value):
        raise DataError(f"no {column}")
    return value


def _text(fields: Fields, column: str) -> str:
    return str(_need(fields, column)).strip()


# Choice ---------------------------------------------------------------------------------------------------


def _fill_choice(fields: Fields, shuffler: Random | None) -> Filled:
    options, labels, right = _options(fields)
    if any(not option.strip() for option in options):
        raise DataError("an option is empty")
    order = list(range(len(options)))
    if shuffler:
        shuffler.shuffle(order)
        labels = list(LETTERS[: len(options)])
    choices = {label: options[index].strip() for label, index in zip(labels, order, strict=True)}
    passage = str(fields.get("passage") or "").strip()
    texts = {
        "passage": f"{passage}\n\n" if passage else "",
        "question": _text(fields, "question"),
        "options": _listed(choices),
        "hint": _choice_hint(labels),
    }
    return Filled(texts, ((labels[order.index(right)],),), choices)


def _listed(choices: Mapping[str, str]) -> str:
    return "\n".join(f"- {label}" if label == text else f"({label}) {text}" for label, text in choices.items())


def _read_choice(text: str, sample: Sample) -> Extraction:
    # The options alone are blanked too: one of MMLU's reads "(C) is right.", which would pass for a verdict.
    turn = sample.turns[-1]
    return extract(text, reader_of(sample.kind, turn, sample.choices), turn, _listed(sample.choices))


def _choice_hint(labels: list[str]) -> str:
    if any(len(label) > 1 for label in labels):
        return f'Finish with one line that says "Answer:" and then {" or ".join(labels)}.'
    noun = "number" if labels[0].isdigit() else "letter"
    return f'Finish with one line "Answer: (X)", where X is the {noun} of the right option.'


def _options(fields: Fields) -> tuple[list[str], list[str], int]:
    """Option texts, their labels, and the index of the right one, which a row names in one of four ways."""
    scores = fields.get("scores")
    onehot: list[Any] | None
    if isinstance(scores, Mapping):
        options, onehot = [str(text) for text in scores], list(scores.values())
    else:
        options, onehot = (
            [str(text) for text in _need(fields, "options") if text is not None],
            fields.get("onehot"),
        )
    labels = [str(label) for label in fields.get("labels") or LETTERS[: len(options)]]
    if len(labels) != len(options) or len(set(labels)) != len(labels) or len(options) < 2:
        raise DataError(f"{len(options)} options with labels {labels}")
    if onehot is not None:
        right = [index for index, value in enumerate(onehot) if float(value) == 1]
        if len(right) != 1 or len(onehot) != len(options):
            raise DataError(f"{len(right)} of {len(options)} options are marked right; one is needed")
        return options, labels, right[0]
    if fields.get("index") not in (None, ""):
        index = int(fields["index"])
        if not 0 <= index < len(options):
            raise DataError(f"right option {index} of {len(options)} does not exist")
        return options, labels, index
    label = _text(fields, "label")
    if label not in labels:
        raise DataError(f"right label {label!r} is not one of {labels}")
    return options, labels, labels.index(label)


# Values --------------------------------------------------------------------------------------------------


def _fill_number(fields: Fields, _: Random | None) -> Filled:
    stated = _text(fields, "answer").rpartition(FINAL_MARK)[2].strip()
    number = plain_number(stated)
    if number is None:
        raise DataError(f"answer {stated[:40]!r} is not a number")
    hint = 'Finish with one line "Answer: N", where N is the final number alone.'
    return Filled({"question": _text(fields, "question"), "hint": hint}, ((number,),))


def _read_value(text: str, sample: Sample) -> Extraction:
    turn = sample.turns[-1]
    return extract(text, reader_of(sample.kind, turn, sample.choices), turn)


def _fill_span(fields: Fields, _: Random | None) -> Filled:
    answers = [tuple(str(span).strip() for span in spans if str(span).strip()) for spans in _need(fields, "answers")]
    gold = tuple(dict.fromkeys(answer for answer in answers if answer))
    if not gold:
        raise DataError("no answer")
    hint = (
        'Finish with one line that says "Answer:" and then only the answer, which is a number, a date, or words '
        "from the passage. Separate several answers with semicolons."
    )
    texts = {
        "passage": f"{_text(fields, 'passage')}\n\n",
        "question": _text(fields, "question"),
        "hint": hint,
    }
    return Filled(texts, gold)


def _fill_word(fields: Fields, _: Random | None) -> Filled:
    text = fields.get("text") or f"{_need(fields, 'context')} {_need(fields, 'continuation')}"
    # Split at any blank: a few continuations of the OpenAI form hold a line break, and the word is what follows it.
    words = str(text).rstrip().rsplit(maxsplit=1)
    if len(words) < 2:
        raise DataError("fewer than two words")
    hint = 'Finish with one line that says "Answer:" and then only that word.'
    return Filled({"passage": words[0], "hint": hint}, ((words[1],),))


_LIST_HINT = 'Finish with one line that says "Answer:" and then only the answer, its parts separated by blanks.'


def _fill_list(fields: Fields, _: Random | None) -> Filled:
    question = _text(fields, "question")
    found = list_reader(question).after(_text(fields, "answer"))
    if found is None:
        raise DataError(f"answer {fields['answer'][:40]!r} is not a row of words or brackets")
    return Filled({"question": question, "hint": _LIST_HINT}, (found.value,))


def _read_list(text: str, sample: Sample) -> Extraction:
    turn = sample.turns[-1]
    return extract(text, reader_of(sample.kind, turn.replace(_LIST_HINT, ""), {}), turn)


def _fill_order(fields: Fields, shuffler: Random | None) -> Filled:
    sentences = [str(sentence or "").strip() for sentence in _need(fields, "sentences")]
    if len(sentences) < 2 or not all(sentences):
        raise DataError("a sentence is missing")
    if len(sentences) > len(LETTERS):
        raise DataError(f"{len(sentences)} sentences; there are letters for {len(LETTERS)}")
    order = list(range(len(sentences)))
    (shuffler or Random(0)).shuffle(order)
    choices = {LETTERS[place]: sentences[index] for place, index in enumerate(order)}
    gold = tuple(LETTERS[order.index(index)] for index in range(len(sentences)))
    hint = 'Finish with one line that says "Answer:" and then all letters in the right order, separated by commas.'
    return Filled({"options": _listed(choices), "hint": hint}, (gold,), choices)


# Free text ------------------------------------------------------------------------------------------------


def _fill_text(fields: Fields, _: Random | None) -> Filled:
    answers = fields.get("answers")
    gold = [answers] if isinstance(answers, str) else answers or []
    query = str(fields.get("query") or "").strip()
    references = tuple((str(answer).strip(),) for answer in gold if str(answer).strip())
    if not references:
        raise DataError("no reference answer")
    return Filled({"document": _text(fields, "document"), "query": query}, references, metadata={"query": query})


def _fill_chat(fields: Fields, _: Random | None) -> Filled:
    turns = [str(turn).strip() for turn in _need(fields, "turns")]
    metadata = {"category": fields.get("category"), "reference": list(fields.get("reference") or [])}
    return Filled({"question": turns[0]}, (), metadata=metadata, later_turns=tuple(turns[1:]))


def _read_text(text: str, _: Sample) -> Extraction:
    stripped = text.strip()
    start = text.find(stripped)
    return Extraction((stripped,), True, "whole", (start, start + len(stripped))) if stripped else NOTHING


# Scores ---------------------------------------------------------------------------------------------------


def _accuracy(equal: Callable[[str, str], bool]) -> Callable[[tuple[str, ...], Sample], dict[str, float]]:
    def score(value: tuple[str, ...], sample: Sample) -> dict[str, float]:
        right = (len(gold) == len(value) and all(map(equal, value, gold)) for gold in sample.gold)
        return {"accuracy": float(any(right))}

    return score


def _score_span(value: tuple[str, ...], sample: Sample) -> dict[str, float]:
    scores = [metrics.drop_scores(value, gold) for gold in sample.gold]
    return {"accuracy": max(exact for exact, _ in scores), "f1": max(f1 for _, f1 in scores)}


def _score_text(value: tuple[str, ...], sample: Sample) -> dict[str, float]:
    references = [gold[0] for gold in sample.gold]
    return metrics.rouge(value[0], references) | {"bleu": metrics.bleu(value[0], references)}


def _same(one: str, other: str) -> bool:
    return one.lower() == other.lower()


KINDS: Mapping[AnswerKind, KindRules] = {
    "choice": KindRules(
        columns=frozenset({"passage", "question", "options", "labels", "label", "index", "onehot", "scores"}),
        places=frozenset({"passage", "question", "options", "hint"}),
        metrics=("accuracy",),
        fill=_fill_choice,
        read=_read_choice,
        score=_accuracy(str.__eq__),
    ),
    "number": KindRules(
        columns=frozenset({"question", "answer"}),
        places=frozenset({"question", "hint"}),
        metrics=("accuracy",),
        fill=_fill_number,
        read=_read_value,
        score=_accuracy(metrics.equal_numbers),
    ),
    "span": KindRules(
        columns=frozenset({"passage", "question", "answers"}),
        places=frozenset({"passage", "question", "hint"}),
        metrics=("accuracy", "f1"),
        fill=_fill_span,
        read=_read_value,
        score=_score_span,
    ),
    "word": KindRules(
        columns=frozenset({"text", "context", "continuation"}),
        places=frozenset({"passage", "hint"}),
        metrics=("accuracy",),
        fill=_fill_word,
        read=_read_value,
        score=_accuracy(metrics.equal_words),
    ),
    "list": KindRules(
        columns=frozenset({"question", "answer"}),
        places=frozenset({"question", "hint"}),
        metrics=("accuracy",),
        fill=_fill_list,
        read=_read_list,
        score=_accuracy(_same),
    ),
    "order": KindRules(
        columns=frozenset({"sentences"}),
        places=frozenset({"options", "hint"}),
        metrics=("accuracy",),
        fill=_fill_order,
        read=_read_value,
        score=_accuracy(str.__eq__),
    ),
    "text": KindRules(
        columns=frozenset({"document", "query", "answers"}),
        places=frozenset({"document", "query"}),
        metrics=("rouge1", "rouge2", "rougeL", "bleu"),
        fill=_fill_text,
        read=_read_text,
        score=_score_text,
    ),
    "chat": KindRules(
        columns=frozenset({"turns", "category", "reference"}),
        places=frozenset({"question"}),
        metrics=(),
        fill=_fill_chat,
        read=_read_text,
        score=lambda value, sample: {},
    ),
}


def rules_of(kind: AnswerKind, where: str) -> KindRules:
    """The rules of a kind. Raises ConfigError, which begins with `where`, for one that no benchmark's rows hold."""
    if kind not in KINDS:
        raise ConfigError(f"{where}: kind = {kind!r}; allowed are {list(KINDS)}")
    return KINDS[kind]


def score_of(extraction: Extraction, sample: Sample, rules: KindRules) -> dict[str, float]:
    """Metric -> value from 0 to 1; all 0 where no answer was read."""
    return rules.score(extraction.value, sample) if extraction.ok else dict.fromkeys(rules.metrics, 0.0)
