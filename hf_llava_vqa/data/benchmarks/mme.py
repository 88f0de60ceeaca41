"""MME: two questions about each picture, one to be answered with yes and one with no, in fourteen categories.

Published as `MME_Benchmark_release_version`, a folder a category. Pictures and texts of the same name stand in it side
by side, or in `images/` and `questions_answers_YN/`. A text has two lines, each a question, a tab, and Yes or No.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from math import fsum
from pathlib import Path, PurePosixPath
from typing import Any

from hf_llava_vqa.archives import member_path
from hf_llava_vqa.data.benchmark import SHORT_ANSWER, Benchmark
from hf_llava_vqa.data.reading.files import ImageStore, Place, find_images, list_archive, read_text
from hf_llava_vqa.data.reading.questions import Question, group_questions, locate
from hf_llava_vqa.data.scoring import Asked, Scores, only_answer
from hf_llava_vqa.errors import RecordError, in_line
from hf_llava_vqa.metrics.mme.mme_rules import COGNITION, PERCEPTION, parse_answer, score
from hf_llava_vqa.records import Record, make_dialogue

FOLDER = "MME_Benchmark_release_version"
CATEGORIES = (*PERCEPTION, *COGNITION)
_TEXTS, _PICTURES = "questions_answers_YN", "images"
_SUFFIXES = (".jpg", ".png", ".jpeg")
_LAST_SENTENCE = re.compile(r"\s*Please answer yes or no\.$")  # LLaVA's instruction takes its place


def read(split: str, *, root: Place = None, images: Place = None, follow_symlinks: bool = False) -> Iterator[Record]:
    """Read all categories that are there, from `root` or from the place named by `images`.

    Args:
        root: folder with `MME_Benchmark_release_version/` or `.zip`, or with the categories' folders.
        images: the folder, zip or tar archive with the categories' folders, texts and pictures.
        follow_symlinks: allow links that lead out of the folder.

    Yields:
        One record a picture with its two questions, called `<category>/<name>`, by category and name; `answer_type` is
        the category. Questions are asked as by LLaVA-1.5, without their last sentence "Please answer yes or no."

    Raises:
        ConfigError: there is neither `root` nor `images`.
        RecordError: a text or a picture that is missing or has another shape.
    """
    if images is None and root is not None and any((Path(root) / name).is_dir() for name in CATEGORIES):
        images = root
    store = find_images(root, images, FOLDER, follow_symlinks=follow_symlinks)
    yield from group_questions(_questions(store), store, source="mme", split=split)


def _questions(store: ImageStore) -> Iterator[Question]:
    texts = sorted(filter(_category, _list(store)), key=lambda name: (CATEGORIES.index(_category(name)), name))
    if not texts:
        raise RecordError(f"{store.place}: no texts in {CATEGORIES[0]} or any other category; download it again")
    for text in texts:
        file = member_path(store.place, text) if Path(store.place).is_file() else str(Path(store.place, text))
        category, picture = _category(text), _picture(text, file, store)
        image_id = f"{category}/{PurePosixPath(picture).name}"
        for number, (question, answer) in enumerate(_read_text(file)):
            dialogue = make_dialogue(
                id=f"{image_id}#{number}",
                question=question,
                answers=[answer],
                answer_type=category,
            )
            yield Question(file, image_id, picture, dialogue)


def _list(store: ImageStore) -> list[str]:
    """The texts, by their paths below the place."""
    place = Path(store.place)
    if place.is_file():
        return [name for name in list_archive(place) if name.endswith(".txt")]
    return [path.relative_to(place).as_posix() for path in place.rglob("*.txt")]


def _category(text: str) -> str:
    """The category that a text belongs to, "" if none."""
    *_, above, folder, _ = ("", "", *PurePosixPath(text).parts)
    category = above if folder == _TEXTS else folder
    return category if category in CATEGORIES else ""


def _picture(text: str, where: str, store: ImageStore) -> str:
    """The picture of a text, by its path below the place."""
    path = PurePosixPath(text)
    folder = path.parent.parent / _PICTURES if path.parent.name == _TEXTS else path.parent
    names = [str(folder / f"{path.stem}{suffix}") for suffix in _SUFFIXES]
    return next((name for name in names if locate(name, where, store) is not None), names[0])


def _read_text(file: str) -> list[tuple[str, str]]:
    lines = [line.strip().split("\t") for line in read_text(file).split("\n") if line.strip()]
    if len(lines) != 2 or any(len(line) != 2 for line in lines):
        raise RecordError(f"{file}: expected two lines of a question, a tab, and Yes or No; download it again")
    pairs = [(_LAST_SENTENCE.sub("", question.strip()), answer.strip()) for question, answer in lines]
    for question, answer in pairs:
        if not question:
            raise RecordError(f"{file}: a question is empty; download it again")
        if answer.lower() not in ("yes", "no"):
            raise RecordError(f"{file}: answer is {in_line(answer)}; it must be Yes or No")
    return pairs


def score_answers(answers: Sequence[str], asked: Sequence[Asked], variant: str) -> Scores:
    """The perception score as a share of what can be reached, or the cognition score if only that was asked."""
    references = [_reference(*question) for question in asked]
    result = score(answers, references)
    right = [parse_answer(a) == reference["answer"].lower() for a, reference in zip(answers, references, strict=True)]
    by_category = {name: measured["score"] / 200 for name, measured in result["by_category"].items()}
    group = PERCEPTION if result["perception"] is not None else COGNITION
    return Scores(
        per_question=[float(is_right) for is_right in right],
        by=by_category,
        details=result,
        counts=_counts(right, references, [name for name in group if name in by_category]),
        combine=_mean_of_means,
    )


def _reference(record: Mapping[str, Any], dialogue: Mapping[str, Any]) -> dict[str, str]:
    return {"answer": only_answer(dialogue), "image": record["image_id"], "category": dialogue["answer_type"]}


def _counts(
    right: Sequence[bool], references: Sequence[Mapping[str, str]], categories: Sequence[str]
) -> list[list[float]]:
    """For each category the credit of pictures and their number; each picture stands with its first question."""
    pictures: defaultdict[str, list[int]] = defaultdict(list)
    for number, reference in enumerate(references):
        pictures[reference["image"]].append(number)
    counts = [[0.0] * (2 * len(categories)) for _ in references]
    for first, second in pictures.values():
        category = references[first]["category"]
        if category in categories:
            place = 2 * categories.index(category)
            accuracy = (right[first] + right[second]) / 2
            counts[first][place : place + 2] = (accuracy + (right[first] and right[second])) / 2, 1.0
    return counts


def _mean_of_means(sums: Sequence[float]) -> float:
    means = [total / number for total, number in zip(sums[::2], sums[1::2], strict=True) if number]
    return fsum(means) / max(1, len(means))  # a sample of the pictures may have none that counts


BENCHMARK = Benchmark(
    name="mme",
    homepage="https://github.com/BradyFU/Awesome-Multimodal-Large-Language-Models/tree/Evaluation",
    splits=("test",),
    read=read,
    instruction=SHORT_ANSWER,
    metric="mme",
    metric_variant="",
    evaluation_split="test",
    score_answers=score_answers,
)
