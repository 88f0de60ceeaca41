"""MMBench: reading the chosen option out of an answer, and circular evaluation. Pure functions."""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from .rows import Row, integer, list_of, mean, mean_by, one_of, pair, row_of, text

LETTERS = "ABCD"
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


# --- lmms-eval, from MMBench's first script -------------------------------------------------------------------

_AFFIXES = (
    ("", "."),
    ("", ","),
    ("", ":"),
    ("", ")"),
    ("", ")."),
    ("(", ")"),
    ("(", ")."),
    (":", ""),
    (":", ","),
    (":", "."),
    (":", ")"),
    (":", ")."),
)


def letter_lmms(answer: str) -> str | None:
    """Return the one letter A to E, however many options there are, that stands alone or with certain marks.

    An "A" among more than three words counts as the article, and then no bare letter counts.
    """
    words = answer.split()
    bare = [letter for letter in "ABCDE" if letter in words]
    if len(bare) == 1 and not ("A" in words and len(words) > 3):
        return bare[0]
    for before, after in _AFFIXES:
        marked = [letter for letter in "ABCDE" if f"{before}{letter}{after}" in words]
        if len(marked) == 1:
            return marked[0]
    return None


def option_in_text(answer: str, choices: Sequence[str]) -> str | None:
    """Return the letter of the one option whose text occurs in the answer, in any case."""
    found = [letter for letter, option in zip(LETTERS, choices, strict=False) if option.lower() in answer.lower()]
    return found[0] if len(found) == 1 else None


_ANSWER_PHRASES = (
    *("the answer is", "answer is", "the correct answer is", "correct answer is", "the best answer is"),
    *("best answer is", "the correct option is", "correct option is", "the best option is", "best option is"),
    *("the choice is", "choice is", "the correct choice is", "correct choice is", "i choose", "i select", "i pick"),
    *("my answer is", "my choice is", "옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは"),
)


def guess_lmms(answer: str, choices: Sequence[str]) -> str | None:
    """Return the letter lmms-eval's fallback without a judge settles on.

    A letter is sought in ways ranked by trust: first in the text, last, after "the answer is" or the like, as
    (B), B., B:, B), before a space; at the end anywhere. Of several found in the same way the last one counts.
    """
    letters = LETTERS[: len(choices)]
    text = answer.strip()
    for mark in ",.!?;:'\"":
        text = text.strip(mark)
    padded, bare = f" {text} ", text.strip()
    ways: list[Callable[[str], int]] = [
        lambda letter: 0 if re.match(rf"{letter}(?![^\W\d_])", bare) else -1,
        lambda letter: 0 if re.search(rf"(?<![^\W\d_]){letter}\Z", bare) else -1,
        lambda letter: _after_phrase(padded, letter),
        *(lambda letter, form=form: padded.rfind(form.format(letter)) for form in ("({})", "{}.", "{}:", "{})", "{} ")),
        padded.rfind,
    ]
    for way in ways:
        position, letter = max((way(letter), letter) for letter in letters)
        if position >= 0:
            return letter
    return None


def _after_phrase(padded: str, letter: str) -> int:
    """Return where the letter first follows the first occurrence of a phrase; the furthest one over all phrases."""
    lowered = padded.lower()
    ends = [lowered.index(phrase) + len(phrase) for phrase in _ANSWER_PHRASES if phrase in lowered]
    return max((padded.find(letter, end) for end in ends), default=-1)


def parse_lmms(answer: str, choices: Sequence[str]) -> str | None:
    """Return the letter lmms-eval reads, by letter, by text or by its fallback; None if there is none."""
    return letter_lmms(answer) or option_in_text(answer, choices) or guess_lmms(answer, choices)


# --- VLMEvalKit, by MMBench's authors ---------------------------------------------------------------------------

REFUSAL = "Z"
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_MARKS_TO_SPACES = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))


def letter_vlmevalkit(answer: str, choices: Sequence[str]) -> str | None:
    """Return the one option letter that stands alone, first met among the last four words; or the one in "answer is
    **X**"; or `REFUSAL` for a refusal."""
    if any(refusal in answer for refusal in _REFUSALS):
        return REFUSAL
    letters = LETTERS[: len(choices)]
    words = answer.translate(_MARKS_TO_SPACES).split()
    found = [letter for letter in letters if letter in words]
    if len(found) == 1 and words.index(found[0]) >= len(words) - 4:
        return found[0]
    if not found and REFUSAL in words:
        return REFUSAL
    bold = re.search(rf"answer is \*\*([{letters}])\*\*", answer)
    return bold[1] if bold else None


def text_vlmevalkit(answer: str, choices: Sequence[str]) -> str | None:
    """Return the letter of the one option whose text occurs in an answer not twice as long as all options."""
    if len(answer) > 2 * sum(map(len, choices)):
        return None
    return option_in_text(answer, choices)


def parse_vlmevalkit(answer: str, choices: Sequence[str]) -> str | None:
    """Return the letter VLMEvalKit reads without a judge, by letter or by text; None if it reads none."""
    return letter_vlmevalkit(answer, choices) or text_vlmevalkit(answer, choices)


# --- scoring ------------------------------------------------------------------------------------------------------

VARIANTS = {"vlmevalkit": parse_vlmevalkit, "lmms": parse_lmms}


def score(predictions: Sequence[Any], references: Sequence[Any], variant: str = "vlmevalkit") -> dict[str, Any]:
    """Score MMBench.

    Under circular evaluation a question with N options is asked N times, its options rotated, and counts as right
    only if every pass is; pass k has the index of the first plus k million.

    Args:
        predictions: raw texts in the references' order, or `{"id", "prediction"}` in any order, the index as id.
        references: for each pass `{"index", "answer", "choices"}`: an integer, the right letter, the options' texts;
            optionally `category` and `l2_category`. All questions have all their passes, or all have one.
        variant: how to read an answer, a key of `VARIANTS`.

    Returns:
        `accuracy`, 0 to 1, over the questions; `first_pass_accuracy`, what it would be without the further passes;
        `by_category`, `by_l2_category` where given; `unread`, the number of answers in which no option was found
        (they count as wrong); `n`, the number of questions.

    Raises:
        ValueError: an argument has another form, or a pass is missing; the message names the place.
    """
    if variant not in VARIANTS:
        raise ValueError(f"no variant named {variant!r}; there is: {', '.join(VARIANTS)}")
    texts, rows = pair(predictions, references, read_reference)
    parsed = [VARIANTS[variant](answer, row["choices"]) for answer, row in zip(texts, rows, strict=True)]
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
