"""How VQA scorers read an answer and count its agreement with the human ones: pure functions on strings.

A scorer is one entry of `VARIANTS`. All of them hold out one annotator at a time, give the prediction
`min(1, matches among the others / 3)` and average over the annotators; they differ in how they read strings. One
answer alone leaves nobody to agree with: there, and only there, we depart from all of them and count a match as 1.
"""

import functools
import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .contractions import COMPETITION_CONTRACTIONS, OFFICIAL_CONTRACTIONS, VIZWIZ_CONTRACTIONS
from .inputs import all_strings, as_labels, as_list, as_strings, check_lengths

Answer = str | Mapping[str, str]

PUNCTUATION = frozenset(';/[]"{}()=+\\_-><@`,?!')
# "unknown" is for questions that their data set does not label.
ANSWER_TYPES = ("yes/no", "number", "other", "unanswerable", "unknown")
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
COMMA_IN_NUMBER = re.compile(r"\d,\d")
PERIOD = re.compile(r"\.(?!\d)")
# The official scorer passes a regex flag where `sub` takes its count, so later periods stay.
PERIODS_DELETED = 32


def normalize_vqa(text: str, contractions: Mapping[str, str] = OFFICIAL_CONTRACTIONS) -> str:
    """Normalise as the official VQA scorer (GT-Vision-Lab/VQA, 2021), with its contraction table or another."""
    text = _delete_punctuation(strip_vqa(text))
    text = PERIOD.sub("", text, count=PERIODS_DELETED)
    words = [VQA_DIGITS.get(word, word) for word in text.lower().split()]
    return " ".join([contractions.get(word, word) for word in words if word not in ARTICLES])


def strip_vqa(text: str) -> str:
    """Take the official VQA scorer's first step, on which it decides whether all answers are equal."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def _delete_punctuation(text: str) -> str:
    """A mark beside a space is deleted wherever it occurs, any other becomes a space; a number such as 1,000
    anywhere in the text makes every mark be deleted."""
    marks = PUNCTUATION.intersection(text)
    delete_all = "," in marks and COMMA_IN_NUMBER.search(text) is not None
    result = text
    for mark in marks:
        delete = delete_all or f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if delete else " ")
    return result


def normalize_m4c(text: str) -> str:
    """Normalise as the EvalAI processor in MMF, LLaVA and lmms-eval: commas and question marks vanish and possessives
    are split off first ("red,white" becomes "redwhite", "women's" "women 's"), then as the official scorer."""
    return normalize_vqa(text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip())


def normalize_competition(text: str) -> str:
    """Normalise as `process_text` of the DL lecture competition's baseline: number words and contractions are
    replaced inside words too ("phone" becomes "ph1", "cantaloupe" "can'taloupe")."""
    text = text.lower()
    for word, digit in DIGITS.items():
        text = text.replace(word, digit)
    text = _delete_periods_and_articles(text)
    for word, spelling in COMPETITION_CONTRACTIONS.items():
        text = text.replace(word, spelling)
    return _delete_marks(text)


def normalize_competition_fixed(text: str) -> str:
    """Normalise as `normalize_competition` was meant: only whole words are replaced."""
    text = _replace_words(text.lower(), DIGITS)
    return _delete_marks(_replace_words(_delete_periods_and_articles(text), COMPETITION_CONTRACTIONS))


def _delete_periods_and_articles(text: str) -> str:
    return re.sub(r"\b(a|an|the)\b", "", re.sub(r"(?<!\d)\.(?!\d)", "", text))


def _delete_marks(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s':]", " ", text).split())


def _replace_words(text: str, table: Mapping[str, str]) -> str:
    return re.sub(rf"\b({'|'.join(table)})\b", lambda match: table[match[0]], text)


@dataclass(frozen=True)
class Variant:
    """One scorer's rules."""

    read_prediction: Callable[[str], str]
    read_answer: Callable[[str], str]
    read_unanimous: Callable[[str], str] | None = None  # reads a question's strings if its answers are equal in it
    answers_needed: int | None = None  # None: any number
    divisor: int | None = None  # divides the sum over annotators; None: their number

    def memoized(self) -> "Variant":
        """Return the same rules with caches of their own: answers repeat a lot within one data set."""
        unanimous = self.read_unanimous
        return replace(
            self,
            read_prediction=functools.cache(self.read_prediction),
            read_answer=functools.cache(self.read_answer),
            read_unanimous=None if unanimous is None else functools.cache(unanimous),
        )

    def read(self, prediction: str, answers: Sequence[str]) -> tuple[str, list[str]]:
        """Return the strings that are compared: the prediction's and, in order, the answers'."""
        if self.read_unanimous is not None:
            readings = list(map(self.read_unanimous, answers))
            if readings.count(readings[0]) == len(readings):
                return self.read_unanimous(prediction), readings
        return self.read_prediction(prediction), list(map(self.read_answer, answers))

    def accuracy(self, prediction: str, answers: Sequence[str]) -> float:
        """Return the accuracy of one prediction against the answers of all annotators."""
        wanted, readings = self.read(prediction, answers)
        matches = readings.count(wanted)
        if len(readings) == 1:
            return float(matches)
        others = len(readings) - matches
        thirds = matches * min(matches - 1, 3) + others * min(matches, 3)
        return thirds / (3 * (self.divisor or len(readings)))


VARIANTS = {
    # VizWiz ships cleaned answers: its scorer (Qing Li's API) compares them as they are.
    "vizwiz": Variant(functools.partial(normalize_vqa, contractions=VIZWIZ_CONTRACTIONS), str),
    "vqa": Variant(normalize_vqa, normalize_vqa, read_unanimous=strip_vqa),
    "m4c": Variant(normalize_m4c, normalize_m4c, answers_needed=10),
    "competition": Variant(normalize_competition, normalize_competition, divisor=10),
    "competition_fixed": Variant(normalize_competition_fixed, normalize_competition_fixed),
}


def normalize_answer(text: str, variant: str = "vizwiz") -> str:
    """Return the text as the variant's scorer reads a prediction.

    Under `vqa` it does so only if the answers to the question differ; see `Variant.read`.

    Raises:
        ValueError: there is no such variant, or `text` is not a string.
    """
    return _get_variant(variant).read_prediction(*as_strings([text], "text"))


def answer_accuracy(prediction: str, answers: Sequence[Answer], variant: str = "vizwiz") -> float:
    """Return the accuracy, from 0 to 1, of one prediction against the answers of one question.

    With ten answers, 0, 1, 2, 3, 4 or more matches give 0, .3, .6, .9, 1; with one, a match gives 1. The variant
    `competition` divides by ten whatever the number of answers is, so with more than ten it can pass 1.

    Raises:
        ValueError: as `score`.
    """
    return score([prediction], [answers], variant)["accuracy"]


def explain(prediction: str, answers: Sequence[Answer], variant: str = "vizwiz") -> dict[str, Any]:
    """Return why a prediction scores what it does.

    Returns:
        `accuracy`, and what the scorer compares: `prediction` (string) and `answers` (list, in the order given).

    Raises:
        ValueError: as `score`.
    """
    accuracy = answer_accuracy(prediction, answers, variant)
    (text,), (given,) = plain_inputs([prediction], [answers])
    wanted, readings = VARIANTS[variant].read(text, given)
    return {"accuracy": accuracy, "prediction": wanted, "answers": readings}


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
        references: for each question its human answers, at least one (for `m4c` ten): strings, or VizWiz's dicts
            `{"answer", "answer_confidence"}`, of which `answer` is read.
        variant: the scorer to follow, a key of `VARIANTS`.
        answer_types: one of `ANSWER_TYPES` for each question, by which accuracy is reported too.
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
    if rules.answers_needed is not None:
        _check_counts(answers, rules.answers_needed, variant)
    per_question = [rules.accuracy(text, given) for text, given in zip(texts, answers, strict=True)]
    result: dict[str, Any] = {
        "accuracy": _mean(per_question),
        "accuracy_percent": round(100 * _mean(per_question), 2),
        "per_answer_type": {} if answer_types is None else _mean_by_type(per_question, answer_types),
        "standard_error": _standard_error(per_question),
        "n": len(per_question),
    }
    if return_per_question:
        result["per_question"] = per_question
    return result


def plain_inputs(predictions: Any, references: Any) -> tuple[list[str], list[list[str]]]:
    """Return the predictions and, for each, its human answers as lists of strings; changes nothing.

    Raises:
        ValueError: an entry is not what `score` takes, or the lists are empty or differ in length.
    """
    texts = as_strings(predictions, "predictions")
    rows = enumerate(as_list(references, "references"))
    answers = [_plain_answers(given, f"references[{row}]") for row, given in rows]
    check_lengths(predictions=texts, references=answers)
    return texts, answers


def _plain_answers(answers: Any, place: str) -> list[str]:
    items = as_list(answers, place)
    if all_strings(items):
        return items
    texts = [item["answer"] if isinstance(item, dict) and "answer" in item else item for item in items]
    return as_strings(texts, place, expected="a string or a dict with a string under 'answer'")


def _check_counts(references: Sequence[Sequence[str]], needed: int, variant: str) -> None:
    for row, answers in enumerate(references):
        if len(answers) != needed:
            raise ValueError(f"references[{row}]: expected {needed} answers for variant {variant}, got {len(answers)}")


def _get_variant(name: str) -> Variant:
    if not isinstance(name, str) or name not in VARIANTS:
        raise ValueError(f"no variant named {name!r}; there is: {', '.join(VARIANTS)}")
    return VARIANTS[name]


def _mean_by_type(accuracies: Sequence[float], answer_types: Sequence[str]) -> dict[str, float]:
    types = as_labels(answer_types, "answer_types", ANSWER_TYPES)
    check_lengths(predictions=accuracies, answer_types=types)
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
