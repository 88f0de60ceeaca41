"""Whether a question can be answered from its picture, VizWiz's second task: ranking and deciding. Pure functions.

What is looked for are the questions that can *not* be answered: unanswerable is positive, its score 1 − confidence.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from .rows import expected, number, pair, row_of

THRESHOLD = 0.5  # a score above it says unanswerable; exactly at it, answerable


def read_confidence(value: Any, place: str) -> float:
    """Read a number from 0 to 1."""
    if not 0 <= number(value, place) <= 1:
        raise expected("a number from 0 to 1", value, place)
    return float(value)


def read_answerable(value: Any, place: str) -> int:
    """Read 1 or True for a question that can be answered, 0 or False for one that cannot."""
    if not isinstance(value, int) or value not in (0, 1):
        raise expected("0 or 1", value, place)
    return int(value)


read_reference = row_of({"answerable": read_answerable}, {})


def score(predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, Any]:
    """Score answerability.

    Args:
        predictions: for each question the confidence, 0 to 1, that it can be answered, in the references' order; or
            `{"id", "prediction"}` in any order.
        references: 1 for each question that can be answered, 0 for each that cannot, or `{"answerable", "id"}`.

    Returns:
        `average_precision` (0 to 1; ties are ranked together) and `f1` (0 to 1) of finding the unanswerable, the same
        in percent with the official rounding to two decimals as `average_precision_percent` and `f1_percent`, `n`,
        and `unanswerable`, how many there are. Both scores are 0 where no question is unanswerable.

    Raises:
        ValueError: an argument has another form; the message names the place.
    """
    confidences, rows = pair(predictions, references, read_reference, read_confidence)
    # The official scorer ranks 1 − confidence: tiny differences of confidence can be ties there.
    scores = [1 - confidence for confidence in confidences]
    positive = [row["answerable"] == 0 for row in rows]
    average_precision, f1 = _average_precision(scores, positive), _f1(scores, positive)
    return {
        "average_precision": average_precision,
        "f1": f1,
        "average_precision_percent": round(100 * average_precision, 2),
        "f1_percent": round(100 * f1, 2),
        "n": len(rows),
        "unanswerable": sum(positive),
    }


def _average_precision(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """Return the mean, over the positives, of the precision at the score where each is found."""
    ranked = sorted(zip(scores, positive, strict=True), reverse=True)
    seen = hits = 0
    total = 0.0
    for _, tied in groupby(ranked, key=lambda entry: entry[0]):
        found = [hit for _, hit in tied]
        seen += len(found)
        hits += sum(found)
        total += sum(found) * hits / seen
    return total / hits if hits else 0.0


def _f1(scores: Sequence[float], positive: Sequence[bool]) -> float:
    said = [value > THRESHOLD for value in scores]
    both = sum(guess and truth for guess, truth in zip(said, positive, strict=True))
    return 2 * both / (sum(said) + sum(positive)) if both else 0.0
