"""VQAv2: questions about COCO's photos with ten answers each, in a file of questions and a file of annotations.

Published at visualqa.org: `v2_OpenEnded_mscoco_train2014_questions.json`, `v2_mscoco_train2014_annotations.json`, and
COCO's photos in `train2014`. The test questions have no annotations; `testdev` is the part of them scored at any time.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hf_llava_vqa.data.benchmark import SHORT_ANSWER, Benchmark, Prediction
from hf_llava_vqa.data.reading.files import Place, find_file, find_images, read_json
from hf_llava_vqa.data.reading.questions import Fields, Question, group_questions
from hf_llava_vqa.data.scoring import score_agreement
from hf_llava_vqa.data.submissions import known_answers, write_json
from hf_llava_vqa.errors import RecordError, in_line
from hf_llava_vqa.metrics.vizwiz_accuracy.answer_rules import normalize_answer
from hf_llava_vqa.records import Record, make_dialogue

QUESTIONS_SHAPE = '{"questions": [{"question_id", "image_id", "question"}]}'
ANNOTATIONS_SHAPE = '{"annotations": [{"question_id", "image_id", "answers": [{"answer", "answer_confidence"}]}]}'

# Split -> what its files are called, the archives they come in, and the folder of its photos.
_PARTS = {
    "train": ("train2014", "Train", "train2014"),
    "val": ("val2014", "Val", "val2014"),
    "test": ("test2015", "Test", "test2015"),
    "testdev": ("test-dev2015", "Test", "test2015"),
}
_ANNOTATED = ("train", "val")


def read(
    split: str,
    *,
    root: Place = None,
    questions: Place = None,
    annotations: Place = None,
    images: Place = None,
    follow_symlinks: bool = False,
) -> Iterator[Record]:
    """Read a split, from `root` or from the files named one by one.

    Args:
        root: folder with the JSON files or the zip archives they come in, and with `train2014/` or `train2014.zip`.
        questions: the file of questions.
        annotations: the file of annotations; the test splits have none.
        images: the folder, zip or tar archive with the photos.
        follow_symlinks: allow links in the folder of images that lead out of it.

    Yields:
        One record a photo, with all its questions, in the order of the questions.

    Raises:
        ConfigError: too few paths.
        RecordError: a file, a row or a photo that is missing or has another shape, a question without annotation or
            an annotation without question; rows count from 0.
    """
    part, archive, folder = _PARTS[split]
    question_file = _find_questions(root, questions, split, keyword="questions")
    annotation_file = None
    if split in _ANNOTATED:
        annotation_file = find_file(
            root,
            annotations,
            f"v2_mscoco_{part}_annotations.json",
            archive=f"v2_Annotations_{archive}_mscoco.zip",
            keyword="annotations",
        )
    store = find_images(root, images, folder, follow_symlinks=follow_symlinks)
    yield from group_questions(_questions(question_file, annotation_file, folder), store, source="vqav2", split=split)


def _find_questions(root: Place, given: Place, split: str, *, keyword: str) -> str:
    part, archive, _ = _PARTS[split]
    name = f"v2_OpenEnded_mscoco_{part}_questions.json"
    return find_file(root, given, name, archive=f"v2_Questions_{archive}_mscoco.zip", keyword=keyword)


def _questions(question_file: str, annotation_file: str | None, folder: str) -> Iterator[Question]:
    annotations = _annotations(annotation_file) if annotation_file else {}
    unasked = dict(annotations)
    for row in _rows(question_file, "questions", QUESTIONS_SHAPE):
        id, image_id = row.name("question_id"), row.integer("image_id")
        annotation = annotations.get(id)
        unasked.pop(id, None)
        if annotation_file and annotation is None:
            raise RecordError(
                f"{row.where}: question {in_line(id)} has no annotation in {annotation_file}; use files of one split"
            )
        if annotation and annotation.integer("image_id") != image_id:
            raise RecordError(
                f"{annotation.where}: question {in_line(id)} is about image {image_id} in {question_file}"
            )
        dialogue = make_dialogue(id=id, question=row.text("question"), **(_answers(annotation) if annotation else {}))
        yield Question(row.where, str(image_id), f"COCO_{folder}_{image_id:012d}.jpg", dialogue)
    if unasked:
        id, annotation = next(iter(unasked.items()))
        raise RecordError(
            f"{annotation.where}: question {in_line(id)} is not in {question_file} "
            f"({len(unasked)} annotations are without a question); use files of one split"
        )


def _annotations(file: str) -> dict[str, Fields]:
    found: dict[str, Fields] = {}
    for row in _rows(file, "annotations", ANNOTATIONS_SHAPE):
        id = row.name("question_id")
        if id in found:
            raise RecordError(f"{row.where}: question {in_line(id)} stands in {found[id].where} too; remove one")
        found[id] = row
    return found


def _answers(annotation: Fields) -> dict[str, Any]:
    answers = [
        {"answer": answer.string("answer"), "answer_confidence": answer.optional_text("answer_confidence")}
        for answer in annotation.rows("answers", '{"answer", "answer_confidence"}')
    ]
    if not any(answer["answer"].strip() for answer in answers):
        raise RecordError(f"{annotation.where}: no answers; give it answers or remove the question")
    return {
        "answers": answers,
        "answer_type": annotation.optional_text("answer_type"),
        "metadata": annotation.rest(("question_id", "image_id", "answers", "answer_type")),
    }


def _rows(file: str, key: str, shape: str) -> Iterator[Fields]:
    return Fields.of(read_json(file), file, shape).rows(key, shape)


def find_template(root: Place, template: Place = None) -> str:
    """Find the questions of test2015: the file named as `template`, or in `root`. Raises as `find_file`."""
    return _find_questions(root, template, "test", keyword="template")


def submit(predictions: Sequence[Prediction], path: Path, template: str) -> None:
    """Write the JSON list of `{"question_id", "answer"}` which the server takes, for every question of `template`.

    Answers are normalised as by LLaVA. A question without prediction gets "": the server wants all of test2015, also
    where only test-dev2015 was answered.

    Raises:
        RecordError: the template is missing or of another shape, two predictions for one id, an id that only the
            predictions have, no predictions.
    """
    if not predictions:
        raise RecordError("there are no predictions to submit")
    ids = [str(row.integer("question_id")) for row in _rows(template, "questions", QUESTIONS_SHAPE)]
    answers = known_answers(ids, predictions, template)
    write_json([{"question_id": int(id), "answer": normalize_answer(answers.get(id, ""), "m4c")} for id in ids], path)


BENCHMARK = Benchmark(
    name="vqav2",
    homepage="https://visualqa.org",
    splits=tuple(_PARTS),
    read=read,
    instruction=SHORT_ANSWER,
    metric="vizwiz_accuracy",
    metric_variant="vqa",
    score_answers=score_agreement,
    submission_file="submission.json",
    submit=submit,
    find_template=find_template,
)
