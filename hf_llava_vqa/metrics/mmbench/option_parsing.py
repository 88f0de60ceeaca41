"""Reading the chosen option out of an answer, as lmms-eval (from MMBench's first script) and VLMEvalKit (by MMBench's
authors) do without asking a judge. Pure functions."""

import re
from collections.abc import Callable, Sequence

LETTERS = "ABCD"

# How a letter may be marked, X standing for it; in order of preference.
_MARKED = ("X.", "X,", "X:", "X)", "X).", "(X)", "(X).", ":X", ":X,", ":X.", ":X)", ":X).")


def letter_lmms(answer: str) -> str | None:
    """Return the one letter A to E, however many options there are, that stands alone or with certain marks.

    An "A" among more than three words counts as the article, and then no bare letter counts.
    """
    words = answer.split()
    bare = [letter for letter in "ABCDE" if letter in words]
    if len(bare) == 1 and not ("A" in words and len(words) > 3):
        return bare[0]
    for form in _MARKED:
        marked = [letter for letter in "ABCDE" if form.replace("X", letter) in words]
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


PARSERS = {"vlmevalkit": parse_vlmevalkit, "lmms": parse_lmms}
