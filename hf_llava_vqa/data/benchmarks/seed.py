"""SEED-Bench: multiple-choice questions of twelve types; those about pictures are read, those about videos are not.

Published at AILab-CVC/SEED-Bench: `SEED-Bench.json`, an object with a list under `questions` of `{"question_id",
"question", "choice_a" to "choice_d", "answer", "data_type", "data_id", "question_type_id"}` and the names of the types
under `question_type`; and `SEED-Bench-image`, a folder or an archive of pictures called by their `data_id`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hf_llava_vqa.data.benchmark import LETTER_ANSWER, Benchmark
from hf_llava_vqa.data.reading.files import Place, find_file, find_images, read_json
from hf_llava_vqa.data.reading.questions import Fields, Question, group_questions, with_options
from hf_llava_vqa.data.scoring import Asked, Scores, only_answer
from hf_llava_vqa.errors import RecordError, in_line
from hf_llava_vqa.metrics.seed.seed_rules import score
from hf_llava_vqa.records import Record, make_dialogue

LETTERS = ("A", "B", "C", "D")
_CHOICES = tuple(f"choice_{letter.lower()}" for letter in LETTERS)
SHAPE = (
    '{"questions": [{"question_id", "question", "choice_a", …, "answer", "data_type", "data_id", "question_type_id"}]}'
)
_NOT_METADATA = ("question_id", "question", "answer", "data_type", "data_id", *_CHOICES)


def read(
    split: str,
    *,
    root: Place = None,
    annotations: Place = None,
    images: Place = None,
    follow_symlinks: bool = False,
) -> Iterator[Record]:
    """Read the questions about pictures, from `root` or from the files named by `annotations` and `images`.

    Args:
        root: folder with `SEED-Bench.json`, and with `SEED-Bench-image/` or `SEED-Bench-image.zip`.
        annotations: the file of questions.
        images: the folder, zip or tar archive with the pictures.
        follow_symlinks: allow links in the folder of images that lead out of it.

    Yields:
        One record a picture, with all its questions, in the order of the file. A question is followed by a line for
        each lettered choice, as LLaVA-1.5 asks; `answer_type` is the name of its type.

    Raises:
        ConfigError: too few paths.
        RecordError: a file, a row or a picture that is missing or has another shape; rows count from 0.
    """
    file = find_file(root, annotations, "SEED-Bench.json", keyword="annotations")
    store = find_images(root, images, "SEED-Bench-image", follow_symlinks=follow_symlinks)
    yield from group_questions(_questions(file), store, source="seed", split=split)


def _questions(file: str) -> Iterator[Question]:
    document = Fields.of(read_json(file), file, SHAPE)
    types = _type_names(document)
    pictures = [row for row in document.rows("questions", SHAPE) if row.text("data_type") == "image"]
    if not pictures:
        raise RecordError(f'{file}: no questions with the data_type "image"; download it again')
    for row in pictures:
        answer, choices = row.text("answer"), [row.string(choice) for choice in _CHOICES]
        if answer not in LETTERS:
            raise RecordError(f"{row.where}: answer is {in_line(answer)}; it must be {', '.join(LETTERS)}")
        type_id, picture = row.name("question_type_id"), row.text("data_id")
        dialogue = make_dialogue(
            id=row.name("question_id"),
            question=with_options(row.text("question"), choices),
            answers=[answer],
            answer_type=types.get(type_id, type_id),
            choices=choices,
            metadata=row.rest(_NOT_METADATA),
        )
        yield Question(row.where, picture, picture, dialogue)


def _type_names(document: Fields) -> Mapping[str, str]:
    """The number of each type of question, as a string -> its name; none where the file has no names."""
    if document.row.get("question_type") is None:
        return {}
    names = Fields.of(document.row["question_type"], f"{document.where}, question_type", "{NAME: number}")
    return {names.name(name): name for name in names.row}


def score_answers(answers: Sequence[str], asked: Sequence[Asked], variant: str) -> Scores:
    """The letter exactly, as LLaVA counts; parts by type of question."""
    references = [_reference(dialogue) for _, dialogue in asked]
    result = score(answers, references)
    correct = [float(answer == row["answer"]) for answer, row in zip(answers, references, strict=True)]
    return Scores.mean_of(correct, by=result["by_question_type"], details=result)


def _reference(dialogue: Mapping[str, Any]) -> dict[str, str]:
    return {"answer": only_answer(dialogue), "question_type": dialogue["answer_type"], "data_type": "image"}


BENCHMARK = Benchmark(
    name="seed",
    homepage="https://github.com/AILab-CVC/SEED-Bench",
    splits=("test",),
    read=read,
    instruction=LETTER_ANSWER,
    metric="seed",
    metric_variant="",
    evaluation_split="test",
    score_answers=score_answers,
)
