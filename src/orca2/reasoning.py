r"""Reasoning models: where the trace ends and the answer begins in what such a model writes.

    "<think>6 * 7 is 41? No, 42.</think>\n\nAnswer: 42"     reasoning "6 * 7 is 41? No, 42.", answer "Answer: 42"
    "6 * 7 is 41? No, 42.\n</think>\n\nAnswer: 42"          the same: the prompt has opened the trace
    "<think>6 * 7 is"                                       reasoning "6 * 7 is", no answer: truncated
    "Close it with `</think>`."                             no reasoning; the marker is spoken about

    markers                                        written by
    <think> </think>                               DeepSeek-R1, QwQ, Qwen3, GLM-4.5, Phi-4-reasoning, SmolLM3, ...
    <thinking> </thinking>                         models that are prompted to think, after Claude's habit
    <thought> </thought>                           EXAONE Deep
    <reasoning> </reasoning>                       students of the usual GRPO recipes
    [THINK] [/THINK]                               Magistral
    <seed:think> </seed:think>                     Seed-OSS
    ◁think▷ ◁/think▷                               Kimi-VL-Thinking
    <|begin_of_thought|> <|end_of_thought|>        Sky-T1, OpenThoughts
    <|channel|>analysis<|message|> … <|channel|>final<|message|>      gpt-oss; `analysis … assistantfinal` where a
                                                   server has removed the control tokens

Rules, each linear in the length of the text:

1. A text that begins with an opening marker, after blanks at most, is a trace up to the first closing marker of its
   kind that does not stand between quotation marks or backticks. Without one, all of it is a trace that was cut off.
2. Otherwise a closing marker ends a trace that the prompt has opened, unless it is spoken about: between quotation
   marks or backticks, inside a code fence, after an opening marker of its kind that is not quoted, or inside a
   sentence, that is after a blank and with more text in its line. `</think>` of a template stands on a line of its own
   or directly behind the last word.
3. A trace that follows on a trace is a part of it. An answer that stands in `<answer>` or its like as a whole is
   taken out of it where there was a trace.
"""

import re
from typing import NamedTuple


class Split(NamedTuple):
    """What a model's text says."""

    reasoning: str
    """The trace without outer blanks; empty if the text has none."""
    answer: str
    """What follows the trace, without outer blanks; the text as it is where it has no trace."""
    closed: bool = True
    """Whether the trace ended; if it did not, there is no answer."""


class Trace(NamedTuple):
    """A trace that a student learns to write before its answer."""

    text: str
    opening: str
    """Its marker, a key of `MARKERS`."""

    @property
    def between(self) -> str:
        """What stands between the markers."""
        return f"\n{self.text.strip()}\n"

    @property
    def closing(self) -> str:
        return MARKERS[self.opening]


BEFORE_ANSWER = "\n\n"
"""Between a closing marker and the answer, as Qwen3's template has it."""

MARKERS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "<reasoning>": "</reasoning>",
    "[THINK]": "[/THINK]",
    "<seed:think>": "</seed:think>",
    "◁think▷": "◁/think▷",
    "<|begin_of_thought|>": "<|end_of_thought|>",
}
"""Opening marker -> its closing one."""

_WRAPPERS = {"<answer>": "</answer>", "<|begin_of_solution|>": "<|end_of_solution|>"}
_OPENING_OF = {closing: opening for opening, closing in MARKERS.items()}
_ANY = re.compile("|".join(map(re.escape, (*MARKERS, *_OPENING_OF, "```"))))
_QUOTES = frozenset("`'\"“”‘’«»")
_FINAL = "<|channel|>final"
_HARMONY = re.compile(r"\s*(?:<\|start\|>assistant)?<\|channel\|>")
_CHANNEL = re.compile(r"(?:<\|start\|>assistant)?<\|channel\|>[^<]*<\|message\|>|<\|(?:end|return|call)\|>")
_STRIPPED_FINAL = "assistantfinal"


def opening_at_end(prompt: str) -> str:
    """The opening marker with which a prompt ends, as some reasoning models' templates do; else the empty text."""
    end = prompt.rstrip()
    return next((opening for opening in MARKERS if end.endswith(opening)), "")


def split(text: str, reasoning: str = "") -> Split:
    """The trace and the answer of a model's text, by the rules above.

    `reasoning`: the trace, where it stands apart from the text; then no closing marker alone ends another one.
    """
    known = reasoning.strip()
    found = _split(text, may_be_opened=not known)
    return found._replace(reasoning=_joined([known, found.reasoning if found.reasoning != known else ""]))


def _split(text: str, may_be_opened: bool) -> Split:
    if _HARMONY.match(text):
        return _harmony(text)
    if text.startswith("analysis") and _STRIPPED_FINAL in text:
        reasoning, _, answer = text.removeprefix("analysis").partition(_STRIPPED_FINAL)
        return Split(reasoning.strip(), answer.strip())
    traces: list[str] = []
    at = 0
    while (start := _opened(text, at)) is not None:
        opening, begin = start
        end = _closing(text, MARKERS[opening], begin)
        if end is None:
            return Split(_joined([*traces, text[begin:]]), "", closed=False)
        traces.append(text[begin:end])
        at = end + len(MARKERS[opening])
    if not at:
        found = _unopened(text) if may_be_opened else None
        if found is None:
            return Split("", text)
        traces.append(text[: found[0]])
        at = found[1]
    return Split(_joined(traces), _unwrapped(text[at:].strip()))


def _joined(traces: list[str]) -> str:
    return "\n\n".join(filter(None, map(str.strip, traces)))


def _opened(text: str, at: int) -> tuple[str, int] | None:
    """The opening marker that stands at `at`, after blanks, and where its trace begins."""
    while at < len(text) and text[at].isspace():
        at += 1
    return next(((opening, at + len(opening)) for opening in MARKERS if text.startswith(opening, at)), None)


def _closing(text: str, closing: str, at: int) -> int | None:
    """Position of the first closing marker from `at` on that is not quoted."""
    while (at := text.find(closing, at)) >= 0:
        if not _quoted(text, at, at + len(closing)):
            return at
        at += len(closing)
    return None


def _unopened(text: str) -> tuple[int, int] | None:
    """Start and end of the closing marker of a trace that the prompt has opened."""
    fenced, opened = False, set[str]()
    for found in _ANY.finditer(text):
        start, end, marker = found.start(), found.end(), found[0]
        if marker == "```":
            fenced = not fenced
        elif _quoted(text, start, end):
            continue
        elif marker in MARKERS:
            opened.add(marker)
        elif not (fenced or _OPENING_OF[marker] in opened or _in_sentence(text, start, end)):
            return start, end
    return None


def _quoted(text: str, start: int, end: int) -> bool:
    return text[start - 1 : start] in _QUOTES and text[end : end + 1] in _QUOTES


def _in_sentence(text: str, start: int, end: int) -> bool:
    """Whether a blank stands before a marker in its line, and more text behind it."""
    line = end
    while line < len(text) and text[line] in " \t":
        line += 1
    return text[start - 1 : start] in (" ", "\t") and line < len(text) and text[line] not in "\r\n"


def _unwrapped(answer: str) -> str:
    for opening, closing in _WRAPPERS.items():
        if answer.startswith(opening):
            inner = answer.removeprefix(opening)
            # A missing end is left to the reader of the answer: it may have been cut off.
            if closing not in inner or inner.find(closing) == len(inner) - len(closing):
                return inner.removesuffix(closing).strip()
    return answer


def _harmony(text: str) -> Split:
    """Channels of gpt-oss: all messages before the one of the channel `final` are reasoning."""
    at = text.find(_FINAL)
    before = text if at < 0 else text[:at].removesuffix("<|start|>assistant")
    reasoning = _joined(_CHANNEL.split(before))
    if at < 0:
        return Split(reasoning, "", closed=False)
    answer = text[at + len(_FINAL) :].partition("<|message|>")[2]
    return Split(reasoning, re.split(r"<\|(?:return|end)\|>", answer, maxsplit=1)[0].strip())
