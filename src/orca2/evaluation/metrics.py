"""Scores of single answers, and what can be said about their means. Pure functions.

DROP's rules are those of its authors' script (allenai/allennlp-models, allennlp_models/rc/tools/drop.py).
"""

import math
import re
import string
from collections.abc import Iterable, Sequence
from decimal import Decimal
from importlib.util import find_spec
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from orca2.errors import ConfigError


class Interval(NamedTuple):
    """A value with the bounds of its confidence interval."""

    value: float
    low: float
    high: float


# One answer -----------------------------------------------------------------------------------------------


def equal_numbers(one: str, other: str) -> bool:
    """Whether two numbers, as `extraction.quantities` writes them, are the same: exact, no tolerance.

    `1/3`, in lowest terms, stands for a number that no decimal equals, and so equals only itself.
    """
    return one == other if "/" in one + other else Decimal(one) == Decimal(other)


def equal_words(one: str, other: str) -> bool:
    """Whether two words are the same but for case, quotes and the punctuation around them."""
    return _plain_word(one) == _plain_word(other)


def _plain_word(word: str) -> str:
    return " ".join(word.lower().split()).strip(string.punctuation + "“”‘’…–— ")


def drop_scores(predicted: Sequence[str], gold: Sequence[str]) -> tuple[float, float]:
    """DROP's exact match (0 or 1) and F1 (from 0 to 1, two decimals) of predicted spans against one gold answer.

    Spans are aligned one to one so that the sum of their F1 is greatest; a span without a partner counts 0.
    """
    ours, theirs = [drop_normal(span) for span in predicted], [drop_normal(span) for span in gold]
    exact = float(set(ours) == set(theirs) and len(ours) == len(theirs))
    bags, gold_bags = [set(span.split()) for span in ours], [set(span.split()) for span in theirs]
    f1 = [[_bag_f1(bag, gold_bag) for bag in bags] for gold_bag in gold_bags]
    return exact, round(_best_alignment(f1) / max(len(ours), len(theirs), 1), 2)


def drop_normal(text: str) -> str:
    """DROP's normal form: lower case, no articles or punctuation, numbers as Python floats, `-` splits words."""
    tokens = (_drop_token(token) for token in re.split(" |-", text))
    return " ".join(token for token in tokens if token)


def _drop_token(token: str) -> str:
    token = token.lower()
    if not _is_float(token):
        token = "".join(character for character in token if character not in string.punctuation)
    token = str(float(token)) if _is_float(token) else token
    return " ".join(re.sub(r"\b(?:a|an|the)\b", " ", token).split())


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _bag_f1(bag: set[str], gold: set[str]) -> float:
    gold_numbers = {word for word in gold if _is_float(word)}
    if gold_numbers and not gold_numbers & bag:
        return 0.0
    common = len(bag & gold)
    precision = common / len(bag) if bag else 1.0
    recall = common / len(gold) if gold else 1.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _best_alignment(scores: list[list[float]]) -> float:
    """Greatest sum of scores with at most one for each row and each column: the Hungarian method.

    Shortest augmenting paths on costs `-score` (Kuhn 1955, Munkres 1957); `rows` and `columns` are the potentials. The
    shorter side is the rows: n rows and m columns take n^2 m steps, so that a student that lists spans without end is
    scored in time that grows with their number alone.
    """
    if len(scores) > len(scores[0] if scores else ()):
        scores = [list(column) for column in zip(*scores, strict=True)]
    n, m = len(scores), len(scores[0]) if scores else 0
    rows, columns, match = [0.0] * (n + 1), [0.0] * (m + 1), [0] * (m + 1)
    for row in range(1, n + 1):
        match[0], at = row, 0
        least, seen, came = [math.inf] * (m + 1), [False] * (m + 1), [0] * (m + 1)
        while match[at]:
            seen[at], here = True, match[at]
            for column in range(1, m + 1):
                reduced = -scores[here - 1][column - 1] - rows[here] - columns[column]
                if not seen[column] and reduced < least[column]:
                    least[column], came[column] = reduced, at
            after = min((column for column in range(1, m + 1) if not seen[column]), key=least.__getitem__)
            step = least[after]
            for column in range(m + 1):
                if seen[column]:
                    rows[match[column]] += step
                    columns[column] -= step
                else:
                    least[column] -= step
            at = after
        while at:
            match[at], at = match[came[at]], came[at]
    return sum(scores[match[column] - 1][column - 1] for column in range(1, m + 1) if match[column])


# Overlap of texts -----------------------------------------------------------------------------------------

PACKAGES = {"rouge1": "rouge_score", "rouge2": "rouge_score", "rougeL": "rouge_score", "bleu": "sacrebleu"}
"""Metric -> the optional package that computes it, as it is imported."""


def missing_packages(names: Iterable[str]) -> list[str]:
    """Packages that the metrics of these names need and that are not installed."""
    needed = dict.fromkeys(PACKAGES[name] for name in names if name in PACKAGES)
    return [package for package in needed if find_spec(package) is None]


def rouge(predicted: str, references: Sequence[str]) -> dict[str, float]:
    """ROUGE-1, ROUGE-2 and ROUGE-L F-measures, stemmed, each the best over the references; from 0 to 1.

    Raises:
        ConfigError: the package `rouge-score` (extra `eval-text`) is not installed.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
        from rouge_score.tokenizers import DefaultTokenizer
    except ImportError as error:
        raise ConfigError("ROUGE needs the package rouge-score: pip install 'orca2-lightning[eval-text]'") from error
    names = ("rouge1", "rouge2", "rougeL")
    # The package announces a tokenizer of its own choice on standard error, each time.
    scorer = RougeScorer(list(names), tokenizer=DefaultTokenizer(use_stemmer=True))
    scores = scorer.score_multi(list(references), predicted)
    return {name: scores[name].fmeasure for name in names}


def bleu(predicted: str, references: Sequence[str]) -> float:
    """Sentence BLEU with sacrebleu's defaults (13a tokens, exponential smoothing), from 0 to 1.

    A mean of sentence scores is not corpus BLEU.

    Raises:
        ConfigError: the package `sacrebleu` (extra `eval-text`) is not installed.
    """
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError as error:
        raise ConfigError("BLEU needs the package sacrebleu: pip install 'orca2-lightning[eval-text]'") from error
    return float(BLEU(effective_order=True).sentence_score(predicted, list(references)).score) / 100


# Means and differences ------------------------------------------------------------------------------------


def wilson(successes: float, n: int, confidence: float = 0.95) -> Interval:
    """A share with Wilson's score interval, right also near 0 and 1 (Wilson 1927).

    `successes` is whole, or the sum of samples' means over repeated judgements.

    Raises:
        ConfigError: `n` is not positive, or `successes` is not between 0 and `n`.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ConfigError(f"no share can be made of {successes} successes in {n} trials")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value that two answerers are equally good, from the samples that only one got right.

    Raises:
        ConfigError: a count is negative.
    """
    if only_first < 0 or only_second < 0:
        raise ConfigError(f"counts of samples must not be negative, not {only_first} and {only_second}")
    n, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    return min(1.0, float(2 * tail / 2**n))


_BLOCK = 200
"""Draws at a time."""


def paired_bootstrap(
    first: Sequence[float],
    second: Sequence[float],
    seed: int = 0,
    draws: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Mean of `second` minus `first` over the same samples, with the percentile bootstrap interval.

    Raises:
        ConfigError: the two differ in length or are empty.
    """
    if len(first) != len(second) or not first:
        raise ConfigError(f"a paired difference needs as many scores on both sides, not {len(first)} and {len(second)}")
    differences, n = np.subtract(second, first), len(first)
    rng = np.random.default_rng(seed)
    # In blocks, to bound memory.
    blocks = (rng.integers(n, size=(min(_BLOCK, draws - done), n)) for done in range(0, draws, _BLOCK))
    means = np.sort(np.concatenate([differences[block].mean(axis=1) for block in blocks]))
    outside = (1 - confidence) / 2
    low, high = means[int(outside * draws)], means[min(draws - 1, int((1 - outside) * draws))]
    return Interval(math.fsum(differences) / n, float(low), float(high))
