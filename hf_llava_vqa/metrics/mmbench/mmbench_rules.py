"""MMBench: accuracy under circular evaluation. Pure functions."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from .option_parsing import LETTERS, PARSERS
from .rows import Row, integer, list_of, mean, mean_by, named, one_of, pair, row_of, text

PASS_OFFSET = 1_000_000  # between the indices of a question's passes

_read_row = row_of(
    {"index": integer, "answer": one_of(*LETTERS), "choices": list_of(text, at_least=1)},
    {"category": text, "l2_category": text},
)


def read_reference(value: Any, place: str) -> Row:
    """Read one pass of a question; its index is its id."""
    row = _read_row(value, place)
    if not LETTERS.index(row["answer"]) < len(row["choices"]) <= len(LETTERS):
        raise ValueError(
            f"{place}: expected the letter of one of at most {len(LETTERS)} choices, got {row['answer']!r} for "
            f"{len(row['choices'])} choices"
        )
    return {**row, "id": str(row["index"])}


def score(predictions: Sequence[Any], references: Sequence[Any], variant: str = "vlmevalkit") -> dict[str, Any]:
    """Score MMBench.

    Under circular evaluation a question with N options is asked N times, its options rotated, and counts as right
    only if every pass is; pass k has the index of the first plus k million.

    Args:
        predictions: raw texts in the references' order, or `{"id", "prediction"}` in any order, the index as id.
        references: for each pass `{"index", "answer", "choices"}`: an integer, the right letter, the options' texts;
            optionally `category` and `l2_category`. All questions have all their passes, or all have one.
        variant: how to read an answer, a key of `PARSERS`.

    Returns:
        `accuracy`, 0 to 1, over the questions; `first_pass_accuracy`, what it would be without the further passes;
        `by_category`, `by_l2_category` where given; `unread`, the number of answers in which no option was found
        (they count as wrong); `n`, the number of questions.

    Raises:
        ValueError: an argument has another form, or a pass is missing; the message names the place.
    """
    parse = named(PARSERS, variant, "variant")
    texts, rows = pair(predictions, references, read_reference)
    parsed = [parse(answer, row["choices"]) for answer, row in zip(texts, rows, strict=True)]
    right = {row["index"]: letter == row["answer"] for letter, row in zip(parsed, rows, strict=True)}
    passes = _passes(rows)
    hits = [float(all(right[index] for index in indices)) for indices in passes.values()]
    row_of_index = {row["index"]: row for row in rows}
    return {
        "accuracy": mean(hits),
        "first_pass_accuracy": mean([float(right[first]) for first in passes]),
        "by_category": mean_by(hits, [row_of_index[first]["category"] for first in passes]),
        "by_l2_category": mean_by(hits, [row_of_index[first]["l2_category"] for first in passes]),
        "unread": parsed.count(None),
        "n": len(passes),
    }


def _passes(rows: Sequence[Row]) -> dict[int, list[int]]:
    """Return the indices of all passes of each question, by that of the first."""
    passes: defaultdict[int, list[int]] = defaultdict(list)
    for row in rows:
        passes[row["index"] % PASS_OFFSET].append(row["index"])
    options = {row["index"]: len(row["choices"]) for row in rows}
    circular = any(len(indices) > 1 for indices in passes.values())
    for first, indices in passes.items():
        count = options[min(indices)] if circular else 1
        wanted = [first + PASS_OFFSET * number for number in range(count)]
        if sorted(indices) != wanted:
            raise ValueError(f"references: expected the indices {wanted} for question {first}, got {sorted(indices)}")
    return dict(passes)
