"""Dacon's image question answering competition (no. 236118): 107,231 pictures, 359,521 questions, one answer each.

`train.csv` has the columns `ID, image_id, question, answer`, `test.csv` lacks the last; images are `<image_id>.png` or
`.jpg`. The server takes `sample_submission.csv` with its answers filled in.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hf_llava_vqa.data.benchmark import Benchmark, Prediction
from hf_llava_vqa.data.reading.files import ImageStore, find_file, find_images
from hf_llava_vqa.data.reading.questions import Fields, Question, group_questions, locate
from hf_llava_vqa.data.reading.tables import find_columns, read_rows, read_table
from hf_llava_vqa.data.scoring import score_agreement
from hf_llava_vqa.data.submissions import answers_of_all
from hf_llava_vqa.records import make_dialogue

_ARCHIVE = "open.zip"  # the download: annotations, and the images in image/train and image/test
_COLUMNS = {"train": ("ID", "image_id", "question", "answer"), "test": ("ID", "image_id", "question")}
_KNOWN = _COLUMNS["train"]
_SUFFIXES = (".png", ".jpg")


def read(
    split: str,
    *,
    root: str | Path | None = None,
    annotations: str | Path | None = None,
    images: str | Path | None = None,
    follow_symlinks: bool = False,
) -> Iterator[dict[str, Any]]:
    """Read a split, from `root` or from the files named by `annotations` and `images`.

    Args:
        root: folder with `train.csv` and `image/train/` or `train/`, or with `open.zip` as downloaded.
        annotations: the CSV file.
        images: the folder, zip or tar archive with its images.
        follow_symlinks: allow links in the folder of images that lead out of it.

    Yields:
        One record an image, in the order in which images first appear; its questions are dialogues called by the
        row's ID. Further columns are kept in the dialogue's `metadata`.

    Raises:
        ConfigError: too few paths.
        RecordError: a file, a row or an image that is missing or has another shape; lines count from 1.
    """
    name = f"{split}.csv"
    file = find_file(root, annotations, name, archive=_ARCHIVE, keyword="annotations")
    store = find_images(
        root, images, f"image/{split}", split, _ARCHIVE.removesuffix(".zip"), follow_symlinks=follow_symlinks
    )
    yield from group_questions(_questions(file, split, store), store, source="dacon", split=split)


def _questions(file: str, split: str, store: ImageStore) -> Iterator[Question]:
    names: dict[str, str] = {}  # image_id -> name of its file
    for line, row in read_table(file, _COLUMNS[split]):
        where = f"{file}, line {line}"
        fields = Fields(row, where, ", ".join(_COLUMNS[split]))
        image_id = fields.text("image_id")
        if image_id not in names:
            names[image_id] = _file_name(image_id, where, store)
        dialogue = make_dialogue(
            id=fields.text("ID"),
            question=fields.text("question"),
            answers=[fields.text("answer")] if split == "train" else [],
            metadata=fields.rest(_KNOWN),
        )
        yield Question(where, image_id, names[image_id], dialogue)


def _file_name(image_id: str, where: str, store: ImageStore) -> str:
    names = [f"{image_id}{suffix}" for suffix in _SUFFIXES]
    return next((name for name in names if locate(name, where, store) is not None), names[0])


def find_template(root: str | Path | None, template: str | Path | None = None) -> str:
    """Find the published `sample_submission.csv`: the file named as `template`, or in `root` or its `open.zip`.

    Raises:
        ConfigError: there is neither `template` nor `root`.
        RecordError: there is no such file.
    """
    return find_file(root, template, "sample_submission.csv", archive=_ARCHIVE, keyword="template")


def submit(predictions: Sequence[Prediction], path: Path, template: str) -> None:
    """Write `template`, as `find_template` finds it, with its answers replaced by the predicted ones.

    Rows are joined by ID: the header, the order and any other column stay as they are.

    Raises:
        RecordError: the template is missing or of another shape, two predictions for one ID, an ID that only the
            predictions or only the template has.
    """
    header, *rows = [fields for _, fields in read_rows(template)]
    id_column, answer_column = find_columns(header, ("ID", "answer"), template)
    answers = answers_of_all([row[id_column] for row in rows], predictions, template)
    for row in rows:
        row[answer_column] = answers[row[id_column]]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


BENCHMARK = Benchmark(
    name="dacon",
    splits=("train", "test"),
    read=read,
    instruction="",
    metric="vizwiz_accuracy",
    metric_variant="competition_fixed",
    evaluation_split="test",
    score_answers=score_agreement,
    submission_file="submission.csv",
    submit=submit,
    find_template=find_template,
)
