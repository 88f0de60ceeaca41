"""Calibration of evaluation folders: what is fitted to one split's predictions, and its use on another split's."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hf_llava_vqa.data import load_folder
from hf_llava_vqa.data.benchmark import Benchmark
from hf_llava_vqa.data.reading.files import read_json
from hf_llava_vqa.data.scoring import share
from hf_llava_vqa.data.submissions import answers_of_all
from hf_llava_vqa.errors import ConfigError, RecordError, in_line
from hf_llava_vqa.generation import Question, questions
from hf_llava_vqa.reports.calibration import Answered, with_temperature
from hf_llava_vqa.reports.evaluation import (
    PREDICTIONS_FILE,
    SCORES_FILE,
    Prediction,
    read_predictions,
    template_of,
    write_evaluation,
    write_predictions,
)

UNANSWERABLE = "unanswerable"


@dataclass(frozen=True)
class Evaluated:
    """A folder written by `scripts/evaluate.py`, with the questions that were asked."""

    folder: Path
    benchmark: Benchmark
    scores: Mapping[str, Any]
    asked: list[Question]
    predictions: list[Prediction]

    @property
    def split(self) -> str:
        """The split that was answered."""
        return str(self.scores["settings"]["split"])


def read_evaluated(folder: Path, benchmark: Benchmark, data: str | Path | None) -> Evaluated:
    """Read an evaluation folder, and its questions from the benchmark's files in `data`.

    Raises:
        ConfigError, RecordError: a file is missing or broken; predictions are missing, doubled, of other questions, or
            without a confidence.
    """
    predictions = read_predictions(folder)
    path = folder / SCORES_FILE
    if not path.is_file():
        raise RecordError(f"{path} is missing; write it with scripts/evaluate.py --out {folder}")
    scores = read_json(str(path))
    settings = scores["settings"]
    records = load_folder(benchmark.name, data, split=settings["split"])
    if settings["limit"] is not None:
        records = records.select(range(min(settings["limit"], len(records))))
    asked = list(questions(records))
    answers_of_all([dialogue["id"] for _, dialogue in asked], predictions, str(folder))
    for prediction in predictions:
        _check_confidence(prediction, folder)
    return Evaluated(folder, benchmark, scores, asked, predictions)


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
    asked, benchmark = evaluated.asked, evaluated.benchmark
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
    models = [evaluated.scores["model"] for evaluated in (fitted, applied)]
    if models[0] != models[1]:
        raise ConfigError(
            f"{applied.folder} was answered by {models[1]}, {fitted.folder} by {models[0]}; calibrate one model"
        )
    known = {prediction["id"] for prediction in fitted.predictions}
    common = [prediction["id"] for prediction in applied.predictions if prediction["id"] in known]
    if common:
        raise RecordError(
            f"{applied.folder}: question {in_line(common[0])} is in {fitted.folder} too; apply to another split"
        )


def abstain(predictions: list[Prediction], *, temperature: float, threshold: float) -> Iterator[Prediction]:
    """Predictions with confidences at the temperature, and `unanswerable` for answers below the threshold.

    An answer that was replaced is kept as `withheld`; the confidence stays that of this answer.
    """
    for prediction in predictions:
        confidence = float(with_temperature(np.array(prediction["confidence"]), temperature))
        row = {**prediction, "confidence": confidence}
        if prediction["confidence"] < threshold and prediction["answer"] != UNANSWERABLE:
            row |= {"answer": UNANSWERABLE, "withheld": prediction["answer"]}
        yield row


def write_abstained(
    folder: Path,
    evaluated: Evaluated,
    *,
    temperature: float,
    threshold: float,
    data: str | Path | None,
    template: str | None,
) -> list[Prediction]:
    """Write an evaluation folder as `evaluate.py` does, after `abstain`; returns its predictions.

    Args:
        threshold, temperature: fitted to another split.
        data, template: as for `template_of`.

    Raises:
        As `template_of` and `write_evaluation`.
    """
    filled_in = template_of(evaluated.benchmark, evaluated.asked, data, template)
    fitted = {"temperature": temperature, "threshold": threshold}
    folder.mkdir(parents=True, exist_ok=True)
    predictions = write_predictions(
        abstain(evaluated.predictions, **fitted), folder / PREDICTIONS_FILE, total=len(evaluated.predictions)
    )
    write_evaluation(
        folder,
        evaluated.benchmark,
        evaluated.asked,
        predictions,
        model=evaluated.scores["model"],
        role=evaluated.scores["role"],
        settings={**evaluated.scores["settings"], "abstention": fitted},
        template=filled_in,
    )
    return predictions
