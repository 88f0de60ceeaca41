"""How VQA scorers read an answer and count its agreement with the human ones: pure functions on strings.

A scorer is one entry of `VARIANTS`. All of them hold out one annotator at a time, give the prediction
`min(1, matches among the others / 3)` and average over the annotators; they differ in how they read strings.
"""

import functools
import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .contractions import COMPETITION_CONTRACTIONS, VIZWIZ_CONTRACTIONS
from .inputs import as_list, as_strings

Answer = str | Mapping[str, str]

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
ARTICLES = {"a", "an", "the"}
DIGITS = {
    "zero": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
}
VQA_DIGITS = {**DIGITS, "none": "0"}
# The official scorer passes a regex flag where `re.sub` takes its count, so later periods stay.
PERIODS_DELETED = 32


def normalize_vqa(text: str, contractions: Mapping[str, str]) -> str:
    """Normalise as the official VQA scorer (GT-Vision-Lab/VQA, 2021) with the given contraction table."""
    text = _delete_punctuation(text.replace("\n", " ").replace("\t", " ").strip())
    text = re.sub(r"\.(?!\d)", "", text, count=PERIODS_DELETED)
    words = (VQA_DIGITS.get(word, word) for word in text.lower().split())
    return " ".join(contractions.get(word, word) for word in words if word not in ARTICLES)


def _delete_punctuation(text: str) -> str:
    """A mark beside a space is deleted wherever it occurs, any other becomes a space; a number such as 1,000
    anywhere in the text makes every mark be deleted."""
    delete_all = re.search(r"\d,\d", text) is not None
    result = text
    for mark in PUNCTUATION:
        if mark in text:
            delete = delete_all or f"{mark} " in text or f" {mark}" in text
            result = result.replace(mark, "" if delete else " ")
    return result


def normalize_competition(text: str) -> str:
    """Normalise as `process_text` of the DL lecture competition's baseline: number words and contractions are
    replaced inside words too ("phone" becomes "ph1", "cantaloupe" "can'taloupe")."""
    text = text.lower()
    for word, digit in DIGITS.items():
        text = text.replace(word, digit)
    text = re.sub(r"(?<!\d)\.(?!\d)", "", text)
    text = re.sub(r"\b(a|an|the)\b", "", text)
    for word, spelling in COMPETITION_CONTRACTIONS.items():
        text = text.replace(word, spelling)
    return " ".join(re.sub(r"[^\w\s':]", " ", text).split())


@dataclass(frozen=True)
class Variant:
    """One scorer's rules."""

    normalize_prediction: Callable[[str], str]
    normalize_reference: Callable[[str], str]
    divisor: int | None = None  # divides the sum over annotators; None: their number

    def memoized(self) -> "Variant":
        """Return the same rules with a cache of their own: answers repeat a lot within one data set."""
        return replace(
            self,
            normalize_prediction=functools.cache(self.normalize_prediction),
            normalize_reference=functools.cache(self.normalize_reference),
        )

    def accuracy(self, prediction: str, answers: Sequence[str]) -> float:
        """Return the accuracy of one prediction against the answers of all annotators."""
        wanted = self.normalize_prediction(prediction)
        matches = sum(self.normalize_reference(answer) == wanted for answer in answers)
        others = len(answers) - matches
        thirds = matches * min(matches - 1, 3) + others * min(matches, 3)
        return thirds / (3 * (self.divisor or len(answers)))


VARIANTS = {
    # VizWiz ships cleaned answers: its scorer (Qing Li's API) compares them as they are.
    "vizwiz": Variant(functools.partial(normalize_vqa, contractions=VIZWIZ_CONTRACTIONS), str),
    "competition": Variant(normalize_competition, normalize_competition, divisor=10),
}


def normalize_answer(text: str, variant: str = "vizwiz") -> str:
    """Return the text as the variant's scorer reads a prediction.

    Raises:
        ValueError: there is no such variant.
    """
    return _get_variant(variant).normalize_prediction(text)


def answer_accuracy(prediction: str, answers: Sequence[Answer], variant: str = "vizwiz") -> float:
    """Return the accuracy, from 0 to 1, of one prediction against the answers of one question.

    With ten answers, 0, 1, 2, 3, 4 or more matches give 0, .3, .6, .9, 1. The variant `competition` divides
    by ten whatever the number of answers is, so with more than ten it can pass 1.

    Raises:
        ValueError: as `score`.
    """
    return score([prediction], [answers], variant)["accuracy"]


def score(
    predictions: Sequence[str],
    references: Sequence[Sequence[Answer]],
    variant: str = "vizwiz",
    answer_types: Sequence[str] | None = None,
    return_per_question: bool = False,
) -> dict[str, Any]:
    """Score a data set.

    Args:
        predictions: raw texts, one a question.
        references: for each question its human answers, at least one: strings, or VizWiz's dicts
            `{"answer", "answer_confidence"}`, of which `answer` is read.
        variant: the scorer to follow, a key of `VARIANTS`.
        answer_types: a label for each question, by which accuracy is reported too.
        return_per_question: add the accuracy of every question, in the order given.

    Returns:
        `accuracy` (mean over the questions, 0 to 1), `accuracy_percent` (the same with the official rounding
        to two decimals), `per_answer_type` (accuracy, 0 to 1, by label; empty without `answer_types`),
        `standard_error` (of `accuracy`, questions taken as independent; nan for a single one), `n` and, on
        request, `per_question`.

    Raises:
        ValueError: an argument has another form; the message names the place.
    """
    rules = _get_variant(variant).memoized()
    texts, answers = plain_inputs(predictions, references)
    per_question = [rules.accuracy(text, given) for text, given in zip(texts, answers, strict=True)]
    result: dict[str, Any] = {
        "accuracy": _mean(per_question),
        "accuracy_percent": round(100 * _mean(per_question), 2),
        "per_answer_type": _mean_by_type(per_question, answer_types),
        "standard_error": _standard_error(per_question),
        "n": len(per_question),
    }
    if return_per_question:
        result["per_question"] = per_question
    return result


def plain_inputs(predictions: Any, references: Any) -> tuple[list[str], list[list[str]]]:
    """Return the predictions and, for each, its human answers as new lists of strings.

    Raises:
        ValueError: an entry is not what `score` takes, or the lists are empty or differ in length.
    """
    texts = as_strings(predictions, "predictions")
    rows = enumerate(as_list(references, "references"))
    answers = [_plain_answers(given, f"references[{row}]") for row, given in rows]
    if len(texts) != len(answers):
        raise ValueError(f"expected one reference for each prediction, got {len(answers)} for {len(texts)}")
    return texts, answers


def _plain_answers(answers: Any, place: str) -> list[str]:
    items = as_list(answers, place)
    texts = [item["answer"] if isinstance(item, dict) and "answer" in item else item for item in items]
    return as_strings(texts, place, expected="a string or a dict with a string under 'answer'")


def _get_variant(name: str) -> Variant:
    if name not in VARIANTS:
        raise ValueError(f"no variant named {name!r}; there is: {', '.join(VARIANTS)}")
    return VARIANTS[name]


def _mean_by_type(accuracies: Sequence[float], answer_types: Sequence[str] | None) -> dict[str, float]:
    if answer_types is None:
        return {}
    types = as_strings(answer_types, "answer_types")
    if len(types) != len(accuracies):
        raise ValueError(f"expected one answer type for each prediction, got {len(types)} for {len(accuracies)}")
    by_type: defaultdict[str, list[float]] = defaultdict(list)
    for answer_type, accuracy in zip(types, accuracies, strict=True):
        by_type[answer_type].append(accuracy)
    return {answer_type: _mean(by_type[answer_type]) for answer_type in sorted(by_type)}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _standard_error(values: Sequence[float]) -> float:
    if len(values) == 1:
        return math.nan
    mean = _mean(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))
