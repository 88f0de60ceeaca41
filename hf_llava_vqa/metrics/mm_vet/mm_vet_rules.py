"""MM-Vet: answers for its grader, and the official aggregation of the grades. Pure functions that call nobody."""

import statistics
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from .rows import Row, expected, identifier, list_of, mean, mean_by, number, pair, row_of, text

_ID_PREFIX = "v1_"

read_reference = row_of({"capabilities": list_of(text, at_least=1)}, {})


def _read_grade(value: Any, place: str) -> float:
    if not 0 <= number(value, place) <= 1:
        raise expected("a grade from 0 to 1", value, place)
    return float(value)


_read_grades = list_of(_read_grade, at_least=1)
_read_answers = list_of(row_of({"question_id": identifier, "text": text}, {}))
_read_entry = row_of({"score": _read_grades}, {})
_read_question = row_of({"capability": list_of(text, at_least=1)}, {})


def read_prediction(value: Any, place: str) -> list[float]:
    """Read the grades of one answer, one a run of the grader; a number is that of a single run."""
    if isinstance(value, Real):
        return [_read_grade(value, place)]
    return _read_grades(value, place)


def answers_for_grader(answers: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the model's answers as MM-Vet's grader takes them, a JSON object of text by question id.

    Args:
        answers: `{"question_id", "text"}`; an id is the question's number or "v1_" and the number.

    Raises:
        ValueError: an id occurs twice, or an entry has another form.
    """
    by_id: dict[str, str] = {}
    for row, answer in enumerate(_read_answers(answers, "answers")):
        name = _ID_PREFIX + answer["question_id"].removeprefix(_ID_PREFIX)
        if name in by_id:
            raise ValueError(f"answers[{row}]: expected ids that differ, got {name!r} again")
        by_id[name] = answer["text"]
    return by_id


def read_grades(
    grades: Mapping[str, Mapping[str, Any]], questions: Mapping[str, Mapping[str, Any]]
) -> tuple[list[Row], list[Row]]:
    """Return predictions and references, for `score`, of the grader's output.

    Args:
        grades: its grade file, `{"score": [one a run]}` by question id.
        questions: mm-vet.json, `{"capability": [names]}` by question id.

    Raises:
        ValueError: an entry has another form.
    """
    entries = {name: _read_entry(entry, f"grades.{name}") for name, entry in grades.items()}
    needs = {name: _read_question(question, f"questions.{name}") for name, question in questions.items()}
    predictions = [{"id": name, "prediction": entry["score"]} for name, entry in entries.items()]
    references = [{"id": name, "capabilities": question["capability"]} for name, question in needs.items()]
    return predictions, references


def score(predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, Any]:
    """Aggregate the grades of MM-Vet.

    Args:
        predictions: for each answer its grades, 0 to 1, one a run of the grader (or one number), in the references'
            order, or `{"id", "prediction"}` in any order.
        references: the capabilities that each question needs, or `{"capabilities", "id"}`.

    Returns:
        `score`, 0 to 1, the mean over questions and runs; `score_percent`, with one decimal, as officially printed;
        `standard_deviation` of the runs' scores, and `runs`, those scores; `by_capability`, of the questions that
        need it, and `by_integration`, of those that need just these, joined by "_"; `n`.

    Raises:
        ValueError: an argument has another form, or the numbers of runs differ; the message names the place.
    """
    grades, rows = pair(predictions, references, read_reference, read_prediction)
    for index, of_answer in enumerate(grades):
        if len(of_answer) != len(grades[0]):
            raise ValueError(f"references[{index}]: expected {len(grades[0])} grades, as before, got {len(of_answer)}")
    runs = [mean(of_run) for of_run in zip(*grades, strict=True)]
    means = [mean(of_answer) for of_answer in grades]
    needs = [sorted(set(row["capabilities"])) for row in rows]
    return {
        "score": mean(runs),
        "score_percent": round(100 * mean(runs), 1),
        "standard_deviation": statistics.pstdev(runs),
        "runs": runs,
        "by_capability": mean_by(
            [grade for grade, names in zip(means, needs, strict=True) for _ in names],
            [name for names in needs for name in names],
        ),
        "by_integration": mean_by(means, ["_".join(names) for names in needs]),
        "n": len(rows),
    }
