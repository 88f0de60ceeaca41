"""TextVQA: questions recovered from LLaVA's prompts, and m4c accuracy. Pure functions."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .answer_rules import score as score_answers
from .rows import Reader, identifier, list_of, pair, row_of, text

ANSWERS = 10  # of every question; the scorer is defined for this number only


def _read_answer(value: Any, place: str) -> str:
    """Read an answer, a string or a dict that holds it as VizWiz's annotations do."""
    if isinstance(value, Mapping):
        return text(value.get("answer"), f"{place}.answer")
    return text(value, place)


_read_answers: Reader = list_of(_read_answer, at_least=ANSWERS)
_read_lines = list_of(row_of({"question_id": identifier, "prompt": text, "text": text}, {}))
_read_annotations = list_of(row_of({"image_id": identifier, "question": text, "answers": _read_answers}, {}))

read_reference: Reader = row_of({"answers": _read_answers}, {})


def recover_question(prompt: str) -> str:
    """Return the question, in lower case, that one of LLaVA's prompts for TextVQA asks.

    It stands between "Question: " and " Short answer:" if the prompt starts with "OCR tokens: "; else it is the first
    of two lines, or of three with a "Reference OCR token: " of which it follows the one that starts the prompt.

    Raises:
        ValueError: the prompt is none of these.
    """
    lines = prompt.split("\n")
    if prompt.startswith("OCR tokens: "):
        found = re.search("Question: (.*?) Short answer:", prompt, re.DOTALL)
        if found:
            return found[1].lower()
    elif "Reference OCR token: " in prompt and len(lines) == 3:
        return lines[prompt.startswith("Reference OCR token:")].lower()
    elif len(lines) == 2:
        return lines[0].lower()
    raise ValueError(f"expected one of LLaVA's prompts for TextVQA, got {prompt!r:.60}")


def pair_llava(
    answers: Sequence[Mapping[str, Any]], annotations: Sequence[Mapping[str, Any]]
) -> tuple[list[str], list[dict[str, Any]]]:
    """Return predictions and references of LLaVA's answer file and TextVQA's annotations.

    Args:
        answers: the lines of the answer file, `{"question_id", "prompt", "text"}`; the id is the image's.
        annotations: the entries under `data` in the annotation file, `{"image_id", "question", "answers"}`. Of two
            entries with the same image and question the later one counts, as in LLaVA.

    Raises:
        ValueError: an entry has another form, a prompt is not LLaVA's, an answer has no annotation, or an annotation
            no answer.
    """
    lines = _read_lines(answers, "answers")
    entries = _read_annotations(annotations, "annotations")
    human_answers = {(entry["image_id"], entry["question"].lower()): entry["answers"] for entry in entries}
    keys = [(line["question_id"], _question(line["prompt"], row)) for row, line in enumerate(lines)]
    for row, key in enumerate(keys):
        if key not in human_answers:
            raise ValueError(f"answers[{row}]: no annotation has the image {key[0]!r} and the question {key[1]!r:.60}")
    unanswered = human_answers.keys() - set(keys)
    if unanswered:
        image, question = min(unanswered)
        raise ValueError(
            f"answers: expected one to each question, got none to {question!r:.60} about the image {image!r}"
            f" ({len(unanswered)} are missing)"
        )
    return [line["text"] for line in lines], [{"answers": human_answers[key]} for key in keys]


def _question(prompt: str, row: int) -> str:
    try:
        return recover_question(prompt)
    except ValueError as error:
        raise ValueError(f"answers[{row}].prompt: {error}") from None


def score(predictions: Sequence[Any], references: Sequence[Any], return_per_question: bool = False) -> dict[str, Any]:
    """Score TextVQA.

    Args:
        predictions: raw texts in the references' order, or `{"id", "prediction"}` in any order.
        references: for each question its ten human answers, strings or dicts with `answer`; or `{"answers", "id"}`.
        return_per_question: add the accuracy of every question, in the references' order.

    Returns:
        `accuracy` (m4c: mean over the questions, 0 to 1), `accuracy_percent` (with two decimals, as LLaVA prints it),
        `standard_error` (questions taken as independent; nan for a single one), `n` and, on request, `per_question`.

    Raises:
        ValueError: an argument has another form; the message names the place.
    """
    texts, rows = pair(predictions, references, read_reference)
    answers = [row["answers"] for row in rows]
    result = score_answers(texts, answers, variant="m4c", return_per_question=return_per_question)
    return {name: value for name, value in result.items() if name != "per_answer_type"}
