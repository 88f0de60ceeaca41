"""The VizWiz course competition: VizWiz reshuffled, in column-oriented JSON, answered with a NumPy array.

Annotation files are objects of columns, `{"image": {"0": …}, "question": {"0": …}, "answers": {"0": […]}}`, as pandas
writes them. `valid` is the held-out test: it has no answers, and `submission.npy` holds one answer a row, in order.
What the organisers hint at is here too: processed questions, and the answer vocabulary `class_mapping.csv`.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from hf_llava_vqa.data.benchmark import Benchmark, Prediction
from hf_llava_vqa.data.benchmarks.vizwiz import INSTRUCTION, LabelledRow, Row, check_predictions, group_rows
from hf_llava_vqa.data.reading.files import find_source, kind_of, read_json
from hf_llava_vqa.data.reading.questions import Fields
from hf_llava_vqa.data.reading.tables import read_table
from hf_llava_vqa.data.scoring import score_agreement
from hf_llava_vqa.errors import ConfigError, RecordError, in_line
from hf_llava_vqa.metrics.vizwiz_accuracy.answer_rules import normalize_answer

COLUMNS_SHAPE = '{"image": {"0": …}, "question": {"0": …}, "answers": {"0": […]}}'
QUESTIONS = ("raw", "processed")


def read(
    split: str,
    *,
    root: str | Path | None = None,
    annotations: str | Path | None = None,
    images: str | Path | None = None,
    questions: str = "raw",
    follow_symlinks: bool = False,
) -> Iterator[dict[str, Any]]:
    """Read a split; arguments, records and errors as in `vizwiz.read`. Rows are called by their index in the file.

    Args:
        questions: "raw", or "processed" by `process_question`; the raw question is then kept in `metadata`.

    Raises:
        ConfigError: another value of `questions`.
    """
    if questions not in QUESTIONS:
        raise ConfigError(f"vizwiz_competition: questions must be {' or '.join(QUESTIONS)}, not {questions!r}")
    file, store = find_source(split, root, annotations, images, follow_symlinks=follow_symlinks)
    rows = _rows(file)
    if questions == "processed":
        rows = ((label, _processed(row)) for label, row in rows)
    yield from group_rows(rows, store, file=file, source="vizwiz_competition", split=split)


def process_question(text: str) -> str:
    """Read a question as the metric's variant `competition_fixed` reads an answer.

    That is the baseline's `process_text` without its slips: lower case; number words as digits, articles deleted,
    apostrophes restored, all of them for whole words only; other marks than `'` and `:` become spaces. A question of
    which nothing would be left stays as it is.
    """
    return normalize_answer(text, "competition_fixed") or text


def _processed(row: Row) -> Row:
    question = row["question"]
    if not isinstance(question, str):  # refused by name in `group_rows`
        return row
    return {**row, "question": process_question(question), "raw_question": question}


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


def read_class_mapping(path: str | Path) -> list[str]:
    """Read an answer vocabulary, CSV with the columns `answer` and `class_id`, as published with VizWiz-CLIP-VQA.

    Returns:
        The answers in the order of their class ids, to be used as candidates.

    Raises:
        RecordError: as `read_table`; an empty answer, a class id that is no number, either of them given twice.
    """
    file = str(path)
    answers: dict[int, str] = {}
    lines: dict[str | int, int] = {}
    for line, row in read_table(file, ("answer", "class_id")):
        where = f"{file}, line {line}"
        answer, id = Fields(row, where, "answer, class_id").text("answer"), row["class_id"].strip()
        if not re.fullmatch("[0-9]{1,9}", id):
            raise RecordError(f"{where}: class_id must be a whole number, found {id[:9]!r}")
        for value in (answer, int(id)):
            if lines.setdefault(value, line) != line:
                raise RecordError(f"{where}: {value!r} stands in line {lines[value]} too; remove one")
        answers[int(id)] = answer
    return [answers[id] for id in sorted(answers)]


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
    evaluation_split="valid",
    score_answers=score_agreement,
    submission_file="submission.npy",
    submit=submit,
)
