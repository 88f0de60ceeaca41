"""One rank of one training run: it writes down what it consumes, dies where it is told to, and says how it ended.

Files in the run's folder, to which every attempt appends:

    started-RANK.jsonl    a line for each attempt that came to its first step: at which step
    consumed-RANK.jsonl   a line for each backward pass: step, dialogue ids of each row, hash of the batch, loss
    decoded-RANK.jsonl    a line for each picture that the collator opened, in whichever process
    saves-RANK.jsonl      a line before and after each save
    result-RANK.json      hashes of the trained state, from the attempt that came to the end
"""

import hashlib
import json
import os
import pkgutil
import random
import re
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO
from unittest import mock

import numpy as np
import torch
from datasets import Dataset, IterableDataset
from transformers import TrainerCallback
from trl import ModelConfig

from hf_llava_vqa import load_records
from hf_llava_vqa.data.streams import mix_streams
from hf_llava_vqa.models.adapters import lora_config
from hf_llava_vqa.models.loading import training_model, training_processor
from hf_llava_vqa.training import VqaConfig, VqaTrainer

CLOCK = re.compile("runtime|second")  # figures of the log that no two runs share
FORWARD = "training_run:JournallingTrainer.compute_loss"
SAVE = "training_run:JournallingTrainer._save_checkpoint"


@dataclass(frozen=True)
class Kill:
    """Where a rank sends itself a signal: before or after a call of a function, once the run is `within` another.

    `place` and `within` are named as `module:name`. `step` is the Trainer's count of finished optimizer steps.
    """

    step: int
    place: str = FORWARD
    moment: str = "before"
    call: int = 1  # the first one, the second one ...
    within: str | None = None
    rank: int | None = None  # None for every rank
    signal: int = signal.SIGKILL


@dataclass(frozen=True)
class Run:
    """What a rank has to know. Everything but `attempt` and `kill` is the same for all attempts of a run."""

    folder: str
    model: str
    data: str
    source: str = "map-style"  # or "grouped", "stream", "mixture", "other stream"
    workers: int = 0
    accumulation: int = 1
    rows: int = 2  # per process and micro-batch
    max_steps: int = 26
    save_steps: int = 3
    save_total_limit: int | None = None
    by_epochs: bool = False  # three epochs, saved after each; `max_steps` says how many steps that is
    evaluating: bool = False  # with each save, and the best checkpoint is kept and loaded at the end
    attempt: int = 0
    kill: dict[str, Any] | None = None

    def log(self, rank: int) -> Path:
        return Path(self.folder, f"log-{rank}.txt")


class Journal:
    """Lines in files: what is closed is the kernel's, so a killed process loses none."""

    def __init__(self, run: Run, rank: int) -> None:
        self.folder, self.attempt, self.rank = Path(run.folder), run.attempt, rank

    def write(self, name: str, **facts: Any) -> None:
        with open(self.folder / f"{name}-{self.rank}.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"attempt": self.attempt, **facts}) + "\n")

    def noting_pictures(self, open_image: Callable[..., Any]) -> Callable[..., Any]:
        """Pillow's `open`, which also writes down the hash of the file."""

        def noted(file: BinaryIO, **options: Any) -> Any:
            self.write("decoded", picture=hashlib.sha256(file.read()).hexdigest())
            file.seek(0)
            return open_image(file, **options)

        return noted


class JournallingTrainer(VqaTrainer):
    """`VqaTrainer` that writes down what it does."""

    journal: Journal

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        self.batch = {"ids": inputs["dialogue_ids"], "batch": tensors_hash(inputs)}
        return super().compute_loss(model, inputs, *args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)  # one forward and one backward
        self.journal.write("consumed", step=self.state.global_step, loss=loss.item().hex(), **self.batch)
        return loss

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        self.journal.write("saves", step=self.state.global_step, moment="begins", clock=time.monotonic())
        super()._save_checkpoint(*args, **kwargs)
        self.journal.write("saves", step=self.state.global_step, moment="ends", clock=time.monotonic())


class NoteStart(TrainerCallback):
    """Write where an attempt starts."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.journal.write("started", step=state.global_step)


def train(run: Run, rank: int, processes: int) -> None:
    """Train to the end, or to the kill."""
    os.chdir(run.folder)
    journal = Journal(run, rank)
    kill = Kill(**run.kill) if run.kill else None
    with ExitStack() as patches:
        patches.enter_context(around("PIL.Image:open", journal.noting_pictures))
        trainer = make_trainer(run, journal)
        assert trainer.accelerator.num_processes == processes
        if kill is not None and kill.rank in (None, rank):
            for patch in traps(kill, trainer):
                patches.enter_context(patch)
        trainer.train(resume_from_checkpoint="auto")
    Path(run.folder, f"result-{rank}.json").write_text(json.dumps(state_of(trainer), indent=1))


def make_trainer(run: Run, journal: Journal) -> JournallingTrainer:
    model_args = ModelConfig(
        model_name_or_path=run.model, dtype="float32", use_peft=True, lora_r=4, lora_alpha=8, lora_dropout=0.1
    )
    config = VqaConfig(
        output_dir="output",  # in the run's folder; no state names a place that only one run has
        use_cpu=True,
        max_steps=-1 if run.by_epochs else run.max_steps,
        num_train_epochs=3,
        per_device_train_batch_size=run.rows,
        gradient_accumulation_steps=run.accumulation,
        dataloader_num_workers=run.workers,
        train_sampling_strategy="group_by_length" if run.source == "grouped" else "random",
        learning_rate=1e-2,
        lr_scheduler_type="cosine",
        warmup_steps=4,
        answer_target="sample",  # these two are drawn anew in each pass, so a wrong pass shows in the batch
        image_augmentation="randaugment",
        logging_steps=1,
        save_strategy="epoch" if run.by_epochs else "steps",
        save_steps=run.save_steps,
        save_total_limit=run.save_total_limit,
        eval_strategy="steps" if run.evaluating else "no",
        eval_steps=run.save_steps,
        eval_max_new_tokens=4,
        load_best_model_at_end=run.evaluating,
        metric_for_best_model="eval_loss" if run.evaluating else None,
        activation_checkpointing=False,
        disable_tqdm=True,
        report_to="none",
    )
    trainer = JournallingTrainer(
        training_model(model_args),
        config,
        train_dataset=training_data(run),
        eval_dataset=load_records("parquet", path=run.data, split="train").select(range(5)),
        processing_class=training_processor(model_args),
        peft_config=lora_config(model_args),
        callbacks=[NoteStart(journal)],
    )
    trainer.journal = journal
    return trainer


def training_data(run: Run) -> Dataset | IterableDataset:
    records = partial(load_records, "parquet", path=run.data)
    match run.source:
        case "map-style" | "grouped":
            return records(split="train")
        case "stream":
            return records(split="train", streaming=True)
        case "mixture":
            return mix_streams([records(split=split, streaming=True) for split in ("train", "more")], [3, 1])
        case "other stream":
            return records(split="train").to_iterable_dataset()
    raise ValueError(run.source)


# The trap


def traps(kill: Kill, trainer: VqaTrainer) -> list[Any]:
    """Patches under which the process sends itself the signal where `kill` says."""
    calls = 0
    inside = kill.within is None

    def enter(original: Callable[..., Any]) -> Callable[..., Any]:
        def entered(*args: Any, **kwargs: Any) -> Any:
            nonlocal inside
            inside = True
            result = original(*args, **kwargs)
            inside = False
            return result

        return entered

    def trap(original: Callable[..., Any]) -> Callable[..., Any]:
        def trapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += here if (here := inside and trainer.state.global_step == kill.step) else 0
            if here and calls == kill.call and kill.moment == "before":
                os.kill(os.getpid(), kill.signal)
            result = original(*args, **kwargs)
            if here and calls == kill.call and kill.moment == "after":
                os.kill(os.getpid(), kill.signal)
            return result

        return trapped

    outer = [] if kill.within is None else [around(kill.within, enter)]
    return [*outer, around(kill.place, trap)]


def around(place: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Any:
    """A patch that puts `wrap` around the function named `module:name`."""
    owner, _, name = place.rpartition("." if "." in place.partition(":")[2] else ":")
    return mock.patch.object(pkgutil.resolve_name(owner), name, wrap(pkgutil.resolve_name(place)))


# The trained state in hashes


def state_of(trainer: VqaTrainer) -> dict[str, Any]:
    """SHA-256 of everything that decides how the training would go on, the steps done, and the log."""
    optimizer = trainer.optimizer.state_dict()["state"]
    moments = {f"{index} {name}": tensor for index, state in optimizer.items() for name, tensor in state.items()}
    return {
        "steps": trainer.state.global_step,
        "updates": sorted({int(state["step"]) for state in optimizer.values()}),
        "trained": tensors_hash({name: p for name, p in trainer.model.named_parameters() if p.requires_grad}),
        "optimizer": tensors_hash(moments),
        "scheduler": text_hash(trainer.lr_scheduler.state_dict()),
        "python": text_hash(random.getstate()),
        "numpy": text_hash([part.tolist() if hasattr(part, "tolist") else part for part in np.random.get_state()]),
        "torch": text_hash(torch.get_rng_state().tolist()),
        "log": [
            {k: v for k, v in entry.items() if k not in ("num_tokens", "entropy", "mean_token_accuracy")}
            for entry in trainer.state.log_history
            if "loss" in entry
        ],
    }


def without_clock(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in entry.items() if not CLOCK.search(name)} for entry in log]


def tensors_hash(tensors: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(name for name, tensor in tensors.items() if isinstance(tensor, torch.Tensor)):
        tensor = tensors[name].detach().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def text_hash(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()
