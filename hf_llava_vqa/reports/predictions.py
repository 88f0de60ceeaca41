"""`predictions.jsonl`: written while a model answers, taken up again after an interruption, read by whoever compares.

A line is a prediction, `{"id", "image_id", "question", "answer", "confidence"}`. While the model answers, lines come as
it is done with them; a finished file has the order of the questions.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from hf_llava_vqa.data.prepared.manifest import write_whole
from hf_llava_vqa.errors import RecordError, in_line
from hf_llava_vqa.generation import Question

Prediction = dict[str, Any]
PREDICTIONS_FILE = "predictions.jsonl"
_TEXTS = ("id", "image_id", "question", "answer")
_ANEW = "delete the file to answer anew, or choose another --out"


def read_predictions(folder: Path) -> list[Prediction]:
    """The predictions in an evaluation folder; raises `RecordError` naming a line that is none, or doubles another."""
    path = folder / PREDICTIONS_FILE
    if not path.is_file():
        raise RecordError(f"{path} is missing; write it with scripts/evaluate.py --out {folder}")
    return [prediction for _, prediction in _by_id(path).values()]


def earlier_predictions(path: Path, asked: Sequence[Question]) -> dict[str, Prediction]:
    """What an interrupted run answered already, by id. A last line that it did not finish is cut off the file.

    Raises:
        RecordError: questions that share an id; a line that is no prediction, answers a question for the second time,
            or one that is not asked.
    """
    wanted = {dialogue["id"]: (record["image_id"], dialogue["turns"][-1]["content"]) for record, dialogue in asked}
    if len(wanted) < len(asked):
        [(doubled, _)] = Counter(dialogue["id"] for _, dialogue in asked).most_common(1)
        raise RecordError(f"two questions are called {in_line(doubled)}; predictions are told apart by their ids")
    if not path.is_file():
        return {}
    _cut_unfinished_line(path)
    known = {}
    for id, (where, prediction) in _by_id(path).items():
        if id not in wanted:
            raise RecordError(f"{where}: {in_line(id)} is not among the questions; {_ANEW}")
        if wanted[id] != (prediction["image_id"], prediction["question"]):
            raise RecordError(f"{where}: {in_line(id)} is another question now than when it was answered; {_ANEW}")
        known[id] = prediction
    return known


def write_predictions(
    predictions: Iterable[Prediction], path: Path, asked: Sequence[Question], known: Mapping[str, Prediction]
) -> list[Prediction]:
    """Append predictions to the file as they come, with a progress bar on terminals, then put it in order.

    Args:
        predictions: for all questions that are not in `known`, in any order.
        asked: all questions.
        known: the predictions in the file.

    Returns:
        The predictions of all questions, in order.
    """
    answered = dict(known)
    bar = tqdm(predictions, initial=len(known), total=len(asked), desc="answering", unit="question", disable=None)
    with path.open("a", encoding="utf-8") as file:
        for prediction in bar:
            file.write(_line(prediction))
            file.flush()
            answered[prediction["id"]] = prediction
    in_order = {dialogue["id"]: answered[dialogue["id"]] for _, dialogue in asked}
    if list(in_order) != list(answered):
        write_whole(path, "".join(map(_line, in_order.values())))
    return list(in_order.values())


def _line(prediction: Prediction) -> str:
    return json.dumps(prediction, ensure_ascii=False) + "\n"


def _cut_unfinished_line(path: Path) -> None:
    with path.open("rb+") as file:
        file.truncate(file.read().rfind(b"\n") + 1)


def _by_id(path: Path) -> dict[str, tuple[str, Prediction]]:
    """Where each prediction stands, and the prediction, by the id of its question."""
    predictions: dict[str, tuple[str, Prediction]] = {}
    for where, prediction in _lines(path):
        if prediction["id"] in predictions:
            raise RecordError(f"{where}: a second prediction for {in_line(prediction['id'])}; {_ANEW}")
        predictions[prediction["id"]] = where, prediction
    return predictions


def _lines(path: Path) -> Iterator[tuple[str, Prediction]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}, line {number}"
            try:
                prediction = json.loads(line)
            except ValueError:  # of the JSON, or of its encoding
                raise RecordError(f"{where}: not JSON; {_ANEW}") from None
            if not isinstance(prediction, dict) or not all(isinstance(prediction.get(key), str) for key in _TEXTS):
                raise RecordError(f"{where}: not a prediction with {', '.join(_TEXTS)}; {_ANEW}")
            yield where, prediction
