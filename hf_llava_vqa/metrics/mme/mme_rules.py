"""MME: two yes-or-no questions to a picture, by category; perception and cognition scores. Pure functions."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from .rows import Row, mean, one_of, pair, row_of, text

PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")

_read_row = row_of({"answer": text, "image": text, "category": one_of(*PERCEPTION, *COGNITION)}, {})


def read_reference(value: Any, place: str) -> Row:
    """Read a question; its answer is yes or no in any case."""
    row = _read_row(value, place)
    return {**row, "answer": one_of("yes", "no")(row["answer"].lower(), f"{place}.answer")}


def parse_answer(answer: str) -> str:
    """Return "yes", "no" or "other", as MME's script reads it: by the first four characters, in any case."""
    start = answer.lower()[:4]
    if "yes" in start:
        return "yes"
    return "no" if "no" in start else "other"


def score(predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, Any]:
    """Score MME.

    Args:
        predictions: raw texts in the references' order, or `{"id", "prediction"}` in any order.
        references: for each question `{"answer", "image", "category"}`: yes or no, the picture's name and one of
            `PERCEPTION` or `COGNITION`; optionally `id`. A picture has two questions in its category.

    Returns:
        `perception` and `cognition`, the sums of their categories' scores (2000 and 800 at most; None where no
        category is given); `by_category`: `accuracy` and `accuracy_plus` (share of pictures with both questions
        right), 0 to 1, and `score`, 100 times their sum; `n`.

    Raises:
        ValueError: an argument has another form, or a picture has not two questions; the message names the place.
    """
    texts, rows = pair(predictions, references, read_reference)
    pictures: defaultdict[tuple[str, str], list[bool]] = defaultdict(list)
    for answer, row in zip(texts, rows, strict=True):
        pictures[row["category"], row["image"]].append(parse_answer(answer) == row["answer"])
    for (category, image), correct in pictures.items():
        if len(correct) != 2:
            raise ValueError(f"references: expected two questions to {image!r} in {category}, got {len(correct)}")
    by_category = {
        name: _measure([correct for (category, _), correct in pictures.items() if category == name])
        for name in (*PERCEPTION, *COGNITION)
        if any(category == name for category, _ in pictures)
    }
    return {
        "perception": _total(by_category, PERCEPTION),
        "cognition": _total(by_category, COGNITION),
        "by_category": by_category,
        "n": len(rows),
    }


def _measure(pictures: Sequence[list[bool]]) -> dict[str, float]:
    accuracy = mean([float(right) for correct in pictures for right in correct])
    accuracy_plus = mean([float(all(correct)) for correct in pictures])
    return {"accuracy": accuracy, "accuracy_plus": accuracy_plus, "score": 100 * (accuracy + accuracy_plus)}


def _total(by_category: dict[str, dict[str, float]], names: Sequence[str]) -> float | None:
    scores = [by_category[name]["score"] for name in names if name in by_category]
    return sum(scores) if scores else None
