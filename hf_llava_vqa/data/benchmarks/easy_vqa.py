"""easy-VQA: 5,000 synthetic 64×64 pictures of one coloured shape and 48,248 questions, in a package on PyPI."""

from collections.abc import Iterator
from typing import Any

from hf_llava_vqa.data.benchmark import Benchmark
from hf_llava_vqa.data.scoring import score_agreement
from hf_llava_vqa.errors import ConfigError, RecordError
from hf_llava_vqa.records import make_dialogue, make_record


def read(split: str) -> Iterator[dict[str, Any]]:
    """Read a split from the installed package. The one true answer of a question is its only answer.

    Yields:
        One record an image, with all its questions in the package's order.

    Raises:
        ConfigError: the package easy-vqa is not installed.
        RecordError: the package lacks an image.
    """
    try:
        import easy_vqa
    except ModuleNotFoundError:
        raise ConfigError('easy_vqa needs the package easy-vqa: pip install "hf-llava-vqa[demo]"') from None
    asked = getattr(easy_vqa, f"get_{split}_questions")()
    paths = getattr(easy_vqa, f"get_{split}_image_paths")()
    questions: dict[int, list[tuple[str, str]]] = {}
    for question, answer, image in zip(*asked, strict=True):
        questions.setdefault(image, []).append((question, answer))
    for image, pairs in questions.items():
        if image not in paths:
            raise RecordError(f"easy_vqa {split}: image {image} is missing; reinstall the package easy-vqa")
        image_id = f"{split}_{image:05d}"
        dialogues = [_dialogue(f"{image_id}#{k}", *pair) for k, pair in enumerate(pairs)]
        yield make_record(image_id=image_id, images=[paths[image]], dialogues=dialogues, source="easy_vqa", split=split)


def _dialogue(id: str, question: str, answer: str) -> dict[str, Any]:
    answer_type = "yes/no" if answer in ("yes", "no") else "other"
    return make_dialogue(id=id, question=question, answers=[answer], answer_type=answer_type, answerable=1)


BENCHMARK = Benchmark(
    name="easy_vqa",
    splits=("train", "test"),
    read=read,
    instruction="Answer the question using a single word or phrase.",
    metric="vizwiz_accuracy",
    metric_variant="vizwiz",
    evaluation_split="test",
    score_answers=score_agreement,
    submission_file="",
    submit=None,
)
