"""Calibration of evaluation folders: what is fitted to one split's predictions, and its use on another split's."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hf_llava_vqa.data.scoring import share
from hf_llava_vqa.data.submissions import answers_of_all
from hf_llava_vqa.errors import ConfigError, RecordError, in_line
from hf_llava_vqa.generation import Question, questions
from hf_llava_vqa.reports.calibration import Answered, with_temperature
from hf_llava_vqa.reports.evaluation import Part, evaluate, load_part
from hf_llava_vqa.reports.predictions import Prediction, read_predictions
from hf_llava_vqa.reports.scores import Scores, benchmark_folder, read_scores

UNANSWERABLE = "unanswerable"


@dataclass(frozen=True)
class Evaluated:
    """What `scripts/evaluate.py` wrote of one benchmark, with the questions that were asked."""

    folder: Path
    part: Part
    scores: Mapping[str, Any]  # the content of scores.json
    asked: list[Question]
    predictions: list[Prediction]


def read_evaluated(folder: Path, name: str, data: str | None, template: str | None = None) -> Evaluated:
    """Read an evaluation folder, and the questions from the benchmark's files.

    Args:
        name: of the benchmark.
        data, template: as for `load_part`.

    Raises:
        ConfigError, RecordError: a file is missing or broken; predictions are missing, doubled, of other questions, or
            without a confidence.
    """
    scores = read_scores(folder)
    settings = scores["settings"]["benchmarks"]
    if name not in settings:
        raise RecordError(f"{folder} has no answers to {name}; it has: {', '.join(settings) or 'none'}")
    predictions = read_predictions(benchmark_folder(folder, settings, name))
    limit = scores["settings"].get("limit")
    part = load_part(name, data=data, split=settings[name]["split"], limit=limit, template=template)
    asked = list(questions(part.records))
    answers_of_all([dialogue["id"] for _, dialogue in asked], predictions, str(folder))
    for prediction in predictions:
        _check_confidence(prediction, folder)
    return Evaluated(folder, part, scores, asked, predictions)


def _check_confidence(prediction: Prediction, folder: Path) -> None:
    value = prediction.get("confidence")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise RecordError(
            f"{folder}: {in_line(prediction['id'])}: confidence must be a number from 0 to 1, found {value!r}; "
            "answer again with scripts/evaluate.py"
        )


def credited(evaluated: Evaluated) -> Answered:
    """The credit of each answer, and of `unanswerable` in its place.

    Raises:
        RecordError: a question without answers.
        ConfigError: a benchmark whose score is not the mean of its answers' credits.
    """
    asked, benchmark = evaluated.asked, evaluated.part.benchmark
    unlabelled = [dialogue["id"] for _, dialogue in asked if not dialogue["answers"]]
    if unlabelled:
        raise RecordError(
            f"{evaluated.folder}: question {in_line(unlabelled[0])} has no answers; calibrate on a split that has them"
        )
    by_id = {prediction["id"]: prediction for prediction in evaluated.predictions}
    scores = benchmark.score({id: prediction["answer"] for id, prediction in by_id.items()}, asked)
    if scores.combine is not share:
        raise ConfigError(f"{benchmark.name}: its score is no mean over answers, which no threshold maximises")
    return Answered(
        confidence=np.array([by_id[dialogue["id"]]["confidence"] for _, dialogue in asked], dtype=float),
        credit=np.array(scores.per_question),
        abstaining=np.array(benchmark.score(dict.fromkeys(by_id, UNANSWERABLE), asked).per_question),
        image_ids=[record["image_id"] for record, _ in asked],
    )


def check_applicable(fitted: Evaluated, applied: Evaluated) -> None:
    """Raise unless both were answered by one model, and no question is in both.

    A threshold looks better than it is where it was chosen.
    """
    weights = [evaluated.scores["settings"].get("weights") for evaluated in (fitted, applied)]
    if weights[0] != weights[1]:
        models = [evaluated.scores["model"] for evaluated in (fitted, applied)]
        raise ConfigError(
            f"{applied.folder} was answered by {models[1]}, {fitted.folder} by {models[0]} with other weights; "
            "calibrate one model"
        )
    known = {prediction["id"] for prediction in fitted.predictions}
    common = [prediction["id"] for prediction in applied.predictions if prediction["id"] in known]
    if common:
        raise RecordError(
            f"{applied.folder}: question {in_line(common[0])} is in {fitted.folder} too; apply to another split"
        )


def abstain(predictions: Iterable[Prediction], *, temperature: float, threshold: float) -> Iterator[Prediction]:
    """Predictions with confidences at the temperature, and `unanswerable` for answers below the threshold.

    An answer that was replaced is kept as `withheld`; the confidence stays that of this answer.
    """
    for prediction in predictions:
        confidence = float(with_temperature(np.array(prediction["confidence"]), temperature))
        row = {**prediction, "confidence": confidence}
        if prediction["confidence"] < threshold and prediction["answer"] != UNANSWERABLE:
            row |= {"answer": UNANSWERABLE, "withheld": prediction["answer"]}
        yield row


def write_abstained(folder: Path, evaluated: Evaluated, *, temperature: float, threshold: float) -> list[Prediction]:
    """Write an evaluation folder as `scripts/evaluate.py` does, after `abstain`; returns its predictions.

    Args:
        temperature, threshold: fitted to another split.

    Raises:
        As `Scores` and `evaluate`.
    """
    part, settings = evaluated.part, dict(evaluated.scores["settings"])
    benchmarks = settings.pop("benchmarks")
    fitted = {"temperature": temperature, "threshold": threshold}
    scores = Scores(
        folder,
        model=evaluated.scores["model"],
        role=evaluated.scores["role"],
        settings={**settings, "abstention": fitted},
        benchmarks={part.benchmark.name: benchmarks[part.benchmark.name]},
    )
    evaluate(
        part, scores, lambda _, known: abstain((p for p in evaluated.predictions if p["id"] not in known), **fitted)
    )
    return read_predictions(folder)
