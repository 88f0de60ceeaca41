"""Evaluations of several models side by side, as a text table and as the page."""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_llava_vqa.data import get_benchmark
from hf_llava_vqa.data.scoring import human_answers
from hf_llava_vqa.errors import RecordError
from hf_llava_vqa.generation import Question, questions
from hf_llava_vqa.metrics import metric_title
from hf_llava_vqa.reports.page import Example, GradedAnswer, write_page
from hf_llava_vqa.reports.predictions import Prediction, read_predictions
from hf_llava_vqa.reports.scores import benchmark_folder, read_scores

ROLE_ORDER = ("question_only", "base", "adapter", "merged")


@dataclass(frozen=True)
class Evaluation:
    """One folder written by `scripts/evaluate.py`: its benchmark's scores and its predictions."""

    model: str
    role: str
    benchmark: str
    split: str
    scores: dict[str, Any]
    predictions: dict[str, Prediction]  # by dialogue id


def read_evaluations(folders: Sequence[Path], benchmark: str) -> list[Evaluation]:
    """Read evaluation folders, baselines first.

    Raises:
        RecordError: a folder without scores for `benchmark`, or evaluations of different splits or questions.
    """
    evaluations = [_read(folder, benchmark) for folder in folders]
    first = evaluations[0]
    for folder, evaluation in zip(folders, evaluations, strict=True):
        if (evaluation.split, evaluation.predictions.keys()) != (first.split, first.predictions.keys()):
            raise RecordError(
                f"{folder}: answers other questions than {folders[0]}; evaluate both on one split and limit"
            )
    return sorted(evaluations, key=lambda e: ROLE_ORDER.index(e.role) if e.role in ROLE_ORDER else len(ROLE_ORDER))


def _read(folder: Path, benchmark: str) -> Evaluation:
    scores = read_scores(folder)
    if benchmark not in scores["benchmarks"]:
        there = ", ".join(scores["benchmarks"]) or "none"
        raise RecordError(f"{folder} has no scores for {benchmark}; it has: {there}")
    settings = scores["settings"]["benchmarks"]
    predictions = read_predictions(benchmark_folder(folder, settings, benchmark))
    if len(predictions) != scores["benchmarks"][benchmark]["n"]:
        raise RecordError(
            f"{folder}: {len(predictions)} predictions for {benchmark}, but "
            f"{scores['benchmarks'][benchmark]['n']} were scored; evaluate again"
        )
    return Evaluation(
        model=scores["model"],
        role=scores["role"],
        benchmark=benchmark,
        split=settings[benchmark]["split"],
        scores=scores["benchmarks"][benchmark],
        predictions={prediction["id"]: prediction for prediction in predictions},
    )


def score_table(evaluations: Sequence[Evaluation]) -> str:
    """A table for the terminal: accuracy in percent with its 95 % interval, then the parts by answer type."""
    types = sorted(evaluations[0].scores["by"])
    header = ["", "accuracy", "95 % interval", *types]
    rows = [header]
    for evaluation in evaluations:
        scores = evaluation.scores
        low, high = scores["interval"]
        parts = [f"{100 * scores['by'][name]:.1f}" for name in types]
        rows.append([evaluation.role, f"{100 * scores['score']:.1f}", f"{100 * low:.1f} to {100 * high:.1f}", *parts])
    rows.append(["ceiling", f"{100 * evaluations[0].scores['ceiling']:.1f}", "", *[""] * len(types)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def write_comparison_page(
    path: Path,
    evaluations: Sequence[Evaluation],
    records: Iterable[dict[str, Any]],
    *,
    title: str,
    run: Path | None,
    examples: int,
    seed: int = 0,
) -> None:
    """Write the page: score table, the training run's curves, and a seeded sample of questions."""
    first = evaluations[0]
    asked = [(record, dialogue) for record, dialogue in questions(records) if dialogue["id"] in first.predictions]
    illustrated = [question for question in asked if question[0]["images"]]
    sample = random.Random(seed).sample(illustrated, min(examples, len(illustrated)))
    credits = [_credits(evaluation, asked) for evaluation in evaluations]
    images = len({record["image_id"] for record, _ in asked})
    write_page(
        path,
        title=title,
        subtitle=f"{len(asked):,} questions about {images:,} images, split {first.split}",
        metric=metric_title(get_benchmark(first.benchmark).metric),
        scores=[
            {
                "role": e.role,
                "score": e.scores["score"],
                "interval": tuple(e.scores["interval"]),
                "n": e.scores["n"],
            }
            for e in evaluations
        ],
        ceiling=first.scores["ceiling"],
        history=json.loads((run / "trainer_state.json").read_text())["log_history"] if run is not None else [],
        examples=[_example(question, evaluations, credits) for question in sample],
    )


def _credits(evaluation: Evaluation, asked: Sequence[Question]) -> dict[str, float]:
    """The credit of each answer, by dialogue id. All are scored at once: a metric may need to see them together."""
    answers = {id: prediction["answer"] for id, prediction in evaluation.predictions.items()}
    scores = get_benchmark(evaluation.benchmark).score(answers, asked)
    return {dialogue["id"]: credit for (_, dialogue), credit in zip(asked, scores.per_question, strict=True)}


def _example(question: Question, evaluations: Sequence[Evaluation], credits: Sequence[Mapping[str, float]]) -> Example:
    record, dialogue = question
    id = dialogue["id"]
    predictions: dict[str, GradedAnswer] = {
        evaluation.role: {"answer": evaluation.predictions[id]["answer"], "score": credit[id]}
        for evaluation, credit in zip(evaluations, credits, strict=True)
    }
    return {
        "image": record["images"][0],
        "question": dialogue["turns"][-1]["content"],
        "answers": human_answers(dialogue),
        "predictions": predictions,
    }
