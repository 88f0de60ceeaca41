"""Scoring a model on a benchmark's split: the metric with its interval, the submission file, and what to compare with.

A model is compared with two things that need no model: the answer a person would guess from the question alone, and
the ceiling, the best score any fixed answer per question can get from people who disagree.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_llava_vqa.data import get_benchmark, load_folder
from hf_llava_vqa.data.benchmark import Benchmark
from hf_llava_vqa.data.submissions import answers_by_id
from hf_llava_vqa.errors import RecordError
from hf_llava_vqa.generation import Question, questions
from hf_llava_vqa.models.loading import ADAPTER_FILE
from hf_llava_vqa.reports.predictions import PREDICTIONS_FILE, Prediction, earlier_predictions, write_predictions
from hf_llava_vqa.reports.scores import Scores
from hf_llava_vqa.reports.stats import statistic_interval
from hf_llava_vqa.training.training_recipe import RECIPE_FILE

QUESTION_ONLY = "question_only"


@dataclass(frozen=True)
class Part:
    """One benchmark of an evaluation: a split, as far as it is asked."""

    benchmark: Benchmark
    split: str
    records: Iterable[dict[str, Any]]
    data: str | None = None  # the folder it was read from
    template: str | None = None  # see `template_of`
    whole: bool = True  # whether `records` is all of the split


Answerer = Callable[[Part, Collection[str]], Iterable[Prediction]]
"""answer(part, ids that are answered already) -> predictions for the others, in any order."""


def load_part(
    name: str, *, data: str | None, split: str | None = None, limit: int | None = None, template: str | None = None
) -> Part:
    """Read what is asked, and find what its submission will need.

    Args:
        data: as for `load_folder`.
        split: None for the one the benchmark is usually evaluated on.
        limit: ask about the first so many images only.
        template: as for `template_of`.

    Raises:
        ConfigError, RecordError: as `load_folder` and `template_of`.
    """
    benchmark = get_benchmark(name)
    split = split or benchmark.evaluation_split
    records = load_folder(name, data, split=split)
    if limit is not None and limit < len(records):
        return Part(benchmark, split, records.select(range(limit)), data, whole=False)
    return Part(benchmark, split, records, data, template_of(benchmark, questions(records), data, template))


def question_only_predictions(
    train: Iterable[dict[str, Any]], records: Iterable[dict[str, Any]]
) -> Iterable[Prediction]:
    """Answer every question with the most common training answer to the same words, or to any question.

    What a model scores above this it owes to the pictures.
    """
    by_question: dict[str, Counter[str]] = {}
    overall: Counter[str] = Counter()
    for _, dialogue in questions(train):
        given = [answer["answer"] for answer in dialogue["answers"]]
        by_question.setdefault(_question(dialogue), Counter()).update(given)
        overall.update(given)
    for record, dialogue in questions(records):
        counts = by_question.get(_question(dialogue), overall)
        (answer, votes), *_ = counts.most_common(1)
        yield {
            "id": dialogue["id"],
            "image_id": record["image_id"],
            "question": _question(dialogue),
            "answer": answer,
            "confidence": votes / counts.total(),
        }


def benchmark_scores(
    benchmark: Benchmark, asked: Sequence[Question], predictions: Sequence[Prediction], *, seed: int = 0
) -> dict[str, Any]:
    """One benchmark's entry of `scores.json`, by the benchmark's own metric.

    Scores are 0 to 1, the interval is 95 % by a bootstrap over images; `metric` holds what the metric itself returns.

    Raises:
        RecordError: a question answered twice or not at all, or questions that the metric does not take.
    """
    scores = benchmark.score(answers_by_id(predictions), asked)
    images = [record["image_id"] for record, _ in asked]
    error, interval = statistic_interval(scores.counts, scores.combine, images, seed=seed)
    return {
        "score": scores.score,
        "n": len(asked),
        "standard_error": error,
        "interval": list(interval),
        "by": dict(scores.by),
        "ceiling": scores.ceiling,
        "metric": {"name": benchmark.metric, "variant": benchmark.metric_variant, **scores.details},
    }


def template_of(
    benchmark: Benchmark, asked: Iterable[Question], data: str | Path | None, template: str | None
) -> str | None:
    """Find the published file that a submission fills in. Its lack should be known before the questions are answered.

    Args:
        data: the folder with the benchmark's files.
        template: the file, if it is not in `data`, or if a split with answers is to be submitted too.

    Returns:
        The file; None if no submission is to be written, or if it needs no such file.

    Raises:
        ConfigError, RecordError: the submission needs such a file and there is none.
    """
    if benchmark.find_template is None or (template is None and any(dialogue["answers"] for _, dialogue in asked)):
        return None
    return benchmark.find_template(data, template)


def evaluate(part: Part, scores: Scores, answer: Answerer) -> Path | None:
    """Answer the questions of a benchmark that are not answered yet, score it if it can be, and write its submission.

    There is a submission for a split without answers, or where a template is given, unless only a part was asked.

    Args:
        scores: the evaluation's file, into which the scores go; says where the predictions lie.
        answer: is called with the ids that are answered already, unless all are.

    Returns:
        The submission's file; None if there is none.

    Raises:
        RecordError: no questions, or some of them have answers and others do not; predictions of another split, or
            doubled ones; predictions that the metric or the server does not take.
    """
    benchmark, folder = part.benchmark, scores.folder_of(part.benchmark.name)
    asked = list(questions(part.records))
    scored = _has_answers(part, asked)
    folder.mkdir(exist_ok=True)
    known = earlier_predictions(folder / PREDICTIONS_FILE, asked)
    new = answer(part, known) if len(known) < len(asked) else ()
    predictions = write_predictions(new, folder / PREDICTIONS_FILE, asked, known)
    if scored:
        scores.add(benchmark.name, benchmark_scores(benchmark, asked, predictions))
    if benchmark.submit is None or not part.whole or (scored and part.template is None):
        return None
    path = folder / benchmark.submission_file
    benchmark.submit(predictions, path, *([] if part.template is None else [part.template]))
    return path


def _has_answers(part: Part, asked: Sequence[Question]) -> bool:
    """Whether the questions can be scored."""
    with_answers = sum(bool(dialogue["answers"]) for _, dialogue in asked)
    if not asked:
        raise RecordError(f"{part.benchmark.name}: the split {part.split} asks nothing; choose another")
    if 0 < with_answers < len(asked):
        raise RecordError(
            f"{part.benchmark.name}: {with_answers} of {len(asked)} questions have answers; score a split where all or "
            "none have"
        )
    return with_answers > 0


def role_of(model: str) -> str:
    """`adapter`, `merged` (one of ours without an adapter file), `question_only` or `base`."""
    if model == QUESTION_ONLY:
        return QUESTION_ONLY
    if (Path(model) / ADAPTER_FILE).is_file():
        return "adapter"
    return "merged" if (Path(model) / RECIPE_FILE).is_file() else "base"


def _question(dialogue: dict[str, Any]) -> str:
    return dialogue["turns"][-1]["content"]
