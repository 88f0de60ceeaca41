"""Scoring a model on a benchmark's split: predictions, `scores.json`, the submission file, and what to compare with.

A model is compared with two things that need no model: the answer a person would guess from the question alone, and
the ceiling, the best score any fixed answer per question can get from people who disagree.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from hf_llava_vqa.data.benchmark import Benchmark
from hf_llava_vqa.data.submissions import answers_by_id, answers_of_all
from hf_llava_vqa.errors import RecordError
from hf_llava_vqa.generation import Question, questions
from hf_llava_vqa.models.loading import ADAPTER_FILE
from hf_llava_vqa.reports.stats import statistic_interval
from hf_llava_vqa.training.training_recipe import RECIPE_FILE, versions

Prediction = dict[str, Any]
PREDICTIONS_FILE, SCORES_FILE = "predictions.jsonl", "scores.json"
QUESTION_ONLY = "question_only"


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


def write_predictions(predictions: Iterable[Prediction], path: Path, *, total: int) -> list[Prediction]:
    """Write predictions to a JSON Lines file as they come, with a progress bar on terminals; returns them."""
    written = []
    with path.open("w") as file:
        for prediction in tqdm(predictions, total=total, desc="answering", unit="question", disable=None):
            file.write(json.dumps(prediction, ensure_ascii=False) + "\n")
            file.flush()
            written.append(prediction)
    return written


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
    benchmark: Benchmark, asked: Sequence[Question], data: str | Path | None, template: str | None
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


def write_evaluation(
    folder: Path,
    benchmark: Benchmark,
    asked: Sequence[Question],
    predictions: Sequence[Prediction],
    *,
    model: str,
    role: str,
    settings: dict[str, Any],
    template: str | None = None,
) -> dict[str, Any]:
    """Write `scores.json`, and for a split without answers the benchmark's submission file; returns the scores.

    Args:
        template: what `template_of` found; with it there is a submission file for a split with answers too.

    Raises:
        RecordError: some questions of the split have answers and others do not; predictions are missing, doubled or
            of another split.
    """
    with_answers = sum(bool(dialogue["answers"]) for _, dialogue in asked)
    if 0 < with_answers < len(asked):
        raise RecordError(
            f"{with_answers} of {len(asked)} questions have answers; score a split where all or none have"
        )
    scores: dict[str, Any] = {"model": model, "role": role, "benchmarks": {}}
    if with_answers:
        scores["benchmarks"][benchmark.name] = benchmark_scores(benchmark, asked, predictions)
    scores |= {"settings": settings, "versions": versions()}
    (folder / SCORES_FILE).write_text(json.dumps(scores, indent=2) + "\n")
    if benchmark.submit is not None and (template is not None or not with_answers):
        answers_of_all([dialogue["id"] for _, dialogue in asked], predictions, benchmark.name)
        filled_in = [] if template is None else [template]
        benchmark.submit(list(predictions), folder / benchmark.submission_file, *filled_in)
    return scores


def role_of(model: str) -> str:
    """`adapter`, `merged` (one of ours without an adapter file), `question_only` or `base`."""
    if model == QUESTION_ONLY:
        return QUESTION_ONLY
    if (Path(model) / ADAPTER_FILE).is_file():
        return "adapter"
    return "merged" if (Path(model) / RECIPE_FILE).is_file() else "base"


def read_predictions(folder: Path) -> list[Prediction]:
    """The predictions in an evaluation folder; raises `RecordError` naming the line that is not one."""
    path = folder / PREDICTIONS_FILE
    if not path.is_file():
        raise RecordError(f"{path} is missing; write it with scripts/evaluate.py --out {folder}")
    predictions = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            predictions.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise RecordError(f"{path}, line {number}: not JSON ({error.msg}); run the evaluation again") from error
    return predictions


def _question(dialogue: dict[str, Any]) -> str:
    return dialogue["turns"][-1]["content"]
