"""ScienceQA: reading the chosen option out of an answer, and accuracy by kind of question. Pure functions."""

import re
from collections.abc import Sequence
from typing import Any

from .rows import Row, flag, integer, list_of, mean, mean_by, named, one_of, pair, row_of, text

LETTERS = ("A", "B", "C", "D", "E")
GRADES = tuple(f"grade{year}" for year in range(1, 13))

_read_row = row_of(
    {"answer": integer, "choices": list_of(text, at_least=1)},
    {"has_image": flag, "hint": text, "subject": text, "grade": one_of(*GRADES)},
)


def read_reference(value: Any, place: str) -> Row:
    """Read a question; its answer is the index of a choice."""
    row = _read_row(value, place)
    if not 0 <= row["answer"] < len(row["choices"]) <= len(LETTERS):
        raise ValueError(
            f"{place}: expected the index of one of at most {len(LETTERS)} choices, got {row['answer']} for "
            f"{len(row['choices'])} choices"
        )
    return row


def parse_llava(answer: str) -> str | None:
    """Return the letter LLaVA's script reads, or None where it reads none.

    Taken in this order: the letter alone; the letter, a period and a space first; or one single "The answer is X"
    followed by any one character, wherever it stands. Nothing is stripped: " A" is unread.
    """
    if answer in LETTERS:
        return answer
    if answer[:1] in LETTERS and answer[1:3] == ". ":
        return answer[0]
    found = re.findall(r"The answer is ([A-Z]).", answer)
    return found[0] if len(found) == 1 else None


def is_correct_llava(answer: str, correct: int, choices: int) -> bool:
    """Whether LLaVA's script takes the answer for choice number `correct` of so many."""
    return parse_llava(answer) in LETTERS[:choices] and parse_llava(answer) == LETTERS[correct]


def is_correct_lmms(answer: str, correct: int, choices: int) -> bool:
    """Whether lmms-eval takes the answer for choice number `correct`: the letter in either case, or a capital and a
    period first. How many choices there are does not matter to it."""
    stripped = answer.strip()
    if stripped.lower() == LETTERS[correct].lower():
        return True
    return stripped[:2] == f"{LETTERS[correct]}."


VARIANTS = {"llava": is_correct_llava, "lmms": is_correct_lmms}


def score(predictions: Sequence[Any], references: Sequence[Any], variant: str = "llava") -> dict[str, Any]:
    """Score ScienceQA.

    Args:
        predictions: raw texts in the references' order, or `{"id", "prediction"}` in any order.
        references: for each question `{"answer", "choices"}`, the index of the right choice and the texts of all;
            optionally `id`, `has_image`, `hint` ("" if there is none), `subject`, `grade` ("grade1" to "grade12").
        variant: whose reading of an answer to follow, a key of `VARIANTS`.

    Returns:
        `accuracy`, 0 to 1; `image_accuracy`, that of the questions with an image (None if there are none), `n`,
        `n_image`; and, where the fields are given, `by_subject`, `by_context` (TXT: with a hint, IMG: with an
        image, NO: with neither) and `by_grade` (G1-6, G7-12).

    Raises:
        ValueError: an argument has another form; the message names the place.
    """
    is_correct = named(VARIANTS, variant, "variant")
    texts, rows = pair(predictions, references, read_reference)
    correct = [
        float(is_correct(answer, row["answer"], len(row["choices"]))) for answer, row in zip(texts, rows, strict=True)
    ]
    by_context = _by_context(correct, rows)
    return {
        "accuracy": mean(correct),
        "image_accuracy": by_context.get("IMG"),
        "n": len(rows),
        "n_image": sum(row["has_image"] is True for row in rows),
        "by_subject": mean_by(correct, [row["subject"] for row in rows]),
        "by_context": by_context,
        "by_grade": mean_by(correct, [_stage(row["grade"]) for row in rows]),
    }


def _by_context(correct: Sequence[float], rows: Sequence[Row]) -> dict[str, float]:
    """Return the accuracy of each context; one question can count in two."""
    members = {
        "TXT": [bool(row["hint"]) for row in rows],
        "IMG": [row["has_image"] is True for row in rows],
        "NO": [row["hint"] == "" and row["has_image"] is False for row in rows],
    }
    chosen = {
        name: [value for value, inside in zip(correct, flags, strict=True) if inside] for name, flags in members.items()
    }
    return {name: mean(values) for name, values in chosen.items() if values}


def _stage(grade: str | None) -> str | None:
    if grade is None:
        return None
    return "G1-6" if GRADES.index(grade) < 6 else "G7-12"
