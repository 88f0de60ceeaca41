"""VizWiz VQA: photos taken by blind people, each with a spoken question and ten answers.

Annotation files are JSON lists of `{"image", "question", "answers", "answer_type", "answerable"}`; the test file has
images and questions only. Published at vizwiz.org; the server takes a JSON list of `{"image", "answer"}`, and for its
second task one of `{"image", "answerable"}`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from hf_llava_vqa.data.benchmark import Benchmark, Prediction
from hf_llava_vqa.data.reading.files import ImageStore, find_source, kind_of, read_json
from hf_llava_vqa.data.reading.questions import check_storable, locate_all
from hf_llava_vqa.data.scoring import score_agreement
from hf_llava_vqa.data.submissions import write_json
from hf_llava_vqa.errors import RecordError, in_line
from hf_llava_vqa.metrics.vizwiz_accuracy.answer_rules import normalize_answer
from hf_llava_vqa.records import make_dialogue, make_record

INSTRUCTION = (
    "When the provided information is insufficient, respond with 'Unanswerable'.\n"
    "Answer the question using a single word or phrase."
)
"""What LLaVA-1.5 appends to VizWiz questions."""

ROW_SHAPE = '{"image", "question", "answers": [{"answer", "answer_confidence"}]}'
_KNOWN_KEYS = {"image", "question", "answers", "answer_type", "answerable"}
_SPLITS_WITHOUT_ANSWERS = ("test", "valid")

Row = Mapping[str, Any]
LabelledRow = tuple[str, Row]  # how messages call the row, and what stands in it


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
        root: folder with `train.json` or `Annotations.zip`, and `train/` or `train.zip`, as downloaded.
        annotations: the annotation file.
        images: the folder, zip or tar archive with its images.
        follow_symlinks: allow links in the folder of images that lead out of it.

    Yields:
        One record an image, in the order in which images first appear; rows that share an image become dialogues
        of its record. What a row says beyond the published keys is kept in the dialogue's `metadata`.

    Raises:
        ConfigError: too few paths.
        RecordError: a file, a row or an image that is missing or has another shape; rows count from 0.
    """
    file, store = find_source(split, root, annotations, images, follow_symlinks=follow_symlinks)
    yield from group_rows(_rows(file), store, file=file, source="vizwiz", split=split)


def _rows(file: str) -> Iterator[LabelledRow]:
    rows = read_json(file)
    if isinstance(rows, dict) and isinstance(rows.get("image"), dict):
        raise RecordError(f"{file}: a column-oriented file; read it with the source vizwiz_competition")
    if not isinstance(rows, list) or not rows:
        raise RecordError(f"{file}: expected a JSON list of {ROW_SHAPE}, found {_found(rows)}")
    for number, row in enumerate(rows):
        yield str(number), row


def _found(value: Any) -> str:
    return "an empty list" if value == [] else kind_of(value)


def group_rows(
    rows: Iterable[LabelledRow], store: ImageStore, *, file: str, source: str, split: str
) -> Iterator[dict[str, Any]]:
    """Check all rows, find all images, and only then yield one record an image.

    Raises:
        RecordError: naming `file`, the row and, where images are missing, how many.
    """
    grouped: dict[str, list[LabelledRow]] = {}
    for label, row in rows:
        _check_row(row, f"{file}, row {label}", needs_answers=split not in _SPLITS_WITHOUT_ANSWERS)
        grouped.setdefault(row["image"], []).append((label, row))
    paths = locate_all({name: f"{file}, row {entries[0][0]}" for name, entries in grouped.items()}, store)
    _check_stems(grouped, file)
    for name, entries in grouped.items():
        yield make_record(
            image_id=name,
            images=[paths[name]],
            dialogues=[
                _dialogue(row, _stem(name) if len(entries) == 1 else f"{_stem(name)}#{number}")
                for number, (_, row) in enumerate(entries)
            ],
            source=source,
            split=split,
        )


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _dialogue(row: Row, id: str) -> dict[str, Any]:
    return make_dialogue(
        id=id,
        question=row["question"],
        answers=row.get("answers", ()),
        answer_type=row.get("answer_type", ""),
        answerable=int(row.get("answerable", -1)),
        metadata={key: value for key, value in row.items() if key not in _KNOWN_KEYS},
    )


def _check_row(row: Any, where: str, *, needs_answers: bool) -> None:
    if not isinstance(row, dict):
        raise RecordError(f"{where}: expected {ROW_SHAPE}, found {kind_of(row)}")
    for key in ("image", "question"):
        if not isinstance(row.get(key), str):
            raise RecordError(f"{where}: {key} must be a string, found {_value(row, key)}; expected {ROW_SHAPE}")
        if not row[key].strip():
            raise RecordError(f"{where}: {key} is empty; fill it in or remove the row")
    if "answers" in row:
        _check_answers(row["answers"], where)
    if needs_answers and not row.get("answers"):
        raise RecordError(f"{where}: no answers; read a file without answers as split test or valid")
    if not isinstance(row.get("answer_type", ""), str):
        raise RecordError(f"{where}: answer_type must be a string, found {_value(row, 'answer_type')}")
    if row.get("answerable", -1) not in (1, 0, -1):
        raise RecordError(f"{where}: answerable must be 1 or 0, found {row['answerable']!r}")
    check_storable(row, where)


def _check_answers(answers: Any, where: str) -> None:
    if not isinstance(answers, list):
        raise RecordError(f"{where}: answers must be a list, found {kind_of(answers)}; expected {ROW_SHAPE}")
    for number, answer in enumerate(answers):
        if not isinstance(answer, dict):
            raise RecordError(
                f"{where}: answer {number} must be an object, found {kind_of(answer)}; expected {ROW_SHAPE}"
            )
        if not isinstance(answer.get("answer"), str):
            raise RecordError(f"{where}: answer {number}: answer must be a string, found {_value(answer, 'answer')}")
        if not isinstance(answer.get("answer_confidence", ""), str):
            found = _value(answer, "answer_confidence")
            raise RecordError(f"{where}: answer {number}: answer_confidence must be a string, found {found}")


def _value(row: Row, key: str) -> str:
    return kind_of(row[key]) if key in row else "nothing"


def _check_stems(grouped: Mapping[str, list[LabelledRow]], file: str) -> None:
    names: dict[str, str] = {}
    for name, entries in grouped.items():
        other = names.setdefault(_stem(name), name)
        if other != name:
            both = f"{in_line(name)} and {in_line(other)}"
            raise RecordError(f"{file}, row {entries[0][0]}: {both} differ in their suffix only; rename one")


def submit(predictions: Sequence[Prediction], path: Path) -> None:
    """Write the JSON list of `{"image", "answer"}` which the VizWiz server takes, in the order given.

    Answers are normalised as by LLaVA, whose published scores came about so.

    Raises:
        RecordError: no predictions, or two for one image.
    """
    check_predictions(predictions)
    write_json(
        [{"image": p["image_id"], "answer": normalize_answer(p["answer"], "m4c")} for p in predictions],
        path,
    )


def submit_answerability(predictions: Sequence[Prediction], path: Path, images: Sequence[str]) -> None:
    """Write the JSON list of `{"image", "answerable"}` of VizWiz's second task, in the order of `images`.

    Args:
        predictions: `{"image_id", "answerable"}`, the confidence from 0 to 1 that the question can be answered.
        images: of all questions of the split.

    Raises:
        RecordError: no predictions, two for one image, an image that only the predictions or only the split has, or a
            confidence out of range.
    """
    check_predictions(predictions)
    answerable = {prediction["image_id"]: prediction["answerable"] for prediction in predictions}
    missing = [image for image in images if image not in answerable]
    if missing:
        count = f"{len(missing)} of {len(images)} are missing"
        raise RecordError(f"no prediction for {in_line(missing[0])} ({count}); answer the whole split")
    if len(answerable) > len(images):
        unknown = next(image for image in answerable if image not in set(images))
        raise RecordError(f"{in_line(unknown)} was predicted and is not in the split; submit the split that was asked")
    for image, confidence in answerable.items():
        if not 0 <= confidence <= 1:
            raise RecordError(f"{in_line(image)}: answerable is {confidence}; it must be a confidence from 0 to 1")
    write_json([{"image": image, "answerable": answerable[image]} for image in images], path)


def check_predictions(predictions: Sequence[Prediction]) -> None:
    """Raise RecordError unless there is exactly one prediction for each image, and at least one."""
    if not predictions:
        raise RecordError("there are no predictions to submit")
    seen: set[str] = set()
    for prediction in predictions:
        image = prediction["image_id"]
        if image in seen:
            raise RecordError(f"two predictions for {image}: a submission holds one answer per image")
        seen.add(image)


BENCHMARK = Benchmark(
    name="vizwiz",
    homepage="https://vizwiz.org/tasks-and-datasets/vqa/",
    licence="cc-by-4.0",
    splits=("train", "val", "test"),
    read=read,
    instruction=INSTRUCTION,
    metric="vizwiz_accuracy",
    metric_variant="vizwiz",
    score_answers=score_agreement,
    submission_file="submission.json",
    submit=submit,
)
