"""The VizWiz course competition: VizWiz reshuffled, in column-oriented JSON, answered with a NumPy array.

Annotation files are objects of columns, `{"image": {"0": …}, "question": {"0": …}, "answers": {"0": […]}}`, as pandas
writes them. `valid` is the held-out test: it has no answers, and `submission.npy` holds one answer a row, in order.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from hf_llava_vqa.data.benchmark import Benchmark, Prediction
from hf_llava_vqa.data.files import find_source, in_line, kind_of, read_json
from hf_llava_vqa.data.vizwiz import INSTRUCTION, LabelledRow, check_predictions, group_rows
from hf_llava_vqa.errors import RecordError

COLUMNS_SHAPE = '{"image": {"0": …}, "question": {"0": …}, "answers": {"0": […]}}'


def read(
    split: str,
    *,
    root: str | Path | None = None,
    annotations: str | Path | None = None,
    images: str | Path | None = None,
) -> Iterator[dict[str, Any]]:
    """Read a split; arguments, records and errors as in `vizwiz.read`. Rows are called by their index in the file."""
    file, store = find_source(split, root, annotations, images)
    yield from group_rows(_rows(file), store, file=file, source="vizwiz_competition", split=split)


def _rows(file: str) -> Iterator[LabelledRow]:
    columns = read_json(file)
    if isinstance(columns, list):
        raise RecordError(f"{file}: a list of rows; read it with the source vizwiz")
    if not isinstance(columns, dict):
        raise RecordError(f"{file}: expected columns {COLUMNS_SHAPE}, found {kind_of(columns)}")
    for name in dict.fromkeys(["image", "question", *columns]):
        if not isinstance(columns.get(name), dict):
            found = kind_of(columns[name]) if name in columns else "nothing"
            raise RecordError(
                f"{file}: column {in_line(name)} must be an object, found {found}; expected {COLUMNS_SHAPE}"
            )
        _check_index(file, name, columns[name], columns["image"])
    if not columns["image"]:
        raise RecordError(f"{file}: there are no rows; download it again")
    for label in columns["image"]:
        yield in_line(label), {name: column[label] for name, column in columns.items()}


def _check_index(file: str, name: str, column: dict[str, Any], images: dict[str, Any]) -> None:
    for label in images.keys() - column.keys():
        raise RecordError(
            f"{file}, row {in_line(label)}: column {in_line(name)} has no such row; expected {COLUMNS_SHAPE}"
        )
    for label in column.keys() - images.keys():
        raise RecordError(f"{file}, row {in_line(label)}: column image has no such row; expected {COLUMNS_SHAPE}")


def submit(predictions: Sequence[Prediction], path: Path) -> None:
    """Write `submission.npy`: a one-dimensional array of strings, row k answering `valid_<k>.jpg`.

    Answers count by position, so predictions are sorted by the number in the image's name, and none may be missing.

    Raises:
        RecordError: no predictions, two for one image, an image without a number, a gap, or an answer that NumPy
            would change.
    """
    check_predictions(predictions)
    ordered = sorted(predictions, key=_number)
    for row, prediction in enumerate(ordered):
        if _number(prediction) != row:
            raise RecordError(f"no prediction for image number {row}: submission.npy answers by position")
    answers = [prediction["answer"] for prediction in ordered]
    array = np.array(answers, dtype=np.str_)
    for prediction, stored in zip(ordered, array.tolist(), strict=True):
        if stored != prediction["answer"]:
            raise RecordError(f"{prediction['image_id']}: answer {prediction['answer']!r} ends in a null character")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def _number(prediction: Prediction) -> int:
    digits = PurePosixPath(prediction["image_id"]).stem.rpartition("_")[2]
    if not (digits.isascii() and digits.isdigit()):
        raise RecordError(f"{prediction['image_id']}: expected a name such as valid_00000.jpg, which tells its row")
    return int(digits)


BENCHMARK = Benchmark(
    name="vizwiz_competition",
    splits=("train", "valid"),
    read=read,
    instruction=INSTRUCTION,
    metric="vizwiz_accuracy",
    metric_variant="competition",
    submission_file="submission.npy",
    submit=submit,
)
