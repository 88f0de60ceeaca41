"""SEED-Bench: the option's letter exactly, by question type, for images and videos. Pure functions."""

from collections.abc import Sequence
from typing import Any

from .rows import identifier, mean, mean_by, one_of, pair, row_of

read_reference = row_of(
    {"answer": one_of("A", "B", "C", "D")},
    {"question_type": identifier, "data_type": one_of("image", "video")},
)


def score(predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, Any]:
    """Score SEED-Bench as LLaVA does: an answer is right if it is the letter and nothing else.

    Args:
        predictions: raw texts in the references' order, or `{"id", "prediction"}` in any order.
        references: for each question its letter, or a dict with `answer` and optionally `id`, `question_type` (name
            or number) and `data_type` ("image" or "video").

    Returns:
        `accuracy`, 0 to 1, of all questions; `image_accuracy` and `video_accuracy` (None where there are none);
        `by_question_type`; `n`.

    Raises:
        ValueError: an argument has another form; the message names the place.
    """
    texts, rows = pair(predictions, references, read_reference)
    correct = [float(answer == row["answer"]) for answer, row in zip(texts, rows, strict=True)]
    by_data_type = mean_by(correct, [row["data_type"] for row in rows])
    return {
        "accuracy": mean(correct),
        "image_accuracy": by_data_type.get("image"),
        "video_accuracy": by_data_type.get("video"),
        "by_question_type": mean_by(correct, [row["question_type"] for row in rows]),
        "n": len(rows),
    }
