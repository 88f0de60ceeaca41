"""The demo's base: a tiny LLaVA trained from scratch on pictures of easy-VQA that the demo never shows again.

Stage one teaches the tower (`tower.py`), stage two the projector and the language model on dialogues, through the
same encoder and image-once forest as everything else. It never sees a short answer or the word `unanswerable`.
"""

import functools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from hf_llava_vqa import forest, prompts
from hf_llava_vqa.demo.dialogues import base_dialogues, tokenizer_corpus, turns
from hf_llava_vqa.demo.pictures import BASE_IMAGES, Scene, read_scenes
from hf_llava_vqa.demo.quality import base_quality
from hf_llava_vqa.demo.tower import TowerConfig, picture_batch, train_tower
from hf_llava_vqa.models.tiny import TinyConfig, tiny_model, tiny_processor, tiny_tokenizer

BASE_SIZES = TinyConfig(
    image_size=64,
    patch_size=8,
    vision_hidden=128,
    vision_intermediate=384,
    vision_layers=5,
    vision_heads=4,
    hidden=128,
    intermediate=352,
    layers=4,
    heads=4,
    vocab_size=900,
)


@dataclass(frozen=True)
class DialogueConfig:
    """Stage two: how long and how fast."""

    steps: int = 3000
    images: int = 16  # a step
    dialogues: int = 7  # an image
    learning_rate: float = 2e-3
    warmup: int = 100
    blurred: float = 0.15  # share of the pictures


@dataclass(frozen=True)
class BaseConfig:
    """Everything that decides the base, besides the seed."""

    sizes: TinyConfig = BASE_SIZES
    tower: TowerConfig = field(default_factory=TowerConfig)
    dialogues: DialogueConfig = field(default_factory=DialogueConfig)


def make_base(folder: Path, config: BaseConfig, *, seed: int, echo: Callable[[str], None] = print) -> None:
    """Train the base on one core and write it to `folder`, with `training_log.jsonl`.

    Args:
        folder: created; gets a complete Hugging Face LLaVA.
        config: sizes and lengths.
        seed: decides weights, pictures and texts; the same seed on the same machine gives the same bytes.
        echo: called with each line of the log.
    """
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    scenes = [scene for scene in read_scenes("train") if scene.image_id in BASE_IMAGES]
    processor = tiny_processor(config.sizes, tiny_tokenizer(tokenizer_corpus(), config.sizes.vocab_size))
    model = tiny_model(config.sizes, processor.tokenizer, seed=seed)
    started = time.monotonic()
    with (folder / "training_log.jsonl").open("w", encoding="utf-8") as log_file:

        def log(row: dict) -> None:
            line = json.dumps({**row, "seconds": round(time.monotonic() - started, 1)})
            log_file.write(line + "\n")
            log_file.flush()
            echo(line)

        train_tower(model.model.vision_tower, scenes, config.tower, seed=seed, log=log)
        train_dialogues(model, processor.tokenizer, scenes, config.dialogues, seed=seed, log=log)
        log({"stage": "held-out", **base_quality(model, processor, read_scenes("test"))})
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def train_dialogues(
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    scenes: Sequence[Scene],
    config: DialogueConfig,
    *,
    seed: int,
    log: Callable[[dict], None],
) -> None:
    """Train projector and language model in place with the tower frozen; `log` gets a row now and then."""
    rng = np.random.default_rng(seed + 1)
    model.requires_grad_(True)
    model.model.vision_tower.requires_grad_(False)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, config.steps, pct_start=config.warmup / config.steps, cycle_momentum=False
    )
    encode = functools.lru_cache(maxsize=100_000)(lambda dialogue: prompts.encode(turns(dialogue), tokenizer))
    model.train()
    running = 0.0
    for step in range(1, config.steps + 1):
        chosen, is_blurred, values = picture_batch(scenes, config.images, config.blurred, rng)
        dialogues = [
            base_dialogues(scene, bool(flag), config.dialogues, rng)
            for scene, flag in zip(chosen, is_blurred, strict=True)
        ]
        loss = forest_loss(model, [[encode(dialogue) for dialogue in tree] for tree in dialogues], values)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        running += loss.item()
        if step % 100 == 0:
            log({"stage": "dialogues", "step": step, "loss": round(running / 100, 5)})
            running = 0.0
    model.requires_grad_(True).eval()


def forest_loss(
    model: LlavaForConditionalGeneration, paths: Sequence[Sequence[forest.Path]], values: torch.Tensor
) -> torch.Tensor:
    """Mean negative log-likelihood of the answers: one tree of paths for each picture of `values` [B, 3, S, S]."""
    config = model.config
    trees = [forest.expand_images(forest.merge(tree), config.image_token_id, config.image_seq_length) for tree in paths]
    arrays = forest.pad_rows(forest.lay_out(trees), config.text_config.pad_token_id)
    rows = {name: torch.from_numpy(array) for name, array in arrays.items()}
    hidden = model.model(
        input_ids=rows["input_ids"],
        pixel_values=values,
        position_ids=rows["position_ids"],
        attention_mask=forest.attention_mask(rows["subtree_end"]),
        use_cache=False,
    ).last_hidden_state
    labels = rows["labels"][:, 1:]
    answered = labels != forest.IGNORE_INDEX
    return functional.cross_entropy(model.lm_head(hidden[:, :-1][answered]), labels[answered])
