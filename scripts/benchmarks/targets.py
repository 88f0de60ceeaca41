"""Answer targets: held-out accuracy of the demo trained on each, after equal steps and in equal time.

Every seed trains on pictures of its own, and all targets on the same ones; what differs from one target to another is
reported seed by seed. Equal time is the processor time that `majority` takes: a target whose steps cost more has fewer.
Two crowds annotate the pictures; what the divided one teaches is also held against the answers of the other, because
VQA accuracy forgives a wrong answer that three of ten people gave. Finished trainings stand in --out and are not done
again: a run that was ended goes on.
"""

import argparse
import itertools
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from hf_llava_vqa.answers import ANSWER_TARGETS
from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.flags import positive
from scripts.benchmarks.target_runs import CROWDS, Pictures, accuracy_after, seconds_a_step

PACKAGES = ("hf-llava-vqa", "torch", "transformers", "trl", "peft", "accelerate", "easy-vqa")
MAJORITY = "majority"
BASELINES = (MAJORITY, "votes")  # one answer a question, and all of them by their share
COMPARISONS = ("equal steps", "equal time")
HELD_OUT = {"demo": ("demo",), "divided": ("divided", "demo")}  # whose answers a crowd's pupils are held against
# Quantiles 0.975 of Student's t with 1, 2, ... degrees of freedom.
STUDENT_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, choices=range(2, 11), default=5, help="trainings a target (default: 5)")
    parser.add_argument("--crowds", nargs="+", choices=CROWDS, default=list(CROWDS), help="default: both")
    parser.add_argument(
        "--targets", nargs="+", choices=ANSWER_TARGETS, default=list(ANSWER_TARGETS), help="compared (default: all)"
    )
    parser.add_argument("--pictures", type=positive, default=224, help="that a seed trains on (default: 224)")
    parser.add_argument("--held_out", type=positive, default=80, help="pictures of four questions (default: 80)")
    parser.add_argument("--steps", type=positive, default=40, help="of the equal steps, 16 pictures each (default: 40)")
    parser.add_argument("--timed_steps", type=positive, default=5, help="of each target in a round (default: 5)")
    parser.add_argument("--rounds", type=positive, default=3, help="of timed steps (default: 3)")
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/targets.jsonl"), help="results (default: outputs/targets.jsonl)"
    )


Key = tuple[str, ...]


@dataclass
class Results:
    """A JSON Lines file: a line with the settings, then one a result, each with a key of its own."""

    file: Path
    by_key: dict[Key, Any]

    @classmethod
    def of(cls, file: Path, settings: dict[str, Any]) -> "Results":
        """Start a file or go on with one. Raises `ConfigError` for a file of other settings."""
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(settings) + "\n")
        first, *lines = file.read_text().splitlines()
        if json.loads(first) != settings:
            raise ConfigError(f"--out {file} holds results of other settings: {first}; name another file")
        return cls(file, {tuple(line["key"]): line["result"] for line in map(json.loads, lines)})

    def once(self, key: Key, compute: Callable[[], Any]) -> Any:
        """The result of a key, computed if the file does not hold it."""
        if key not in self.by_key:
            self.by_key[key] = compute()
            with self.file.open("a") as lines:
                lines.write(json.dumps({"key": key, "result": self.by_key[key]}) + "\n")
        return self.by_key[key]


@dataclass(frozen=True)
class Mean:
    """A mean over seeds and the half width of its 95 % interval, after Student."""

    mean: float
    half_width: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Mean":
        """Of two to ten values, one a seed."""
        error = statistics.stdev(values) / sqrt(len(values))
        return cls(statistics.mean(values), STUDENT_T[len(values) - 2] * error)

    @classmethod
    def of_differences(cls, first: Sequence[float], second: Sequence[float]) -> "Mean":
        """Of what the first of two targets is better by, seed by seed."""
        return cls.of([a - b for a, b in zip(first, second, strict=True)])

    @property
    def excludes_0(self) -> bool:
        """Whether 0 lies outside of the interval."""
        return abs(self.mean) > self.half_width


def measure(args: argparse.Namespace) -> tuple[list[list[str]], dict[str, Any], dict[str, float]]:
    """Return a table, what a step costs beside one on the majority's answer, and accuracies with their differences."""
    torch.set_num_threads(1)  # sums in one order: the same seed gives the same training
    settings = {name: getattr(args, name) for name in ("pictures", "held_out", "steps", "timed_steps", "rounds")}
    results = Results.of(args.out, settings)
    with tempfile.TemporaryDirectory() as folder:
        wanted = dict.fromkeys([*args.crowds, *(name for crowd in args.crowds for name in HELD_OUT[crowd])])
        pictures = {name: Pictures.of(Path(folder, name), CROWDS[name], args) for name in wanted}
        costs = {crowd: costs_of(crowd, pictures[crowd], args, results) for crowd in args.crowds}
        accuracy = train_all(pictures, costs, args, results)
        ceilings = {f"{name}_ceiling": round(data.ceiling, 4) for name, data in pictures.items()}
    table, figures = summary(accuracy, costs, args)
    figures |= ceilings
    return table, {"processor_time_of_a_step_vs_majority": costs}, figures


def costs_of(crowd: str, pictures: Pictures, args: argparse.Namespace, results: Results) -> dict[str, float]:
    """What a step on each target costs, as a multiple of one on the majority's answer."""
    measure_all = partial(seconds_a_step, pictures, ANSWER_TARGETS, rounds=args.rounds, steps=args.timed_steps)
    seconds = results.once(("seconds a step", crowd), measure_all)
    return {target: round(seconds[target] / seconds[MAJORITY], 3) for target in ANSWER_TARGETS}


def steps_of(cost: float, steps: int) -> dict[str, int]:
    """The steps of each comparison, for a target whose steps cost so many times the majority's."""
    return dict(zip(COMPARISONS, (steps, max(1, round(steps / cost))), strict=True))


Accuracy = dict[tuple[str, str, str, str], list[float]]
"""By crowd, held-out answers, comparison and target: the accuracy of each seed."""


def train_all(
    pictures: dict[str, Pictures], costs: dict[str, dict[str, float]], args: argparse.Namespace, results: Results
) -> Accuracy:
    """Train every crowd, target and seed, seed by seed: what a run that is ended has done is whole seeds."""
    runs = [(seed, crowd, target) for seed in range(args.seeds) for crowd in costs for target in args.targets]
    accuracy: Accuracy = {}
    for seed, crowd, target in tqdm(runs, desc="training", unit="target", disable=None):
        held_out = {name: pictures[name].held_out for name in HELD_OUT[crowd]}
        for comparison, steps in steps_of(costs[crowd][target], args.steps).items():
            train = partial(accuracy_after, steps, pictures[crowd], target, seed, held_out)
            scores = results.once(("accuracy", crowd, target, str(seed), f"{steps} steps"), train)
            for name, value in scores.items():
                accuracy.setdefault((crowd, name, comparison, target), []).append(value)
    return accuracy


def summary(
    accuracy: Accuracy, costs: dict[str, dict[str, float]], args: argparse.Namespace
) -> tuple[list[list[str]], dict[str, float]]:
    """The table and the figures: means over seeds in percent, and differences to the baselines, seed by seed."""
    table = [["annotators", "held-out answers of", "comparison", "target", "steps", "accuracy, %"]]
    table[0] += [f"more than {baseline}" for baseline in BASELINES]
    figures: dict[str, float] = {}
    blocks = [(crowd, held_out) for crowd in args.crowds for held_out in HELD_OUT[crowd]]
    rows = itertools.product(blocks, COMPARISONS, args.targets)
    for (crowd, held_out), comparison, target in rows:
        values = accuracy[crowd, held_out, comparison, target]
        steps = steps_of(costs[crowd][target], args.steps)[comparison]
        mean = Mean.of(values)
        differences = {
            baseline: Mean.of_differences(values, accuracy[crowd, held_out, comparison, baseline])
            for baseline in BASELINES
            if baseline != target and baseline in args.targets
        }
        cells = [cell(differences[baseline]) if baseline in differences else "" for baseline in BASELINES]
        table.append([crowd, held_out, comparison, target, str(steps), cell(mean, sign=""), *cells])
        name = f"{crowd}_{held_out}_{comparison}_{target}".replace(" ", "_")
        figures |= {f"{name}_steps": steps, **figures_of(f"{name}_accuracy", mean)}
        for baseline, difference in differences.items():
            figures |= figures_of(f"{name}_minus_{baseline}", difference)
    return table, figures


def cell(value: Mean, sign: str = "+") -> str:
    """In percent, with an asterisk where the interval of a difference excludes 0."""
    star = " *" if sign and value.excludes_0 else ""
    return f"{100 * value.mean:{sign}.1f} ± {100 * value.half_width:.1f}{star}"


def figures_of(name: str, value: Mean) -> dict[str, float]:
    """A mean and its half width."""
    return {name: round(value.mean, 5), f"{name}_half_width": round(value.half_width, 5)}
