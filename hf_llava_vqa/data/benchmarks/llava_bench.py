"""LLaVA-Bench (in the wild): 60 open questions about 24 pictures; a language model judges the answers.

Published as liuhaotian/llava-bench-in-the-wild: `questions.jsonl`, JSON Lines of `{"question_id", "image", "text",
"category"}`, `images/`, and what the judge is given besides: `context.jsonl` and `answers_gpt4.jsonl`.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from hf_llava_vqa.data.benchmark import Benchmark, Prediction
from hf_llava_vqa.data.reading.files import Place, find_file, find_images
from hf_llava_vqa.data.reading.questions import Question, group_questions, read_lines
from hf_llava_vqa.data.submissions import answers_of_all
from hf_llava_vqa.records import Record, make_dialogue

SHAPE = '{"question_id", "image", "text", "category"}'
_FILE = "questions.jsonl"
_NOT_METADATA = ("question_id", "image", "text", "category")


def read(
    split: str,
    *,
    root: Place = None,
    annotations: Place = None,
    images: Place = None,
    follow_symlinks: bool = False,
) -> Iterator[Record]:
    """Read all questions, from `root` or from the files named by `annotations` and `images`.

    Args:
        root: folder with `questions.jsonl`, and with `images/` or `images.zip`.
        annotations: the file of questions.
        images: the folder, zip or tar archive with the pictures.
        follow_symlinks: allow links in the folder of images that lead out of it.

    Yields:
        One record a picture, with all its questions, in the order of the file; `answer_type` is the category. There
        are no answers: nothing is scored without the judge.

    Raises:
        ConfigError: too few paths.
        RecordError: a file, a row or a picture that is missing or has another shape; lines count from 1.
    """
    file = find_file(root, annotations, _FILE, keyword="annotations")
    store = find_images(root, images, "images", follow_symlinks=follow_symlinks)
    yield from group_questions(_questions(file), store, source="llava_bench", split=split)


def _questions(file: str) -> Iterator[Question]:
    for row in read_lines(file, SHAPE):
        picture = row.text("image")
        dialogue = make_dialogue(
            id=row.name("question_id"),
            question=row.text("text"),
            answer_type=row.text("category"),
            metadata=row.rest(_NOT_METADATA),
        )
        yield Question(row.where, picture, picture, dialogue)


def find_template(root: str | Path | None, template: str | Path | None = None) -> str:
    """Find the file of questions: the one named as `template`, or that in `root`. Raises as `find_file`."""
    return find_file(root, template, _FILE, keyword="template")


def submit(predictions: Sequence[Prediction], path: Path, template: str) -> None:
    """Write what LLaVA's review script takes, JSON Lines of `{"question_id", "prompt", "text"}` in `template`'s order.

    Raises:
        RecordError: the template is missing or of another shape, two predictions for one id, an id that only the
            predictions or only the template has.
    """
    rows = {row.name("question_id"): row for row in read_lines(template, SHAPE)}
    answers = answers_of_all(list(rows), predictions, template)
    lines = [
        {"question_id": row.row["question_id"], "prompt": row.text("text"), "text": answers[id]}
        for id, row in rows.items()
    ]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="ascii")


BENCHMARK = Benchmark(
    name="llava_bench",
    homepage="https://huggingface.co/datasets/liuhaotian/llava-bench-in-the-wild",
    splits=("test",),
    read=read,
    instruction="",
    metric="llava_bench",
    metric_variant="",
    evaluation_split="test",
    submission_file="answers.jsonl",
    submit=submit,
    find_template=find_template,
)
