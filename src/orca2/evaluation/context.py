"""The rule for prompts that are too long for the student.

    reserve   the answer's limit, but at most half of the context
    room      context - reserve

A prompt of more than `room` tokens whose sample has a document (QMSum, ACI-BENCH, MS MARCO) loses the middle of
it, head and tail kept in equal parts, until it fits; the question is never cut. Any other prompt is asked whole: its
answer has what is left of the context, and is empty and wrong where nothing is. The paper does not say what it did.
"""

from collections.abc import Callable

from orca2.evaluation.benchmark import Sample, shorten
from orca2.generation import Backend, Chat


def fit_to_context(sample: Sample, chat_of: Callable[[Sample], Chat], backend: Backend, cut: bool) -> tuple[Chat, int]:
    """The chat to ask, and how many tokens its prompt has lost. `cut`: whether the document may be shortened."""
    chat = chat_of(sample)
    if backend.context is None or sample.document is None or not cut:
        return chat, 0
    room = backend.context - min(chat.max_new_tokens, backend.context // 2)
    whole = backend.prompt_tokens(chat)
    if whole <= room:
        return chat, 0
    start, end = sample.document
    low, high = 0, end - start  # characters kept: `low` fits, or is nothing at all; `high` does not fit
    while high - low > 1:
        middle = (low + high) // 2
        if backend.prompt_tokens(chat_of(shorten(sample, middle))) <= room:
            low = middle
        else:
            high = middle
    chat = chat_of(shorten(sample, low))
    return chat, whole - backend.prompt_tokens(chat)
