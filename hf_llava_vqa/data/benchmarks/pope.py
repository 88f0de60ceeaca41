"""POPE: whether an object is in a photo of COCO, asked so that a model which makes things up is found out.

Published in the repository AoiDragon/POPE: `coco_pope_random.json`, `coco_pope_popular.json` and
`coco_pope_adversarial.json`, JSON Lines of `{"question_id", "image", "text", "label"}`, named after how the absent
objects were chosen. The photos are COCO's `val2014`.
"""

from collections.abc import Iterator, Sequence
from math import fsum
from pathlib import Path

from hf_llava_vqa.data.benchmark import SHORT_ANSWER, Benchmark
from hf_llava_vqa.data.reading.files import Place, find_file, find_images
from hf_llava_vqa.data.reading.questions import Question, group_questions, read_lines
from hf_llava_vqa.data.scoring import Asked, Scores, only_answer
from hf_llava_vqa.errors import ConfigError, RecordError, in_line
from hf_llava_vqa.metrics.pope.pope_rules import parse_answer, score
from hf_llava_vqa.records import Record, make_dialogue

CATEGORIES = ("random", "popular", "adversarial")
SHAPE = '{"question_id", "image", "text", "label": "yes" or "no"}'
_NOT_METADATA = ("question_id", "image", "text", "label")


def read(
    split: str,
    *,
    root: Place = None,
    annotations: Place = None,
    images: Place = None,
    follow_symlinks: bool = False,
) -> Iterator[Record]:
    """Read all three categories, from `root` or from the places named by `annotations` and `images`.

    Args:
        root: folder with the three files, in itself or in `coco/`, and with `val2014/` or `val2014.zip`.
        annotations: the folder with the three files.
        images: the folder, zip or tar archive with the photos.
        follow_symlinks: allow links in the folder of images that lead out of it.

    Yields:
        One record a photo, with all its questions, in the order of the files. Dialogues are called
        `<category>/<question_id>`, their `answer_type` is the category.

    Raises:
        ConfigError: too few paths.
        RecordError: a file, a row or a photo that is missing or has another shape; lines count from 1.
    """
    folder = root if annotations is None else annotations
    if folder is None:
        raise ConfigError("give root (the folder with the files as published), or annotations (that of the questions)")
    files = [_find(folder, category) for category in CATEGORIES]
    store = find_images(root, images, "val2014", "coco/val2014", follow_symlinks=follow_symlinks)
    yield from group_questions(_questions(files), store, source="pope", split=split)


def _find(folder: str | Path, category: str) -> str:
    name = f"coco_pope_{category}.json"
    return find_file(folder, None, name, f"coco/{name}", keyword="annotations")


def _questions(files: Sequence[str]) -> Iterator[Question]:
    for category, file in zip(CATEGORIES, files, strict=True):
        for row in read_lines(file, SHAPE):
            image, label = row.text("image"), row.text("label")
            if label not in ("yes", "no"):
                raise RecordError(f"{row.where}: label is {in_line(label)}; it must be yes or no")
            dialogue = make_dialogue(
                id=f"{category}/{row.name('question_id')}",
                question=row.text("text"),
                answers=[label],
                answer_type=category,
                metadata=row.rest(_NOT_METADATA),
            )
            yield Question(row.where, image, image, dialogue)


def score_answers(answers: Sequence[str], asked: Sequence[Asked], variant: str) -> Scores:
    """The mean of the categories' F1, as papers report POPE."""
    labels = [only_answer(dialogue) for _, dialogue in asked]
    categories = [dialogue["answer_type"] for _, dialogue in asked]
    references = [{"label": label, "category": name} for label, name in zip(labels, categories, strict=True)]
    result = score(answers, references, variant)
    parsed = [parse_answer(answer, variant) for answer in answers]
    return Scores(
        per_question=[float(answer == label) for answer, label in zip(parsed, labels, strict=True)],
        by={name: measured["f1"] for name, measured in result["by_category"].items()},
        details=result,
        counts=[_count(*outcome, sorted(set(categories))) for outcome in zip(parsed, labels, categories, strict=True)],
        combine=_mean_f1,
    )


def _count(answer: str, label: str, category: str, categories: Sequence[str]) -> list[float]:
    """For each category two numbers: 1 for a yes that is right; 1 for a yes said, and 1 more for a yes to be said."""
    said, true = answer == "yes", label == "yes"
    return [float(n) for name in categories for n in ((said and true, said + true) if name == category else (0, 0))]


def _mean_f1(sums: Sequence[float]) -> float:
    f1 = [2 * hits / yes if yes else 0.0 for hits, yes in zip(sums[::2], sums[1::2], strict=True)]
    return fsum(f1) / len(f1)


BENCHMARK = Benchmark(
    name="pope",
    homepage="https://github.com/AoiDragon/POPE",
    splits=("test",),
    read=read,
    instruction=SHORT_ANSWER,
    metric="pope",
    metric_variant="llava",
    evaluation_split="test",
    score_answers=score_answers,
)
