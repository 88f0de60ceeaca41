"""ScienceQA: multiple-choice questions from school books, half of them with a picture.

Published in the repository lupantech/ScienceQA: `problems.json`, an object of problem id → `{"question", "choices",
"answer", "hint", "image", "lecture", "solution", …}`; `pid_splits.json`, the ids of each split; and
`images/train/<id>/image.png`. The answer is the index of a choice; LLaVA-1.5 asks for its letter.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hf_llava_vqa.data.benchmark import LETTER_ANSWER, Benchmark
from hf_llava_vqa.data.reading.files import Place, find_file, find_images, read_json
from hf_llava_vqa.data.reading.questions import Fields, Question, group_questions, with_options
from hf_llava_vqa.data.scoring import Asked, Scores, only_answer
from hf_llava_vqa.errors import RecordError, in_line
from hf_llava_vqa.metrics.scienceqa.scienceqa_rules import GRADES, LETTERS, VARIANTS, score
from hf_llava_vqa.records import Record, make_dialogue

SHAPE = '{ID: {"question", "choices": [strings], "answer": index, "hint", "image"}}'
_NOT_METADATA = ("choices", "hint", "image", "split")


def read(
    split: str,
    *,
    root: Place = None,
    annotations: Place = None,
    splits: Place = None,
    images: Place = None,
    follow_symlinks: bool = False,
) -> Iterator[Record]:
    """Read a split, from `root` or from the files named one by one.

    Args:
        root: folder with `problems.json`, `pid_splits.json` and `images/<split>/` or `images/<split>.zip`.
        annotations: the file of problems.
        splits: the file with the ids of each split.
        images: the folder, zip or tar archive with the split's pictures, `<id>/image.png`.
        follow_symlinks: allow links in the folder of images that lead out of it.

    Yields:
        One record a problem, in the order of the split; those without a picture are text only. The question is asked
        as by LLaVA-1.5: the hint as context, the question, and a line for each lettered choice; its one answer is a
        letter. `choices` and `context` hold them by themselves, `metadata` the bare question, the lecture, the
        solution and the rest.

    Raises:
        ConfigError: too few paths.
        RecordError: a file, a problem or a picture that is missing or has another shape.
    """
    problem_file = find_file(root, annotations, "problems.json", archive="problems.zip", keyword="annotations")
    split_file = find_file(root, splits, "pid_splits.json", archive="pid_splits.zip", keyword="splits")
    store = find_images(root, images, f"images/{split}", split, follow_symlinks=follow_symlinks)
    yield from group_questions(_questions(problem_file, split_file, split), store, source="scienceqa", split=split)


def _questions(problem_file: str, split_file: str, split: str) -> Iterator[Question]:
    problems = Fields.of(read_json(problem_file), problem_file, SHAPE)
    ids = Fields.of(read_json(split_file), split_file, f'{{"{split}": [strings]}}').texts(split)
    if not ids:
        raise RecordError(f"{split_file}: {split} has no problems; download it again")
    for id in ids:
        if id not in problems.row:
            raise RecordError(f"{split_file}: problem {in_line(id)} of {split} is not in {problem_file}")
        row = Fields.of(problems.row[id], f"{problem_file}, problem {in_line(id)}", SHAPE)
        picture = row.optional_text("image")
        yield Question(row.where, id, f"{id}/{picture}" if picture else "", _dialogue(id, row))


def _dialogue(id: str, row: Fields) -> dict[str, Any]:
    choices, answer, hint = row.texts("choices"), row.integer("answer"), row.optional_text("hint")
    if not answer < len(choices) <= len(LETTERS):
        raise RecordError(
            f"{row.where}: answer {answer} of {len(choices)} choices; it must be the index of one of at most 5"
        )
    asked = with_options(row.text("question"), choices)
    return make_dialogue(
        id=id,
        question=f"Context: {hint}\n{asked}" if hint else asked,
        answers=[LETTERS[answer]],
        answer_type=row.optional_text("subject"),
        choices=choices,
        context=hint,
        metadata=row.rest(_NOT_METADATA),
    )


def score_answers(answers: Sequence[str], asked: Sequence[Asked], variant: str) -> Scores:
    """Accuracy of the letters that LLaVA's script reads; parts by subject, context and grade as the authors report."""
    is_correct = VARIANTS[variant]
    references = [_reference(*question) for question in asked]
    result = score(answers, references, variant)
    correct = [
        float(is_correct(answer, reference["answer"], len(reference["choices"])))
        for answer, reference in zip(answers, references, strict=True)
    ]
    by = result["by_subject"] | result["by_context"] | result["by_grade"]
    return Scores.mean_of(correct, by=by, details=result)


def _reference(record: Mapping[str, Any], dialogue: Mapping[str, Any]) -> dict[str, Any]:
    grade = json.loads(dialogue["metadata"]).get("grade")
    return {
        "answer": LETTERS.index(only_answer(dialogue)),
        "choices": dialogue["choices"],
        "has_image": bool(record["images"]),
        "hint": dialogue["context"],
        "subject": dialogue["answer_type"] or None,
        "grade": grade if grade in GRADES else None,
    }


BENCHMARK = Benchmark(
    name="scienceqa",
    homepage="https://scienceqa.github.io",
    splits=("train", "val", "test"),
    read=read,
    instruction=LETTER_ANSWER,
    metric="scienceqa",
    metric_variant="llava",
    evaluation_split="test",
    score_answers=score_answers,
)
