"""Self-questioning: held-out accuracy of the demo trained with and without it, after equal steps.

All read the same pictures, questions and answers in the same order, in the template v1_sq; with self-questioning, a
share of the questions is trained on too, drawn anew in each epoch, at full weight or at a lighter one. Every seed
trains on pictures of its own, and differences are taken seed by seed. The trainings are cut short: at its end the demo
leaves no room to differ. Finished ones stand in --out and are not done again.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from hf_llava_vqa.flags import positive
from hf_llava_vqa.prompts import V1_SQ
from scripts.benchmarks.target_runs import CROWDS, Pictures, accuracy, trainer_of
from scripts.benchmarks.targets import Mean, Results, cell, figures_of

PACKAGES = ("hf-llava-vqa", "torch", "transformers", "trl", "peft", "accelerate", "easy-vqa")
TARGET = "votes"  # of the answers, as in the demo
WITHOUT, WITH, LIGHT = "answers only", "self-questioning", "light self-questioning"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, choices=range(2, 11), default=3, help="trainings a way (default: 3)")
    parser.add_argument("--ratio", type=float, default=0.5, help="share of the questions (default: 0.5)")
    parser.add_argument("--weight", type=float, default=0.2, help="of a light question's token (default: 0.2)")
    parser.add_argument("--pictures", type=positive, default=160, help="that a seed trains on (default: 160)")
    parser.add_argument("--held_out", type=positive, default=75, help="pictures of four questions (default: 75)")
    parser.add_argument("--steps", type=positive, default=32, help="of 16 pictures each (default: 32)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("outputs/self_questioning.jsonl"),
        help="results (default: outputs/self_questioning.jsonl)",
    )


def measure(args: argparse.Namespace) -> tuple[list[list[str]], dict[str, float], dict[str, float]]:
    """Return a table, how many times the tokens of a training the questions make, and the figures behind it."""
    torch.set_num_threads(1)  # sums in one order: the same seed gives the same training
    settings = {name: getattr(args, name) for name in ("ratio", "weight", "pictures", "held_out", "steps")}
    results = Results.of(args.out, settings)
    ways = {WITHOUT: (0.0, 1.0), WITH: (args.ratio, 1.0), LIGHT: (args.ratio, args.weight)}
    runs = [(seed, way) for seed in range(args.seeds) for way in ways]
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        pictures = Pictures.of(Path(folder), CROWDS["demo"], args)
        for seed, way in tqdm(runs, desc="training", unit="run", disable=None):
            train = partial(accuracy_and_tokens, pictures, *ways[way], seed, args.steps)
            found[way].append(results.once((way, str(seed)), train))
        ceiling = pictures.ceiling
    return summary(found, args.steps, ceiling)


def accuracy_and_tokens(pictures: Pictures, ratio: float, weight: float, seed: int, steps: int) -> dict[str, float]:
    """Train for so many steps, and return the VizWiz accuracy on the held-out pictures and the tokens read."""
    told = {"template": V1_SQ.name, "self_question_ratio": ratio, "self_question_weight": weight}
    with trainer_of(pictures, TARGET, seed, steps, **told) as trainer:
        trainer.train()
        model = trainer.model.eval()
        score = accuracy(model, trainer.processing_class, pictures.held_out, V1_SQ.name)
        return {"accuracy": score, "tokens": trainer.state.num_input_tokens_seen}


def summary(
    found: dict[str, list[dict[str, Any]]], steps: int, ceiling: float
) -> tuple[list[list[str]], dict[str, float], dict[str, float]]:
    """The table, the ratio of tokens, and the figures: means over seeds with 95 % intervals."""
    accuracies = {way: [result["accuracy"] for result in results] for way, results in found.items()}
    tokens = {way: sum(result["tokens"] for result in results) / len(results) for way, results in found.items()}
    differences = {way: Mean.of_differences(accuracies[way], accuracies[WITHOUT]) for way in (WITH, LIGHT)}
    table = [["way", "steps", "tokens", "accuracy, %", f"more than {WITHOUT}"]]
    figures = {"ceiling": round(ceiling, 4)}
    for way, values in accuracies.items():
        mean = Mean.of(values)
        more = cell(differences[way]) if way in differences else ""
        table.append([way, str(steps), f"{tokens[way]:,.0f}", cell(mean, sign=""), more])
        name = way.replace(" ", "_").replace("-", "_")
        figures |= {f"{name}_tokens": round(tokens[way]), **figures_of(f"{name}_accuracy", mean)}
        if way in differences:
            figures |= figures_of(f"{name}_minus_answers_only", differences[way])
    return table, {"tokens_vs_answers_only": round(tokens[WITH] / tokens[WITHOUT], 4)}, figures
