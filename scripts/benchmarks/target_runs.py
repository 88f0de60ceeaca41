"""One training of the demo's base on one answer target: its data, its accuracy on held-out pictures, its pace.

The configuration is the demo's, recipes/configs/demo_cpu.yaml, with its schedule over as many steps as are asked for.
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import LlavaProcessor, TrainerCallback

from hf_llava_vqa import VqaTrainer
from hf_llava_vqa.data import get_benchmark, load_records
from hf_llava_vqa.data.scoring import ceiling, human_answers
from hf_llava_vqa.demo.annotators import Crowd
from hf_llava_vqa.demo.data import DemoData, write_vizwiz_demo
from hf_llava_vqa.generation import answer_questions, questions
from hf_llava_vqa.models.adapters import lora_config
from hf_llava_vqa.models.loading import training_model, training_processor
from hf_llava_vqa.training import parse_recipe_args

ROOT = Path(__file__).parents[2]
RECIPE, BASE = ROOT / "recipes" / "configs" / "demo_cpu.yaml", ROOT / "recipes" / "demo" / "base"
# In the demo's own crowd most of ten are right, always; in the divided one the largest group is wrong now and then.
CROWDS = {"demo": Crowd(), "divided": Crowd(disagreement=0.4, guessing=0.4, agreeing=0)}
CHANGES = {  # to the recipe
    "eval_strategy": "no",
    "eval_on_start": False,
    "save_strategy": "no",
    "load_best_model_at_end": False,
    "logging_strategy": "no",
    "disable_tqdm": True,
}


@dataclass(frozen=True)
class Pictures:
    """The demo's data as one crowd annotates them: pictures for each seed, others for each, and held-out ones."""

    folder: Path
    train: Dataset
    held_out: Dataset
    each: int  # pictures a seed

    @classmethod
    def of(cls, folder: Path, crowd: Crowd, args: argparse.Namespace) -> "Pictures":
        """Write and load them. Another number of seeds changes none of the others' pictures."""
        write_vizwiz_demo(folder, DemoData(args.pictures * args.seeds, args.held_out, crowd=crowd), seed=0)
        train, held_out = (load_records("vizwiz", split=split, root=folder) for split in ("train", "val"))
        return cls(folder, train, held_out, args.pictures)

    @property
    def ceiling(self) -> float:
        """The best held-out accuracy that any fixed answer per question gets."""
        best = [ceiling(human_answers(dialogue), "vizwiz") for _, dialogue in questions(self.held_out)]
        return statistics.mean(best)

    def of_seed(self, seed: int) -> Dataset:
        """What a seed trains on."""
        return self.train.select(range(seed * self.each, (seed + 1) * self.each))


class Clock(TrainerCallback):
    """The processor's time at the end of each step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.times.append(time.process_time())


def accuracy_after(
    steps: int, pictures: Pictures, target: str, seed: int, held_out: dict[str, Dataset]
) -> dict[str, float]:
    """Train on a target for so many steps, and return the VizWiz accuracy on each held-out set."""
    with trainer_of(pictures, target, seed, steps) as trainer:
        trainer.train()
        model = trainer.model.eval()
        return {name: accuracy(model, trainer.processing_class, records) for name, records in held_out.items()}


def accuracy(model: Any, processor: LlavaProcessor, records: Dataset, template: str = "v1") -> float:
    """VizWiz accuracy of the model's answers to all questions."""
    predictions = answer_questions(model, processor, records, template=template, batch_size=64, max_new_tokens=8)
    answers = {prediction["id"]: prediction["answer"] for prediction in predictions}
    return get_benchmark("vizwiz").score(answers, list(questions(records))).score


def seconds_a_step(pictures: Pictures, targets: Sequence[str], *, rounds: int, steps: int) -> dict[str, float]:
    """The median processor time of a step on each target; the targets take turns, first steps are not counted."""
    seconds: dict[str, list[float]] = {target: [] for target in targets}
    for _ in range(rounds):
        for target in targets:
            with trainer_of(pictures, target, 0, 1 + steps) as trainer:
                clock = Clock()
                trainer.add_callback(clock)
                trainer.train()
            seconds[target] += [end - start for start, end in pairwise(clock.times)]
    return {target: statistics.median(values) for target, values in seconds.items()}


@contextlib.contextmanager
def trainer_of(pictures: Pictures, target: str, seed: int, steps: int, **changes: object) -> Iterator[VqaTrainer]:
    """The trainer that the demo's recipe, with `changes`, makes for a target and so many steps on a seed's pictures."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        told = {"model_name_or_path": BASE, "data_dir": pictures.folder, "output_dir": folder}
        told |= {"answer_target": target, "seed": seed, "max_steps": steps, **CHANGES, **changes}
        flags = [str(part) for name, value in told.items() for part in (f"--{name}", value)]
        _, config, model_args = parse_recipe_args(["--config", str(RECIPE), *flags])
        yield VqaTrainer(
            training_model(model_args),
            config,
            train_dataset=pictures.of_seed(seed),
            processing_class=training_processor(model_args, image_aspect=config.image_aspect, template=config.template),
            peft_config=lora_config(model_args),
        )
