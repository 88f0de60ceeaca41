"""VizWiz accuracy: CPU seconds to score a data set, beside a loop over the questions as the official scorers have it.

The answers are invented: ten a question, half of them the most common one, drawn from 120,000 different strings of
which the first are by far the most frequent.
"""

import argparse
import functools
import gc
import math
import time
import tracemalloc
from collections.abc import Callable

import evaluate
import numpy as np

from hf_llava_vqa.flags import positive
from hf_llava_vqa.metrics import metric_path
from hf_llava_vqa.metrics.vizwiz_accuracy.answer_rules import VARIANTS, normalize_vqa, score, strip_vqa

PACKAGES = ("hf-llava-vqa", "evaluate", "datasets", "pyarrow")
WORDS = (
    "cat",
    "Red",
    "two",
    "the mug",
    "coke can",
    "dont know",
    "yes",
    "no.",
    "blue-green",
    "1,000",
    "women's",
    "None",
)
VOCABULARY = [f"{word} {number}" for number in range(10_000) for word in WORDS]

Answers = list[list[str]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--questions",
        type=positive,
        nargs="+",
        default=[4319, 214_354],
        metavar="N",
        help="sizes of the data sets (default: those of the VizWiz and VQA v2 validation sets)",
    )


def measure(args: argparse.Namespace) -> tuple[list[list[str]], dict[str, float], dict[str, float]]:
    """Return a table, how many times faster than the loop each way is, and its CPU seconds and megabytes."""
    table, ratios, figures = [["questions", "way", "CPU seconds", "times faster"]], {}, {}
    for questions in args.questions:
        predictions, references = invent(questions)
        seconds, accuracy = {}, {}
        for way, run in ways().items():
            gc.collect()  # so that none pays for what another left behind
            start = time.process_time()
            accuracy[way] = run(predictions, references)
            seconds[way] = time.process_time() - start
            faster = seconds["loop_vqa"] / seconds[way]
            table.append([f"{questions:,}", way, f"{seconds[way]:.3f}", f"{faster:.1f}"])
            figures[f"{way}_{questions}_cpu_s"] = round(seconds[way], 4)
            ratios[f"loop_over_{way}_{questions}"] = round(faster, 2)
        assert math.isclose(accuracy["loop_vqa"], accuracy["score_vqa"]), accuracy
        megabytes = peak_megabytes(functools.partial(score, predictions, references, "vqa"))
        table.append([f"{questions:,}", f"score_vqa takes {megabytes:.0f} MB beyond the inputs", "", ""])
        figures[f"score_vqa_{questions}_peak_mb"] = round(megabytes, 1)
    return table, ratios, figures


def invent(questions: int) -> tuple[list[str], Answers]:
    """Return predictions, which are the most common answers with a capital and a period, and ten answers to each."""
    rng = np.random.default_rng(0)
    frequency = 1 / np.arange(1, len(VOCABULARY) + 1)
    draw = functools.partial(rng.choice, len(VOCABULARY), p=frequency / frequency.sum())
    common = draw(size=(questions, 1))
    answers = np.where(rng.random((questions, 10)) < 0.5, common, draw(size=(questions, 10)))
    # Strings of their own, as a file gives them: equal ones do not share one object.
    references = [[VOCABULARY[index].encode().decode() for index in row] for row in answers]
    return [VOCABULARY[index].capitalize() + "." for index in common[:, 0]], references


def ways() -> dict[str, Callable[[list[str], Answers], float]]:
    """Return what is measured, the loop first; each returns the accuracy."""
    module = evaluate.load(metric_path("vizwiz_accuracy"))

    def score_as(variant: str, predictions: list[str], references: Answers) -> float:
        return score(predictions, references, variant)["accuracy"]

    def compute(predictions: list[str], references: Answers) -> float:
        return module.compute(predictions=predictions, references=references, variant="vqa")["accuracy"]

    scored = {f"score_{variant}": functools.partial(score_as, variant) for variant in VARIANTS}
    return {"loop_vqa": loop_vqa, **scored, "compute_vqa": compute}


def loop_vqa(predictions: list[str], references: Answers) -> float:
    """Score one question after the other, and in each hold out one annotator after the other."""
    total = 0.0
    for prediction, answers in zip(predictions, references, strict=True):
        read = normalize_vqa if len({strip_vqa(answer) for answer in answers}) > 1 else strip_vqa
        wanted, readings = read(prediction), [read(answer) for answer in answers]
        held_out = []
        for row in range(len(readings)):
            others = readings[:row] + readings[row + 1 :]
            held_out.append(min(1, sum(other == wanted for other in others) / 3))
        total += sum(held_out) / len(held_out)
    return total / len(predictions)


def peak_megabytes(run: Callable[[], object]) -> float:
    """Return the most memory that Python held at once for the run, beyond what it held before."""
    tracemalloc.start()
    run()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / 1e6
