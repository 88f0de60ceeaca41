"""A training step: where its time goes, part by part, and how long the loader of its pictures is idle.

Measured by torch's profiler around labelled parts of `VqaTrainer`. On a GPU every label waits for the device, so that
its time is the part's own; the whole is then a little slower than without.
"""

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle, islice
from typing import Any

import torch
from datasets import concatenate_datasets
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_llava_vqa import VqaCollator, VqaTrainer
from hf_llava_vqa.flags import positive
from scripts.benchmarks.question_sets import question_sets
from scripts.benchmarks.train import PACKAGES as PACKAGES
from scripts.benchmarks.ways import Workbench, add_model_arguments, ours

WARM_UP = 2  # steps

# What each label holds beyond the labels inside it: the row of the table, the label, those to take away.
PARTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "wait for the loader": ("batches", ()),
    "vision tower": ("tower", ()),
    "projector": ("projector", ()),
    "language model": ("language model", ()),
    "embedding, head, log-probabilities": ("model", ("tower", "projector", "language model")),
    "mask, weighting and metrics": ("loss", ("model",)),
    "backward": ("micro-batch", ("loss",)),
    "optimizer": ("optimizer", ()),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument("--data", choices=list(question_sets(1)), default="easy_vqa", help="default: easy_vqa")
    parser.add_argument("--batch_size", type=positive, default=1, help="images a step (default: 1)")
    parser.add_argument("--steps", type=positive, default=20, help="profiled (default: 20)")
    parser.add_argument("--workers", type=int, default=1, help="of the loader (default: 1)")


def measure(args: argparse.Namespace) -> tuple[list[list[str]], dict[str, float], dict[str, float]]:
    """Return a table of the parts, the shares of the step and of the loader that are idle, and milliseconds."""
    bench = Workbench.of(args, [args.data])
    totals = {label: seconds / args.steps for label, seconds in profiled(bench).items()}
    step = totals["step"]
    parts = {name: totals[label] - sum(totals[i] for i in inside) for name, (label, inside) in PARTS.items()}
    parts["clipping, callbacks and logging"] = step - sum(parts.values())
    collate = seconds_to_collate(bench)
    table = [["part", "ms a step", "share"]]
    table += [[name, f"{1000 * seconds:.2f}", f"{seconds / step:.1%}"] for name, seconds in parts.items()]
    table.append(["the step", f"{1000 * step:.2f}", "100.0%"])
    idle = 1 - collate / (max(args.workers, 1) * step)
    table.append(["decoding and collating, in a worker", f"{1000 * collate:.2f}", f"idle {idle:.1%}"])
    ratios = {"loader_wait_share": round(parts["wait for the loader"] / step, 4), "loader_idle_share": round(idle, 4)}
    figures = {f"{name.replace(',', '').replace(' ', '_')}_ms": round(1000 * s, 3) for name, s in parts.items()}
    return table, ratios, figures | {"step_ms": round(1000 * step, 3), "collate_ms": round(1000 * collate, 3)}


class LabelledTrainer(VqaTrainer):
    """`VqaTrainer` whose parts the profiler sees by name."""

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        with labelled("batches"):
            return super().get_batch_samples(*args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        with labelled("micro-batch"):
            return super().training_step(*args, **kwargs)

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        with labelled("loss"):
            return super().compute_loss(*args, **kwargs)


class Labels(TrainerCallback):
    """Label the modules' forward passes, the optimizer and the steps; profile all steps after `WARM_UP`."""

    def __init__(self) -> None:
        self.profiler = profile(activities=[ProfilerActivity.CPU])
        self._open: dict[str, contextlib.AbstractContextManager[None]] = {}

    def on_train_begin(self, *_: Any, model: nn.Module, **__: Any) -> None:
        base = model.get_base_model()
        self._label(model, "model")
        self._label(base.model.vision_tower, "tower")
        self._label(base.model.multi_modal_projector, "projector")
        self._label(base.model.language_model, "language model")

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        self._enter("optimizer")

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        self._leave("optimizer")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step > WARM_UP:
            self._leave("step")
        if state.global_step == WARM_UP:
            self.profiler.start()
        if state.global_step == state.max_steps:
            self.profiler.stop()
        elif state.global_step >= WARM_UP:
            self._enter("step")

    def _label(self, module: nn.Module, name: str) -> None:
        module.register_forward_pre_hook(lambda *_: self._enter(name))
        module.register_forward_hook(lambda *_: self._leave(name))

    def _enter(self, name: str) -> None:
        self._open[name] = labelled(name)
        self._open[name].__enter__()

    def _leave(self, name: str) -> None:
        self._open.pop(name).__exit__(None, None, None)


@contextlib.contextmanager
def labelled(name: str) -> Iterator[None]:
    """A label for the profiler that ends when the device has done its work."""
    with record_function(f"part: {name}"):
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()


def profiled(bench: Workbench) -> dict[str, float]:
    """Train, and return the seconds under each label in all profiled steps together."""
    args = bench.args
    steps = WARM_UP + args.steps
    once = ours(bench.sets[args.data], bench, image_once=True)
    settings = {
        "gradient_accumulation_steps": 1,
        "max_steps": steps,
        "dataloader_num_workers": args.workers,
        "dataloader_persistent_workers": False,
    }
    rows = concatenate_datasets([once.rows] * (1 + steps * args.batch_size // len(once.rows)))  # one pass for all steps
    way = replace(once, rows=rows, trainer_class=LabelledTrainer, settings=settings)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        labels = Labels()
        way.trainer(bench, args.batch_size, 1, folder, labels).train()
    events = labels.profiler.key_averages()
    return {e.key.removeprefix("part: "): e.cpu_time_total / 1e6 for e in events if e.key.startswith("part: ")}


def seconds_to_collate(bench: Workbench) -> float:
    """Seconds that one process takes to decode and collate a batch, on average."""
    args = bench.args
    rows = ours(bench.sets[args.data], bench, image_once=True).rows
    collate = VqaCollator(bench.processor, mask="compact")
    endless = cycle(rows)
    start = time.perf_counter()
    for _ in range(args.steps):
        collate(list(islice(endless, args.batch_size)))
    return (time.perf_counter() - start) / args.steps
