"""POPE, which asks whether an object is in the picture: reading yes or no out of an answer, and counting. Pure
functions."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from .rows import mean, named, one_of, pair, row_of, text

read_reference = row_of({"label": one_of("yes", "no")}, {"category": text})


def parse_llava(answer: str) -> str:
    """Return "yes" or "no" as LLaVA and POPE's own script read it: the words up to the first period, split at single
    spaces; whatever holds neither `No`, `no` nor `not` is a yes, the empty answer and "NO" too."""
    words = answer.split(".")[0].replace(",", "").split(" ")
    return "yes" if {"No", "no", "not"}.isdisjoint(words) else "no"


def parse_lmms(answer: str) -> str:
    """Return the answer as lmms-eval compares it with the label: "Yes." is neither yes nor no."""
    return answer.strip().lower()


VARIANTS = {"llava": parse_llava, "lmms": parse_lmms}


def parse_answer(answer: str, variant: str = "llava") -> str:
    """Return the answer as the variant reads it.

    Raises:
        ValueError: there is no such variant.
    """
    return named(VARIANTS, variant, "variant")(answer)


def score(predictions: Sequence[Any], references: Sequence[Any], variant: str = "llava") -> dict[str, Any]:
    """Score POPE.

    Args:
        predictions: raw texts in the references' order, or `{"id", "prediction"}` in any order.
        references: "yes" or "no" for each question, or `{"label", "category", "id"}`, the last two optional.
        variant: how to read an answer, a key of `VARIANTS`.

    Returns:
        `accuracy`, `precision`, `recall`, `f1` (yes is positive; 0 where nothing is to be divided), `yes_ratio`
        (share of yes among the predictions), `label_yes_ratio`, `true_positives`, `false_positives`,
        `true_negatives`, `false_negatives`, `n`; `by_category`, the same for each category; and `mean_f1`, the
        average of the categories' F1 that papers report, or `f1` where no categories are given.

    Raises:
        ValueError: an argument has another form; the message names the place.
    """
    texts, rows = pair(predictions, references, read_reference)
    parsed = [parse_answer(answer, variant) for answer in texts]
    outcomes = [(answer, row["label"], row["category"]) for answer, row in zip(parsed, rows, strict=True)]
    categories = sorted({category for _, _, category in outcomes if category is not None})
    by_category = {name: _measure([entry[:2] for entry in outcomes if entry[2] == name]) for name in categories}
    overall = _measure([entry[:2] for entry in outcomes])
    mean_f1 = mean([measured["f1"] for measured in by_category.values()]) if by_category else overall["f1"]
    return {**overall, "mean_f1": mean_f1, "by_category": by_category}


def _measure(outcomes: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Count pairs of a parsed answer and its label. An answer that is neither yes nor no is wrong, and no miss."""
    count = Counter(outcomes)
    hits, false_alarms = count["yes", "yes"], count["yes", "no"]
    rejections, misses = count["no", "no"], count["no", "yes"]
    labels = Counter(label for _, label in outcomes)
    return {
        "accuracy": (hits + rejections) / len(outcomes),
        "precision": _share(hits, hits + false_alarms),
        "recall": _share(hits, hits + misses),
        "f1": _share(2 * hits, 2 * hits + false_alarms + misses),
        "yes_ratio": (hits + false_alarms) / len(outcomes),
        "label_yes_ratio": labels["yes"] / len(outcomes),
        "true_positives": hits,
        "false_positives": false_alarms,
        "true_negatives": rejections,
        "false_negatives": misses,
        "n": len(outcomes),
    }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
