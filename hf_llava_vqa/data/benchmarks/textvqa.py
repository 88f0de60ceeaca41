"""TextVQA: questions about the text in photos, ten answers each.

Published at textvqa.org: `TextVQA_0.5.1_train.json` and so on, objects with a list of questions under `data`; photos of
both `train` and `val` in `train_images`; the tokens an OCR system found in `TextVQA_Rosetta_OCR_v0.2_train.json`.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import fsum

from hf_llava_vqa.data.benchmark import SHORT_ANSWER, Benchmark
from hf_llava_vqa.data.reading.files import Place, find_file, find_images, read_json
from hf_llava_vqa.data.reading.questions import Fields, Question, group_questions
from hf_llava_vqa.data.scoring import Asked, Scores, ceiling, human_answers
from hf_llava_vqa.errors import RecordError, in_line
from hf_llava_vqa.metrics.textvqa.textvqa_rules import score
from hf_llava_vqa.records import Record, make_dialogue

SHAPE = '{"data": [{"question_id", "image_id", "question", "answers": [10 strings]}]}'
OCR_SHAPE = '{"data": [{"image_id", "ocr_tokens": [strings]}]}'
OCR_LINE = "Reference OCR token: "
"""How LLaVA-1.5 begins the line that follows the question."""

_PLACES = {"train": "train", "val": "train", "test": "test"}  # split -> whose photos
_NOT_METADATA = ("question_id", "image_id", "question", "answers", "question_tokens", "set_name")


def read(
    split: str,
    *,
    root: Place = None,
    annotations: Place = None,
    images: Place = None,
    ocr_tokens: Place = None,
    follow_symlinks: bool = False,
) -> Iterator[Record]:
    """Read a split, from `root` or from the files named by `annotations` and `images`.

    Args:
        root: folder with the JSON file, and with `train_images/` (`train` and `val`) or `test_images/` (`test`), or
            the archive they come in.
        annotations: the file of questions.
        images: the folder, zip or tar archive with the photos.
        ocr_tokens: a file of OCR tokens: every question is followed by those of its photo, as LLaVA-1.5 asks, and
            its `context` holds them. Without it there are none.
        follow_symlinks: allow links in the folder of images that lead out of it.

    Yields:
        One record a photo, with all its questions, in the order of the file.

    Raises:
        ConfigError: too few paths.
        RecordError: a file, a row or a photo that is missing or has another shape; rows count from 0.
    """
    name = f"TextVQA_0.5.1_{split}.json"
    file = find_file(root, annotations, name, archive="TextVQA_0.5.1.zip", keyword="annotations")
    place = _PLACES[split]
    archive = "train_val_images" if place == "train" else "test_images"
    store = find_images(root, images, f"{place}_images", archive, follow_symlinks=follow_symlinks)
    tokens = _read_tokens(str(ocr_tokens)) if ocr_tokens is not None else None
    questions = _questions(file, tokens, answered=split != "test")
    yield from group_questions(questions, store, source="textvqa", split=split)


def _questions(file: str, tokens: Mapping[str, str] | None, answered: bool) -> Iterator[Question]:
    for row in Fields.of(read_json(file), file, SHAPE).rows("data", SHAPE):
        image_id, question = row.name("image_id"), row.text("question")
        context = ""
        if tokens is not None:
            if image_id not in tokens:
                raise RecordError(
                    f"{row.where}: the OCR file has no image {in_line(image_id)}; use that of the same split"
                )
            context = OCR_LINE + tokens[image_id]
        dialogue = make_dialogue(
            id=row.name("question_id"),
            question=f"{question}\n{context}" if context else question,
            answers=_answers(row) if answered else [],
            context=context,
            metadata=row.rest(_NOT_METADATA),
        )
        yield Question(row.where, image_id, f"{image_id}.jpg", dialogue)


def _answers(row: Fields) -> list[str]:
    answers = row.texts("answers")
    if len(answers) != 10:  # the metric compares each with the nine others
        raise RecordError(f"{row.where}: {len(answers)} answers where ten are due; download the file again")
    if not any(answer.strip() for answer in answers):
        raise RecordError(f"{row.where}: all answers are empty; remove the question")
    return answers


def _read_tokens(file: str) -> dict[str, str]:
    """Image id -> its OCR tokens in one line."""
    rows = Fields.of(read_json(file), file, OCR_SHAPE).rows("data", OCR_SHAPE)
    return {row.name("image_id"): ", ".join(row.texts("ocr_tokens")) for row in rows}


def score_answers(answers: Sequence[str], asked: Sequence[Asked], variant: str) -> Scores:
    """Agreement with the ten people, as TextVQA and LLaVA count it."""
    references = [human_answers(dialogue) for _, dialogue in asked]
    result = score(answers, references, return_per_question=True)
    del result["standard_error"]  # takes questions as independent, which those about one photo are not
    best = [ceiling(reference, variant) for reference in references]
    return Scores.mean_of(result.pop("per_question"), by={}, details=result, ceiling=fsum(best) / len(best))


BENCHMARK = Benchmark(
    name="textvqa",
    homepage="https://textvqa.org",
    splits=tuple(_PLACES),
    read=read,
    instruction=SHORT_ANSWER,
    metric="textvqa",
    metric_variant="m4c",
    score_answers=score_answers,
)
