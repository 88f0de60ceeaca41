"""The demo's base: a tiny LLaVA trained from scratch on pictures of easy-VQA that the demo never shows again.

Stage one teaches the tower (`tower.py`), stage two the projector and the language model on dialogues, through the
same encoder and image-once forest as everything else. It never sees a short answer or the word `unanswerable`.
"""

import functools
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from hf_llava_vqa import forest, prompts
from hf_llava_vqa.demo.dialogues import base_dialogues, tokenizer_corpus, turns
from hf_llava_vqa.demo.optimise import Log, Schedule, minimise
from hf_llava_vqa.demo.pictures import BASE_IMAGES, Scene, read_scenes
from hf_llava_vqa.demo.quality import base_quality
from hf_llava_vqa.demo.tower import TowerConfig, picture_batch, train_tower
from hf_llava_vqa.models.tiny import TinyConfig, tiny_model, tiny_processor, tiny_tokenizer

LOG_FILE, WEIGHTS_FILE = "training_log.jsonl", "model.safetensors"
BASE_SIZES = TinyConfig(
    image_size=64,
    patch_size=8,
    vision_hidden=128,
    vision_intermediate=256,
    vision_layers=5,
    vision_heads=4,
    hidden=128,
    intermediate=256,
    layers=3,
    heads=4,
    vocab_size=900,
    initializer_range=0.08,  # large enough for an answer word that the base never says to be learned by LoRA later
)


@dataclass(frozen=True)
class DialogueConfig:
    """Stage two: how many pictures and dialogues."""

    schedule: Schedule = field(default_factory=lambda: Schedule(steps=4000, learning_rate=1.5e-3))
    pictures: int = 4  # a step
    dialogues: int = 10  # a picture
    blurred: float = 0.15  # share of the pictures


@dataclass(frozen=True)
class BaseConfig:
    """Everything that decides the base, besides the seed."""

    sizes: TinyConfig = BASE_SIZES
    tower: TowerConfig = field(default_factory=TowerConfig)
    dialogues: DialogueConfig = field(default_factory=DialogueConfig)
    held_out: int = 500  # easy-VQA test pictures on which its quality is measured


def make_base(folder: Path, config: BaseConfig, *, seed: int, echo: Callable[[str], None] = print) -> None:
    """Train the base and write it to `folder`, with `training_log.jsonl`.

    Args:
        folder: created; gets a complete Hugging Face LLaVA.
        config: sizes and lengths.
        seed: decides weights, pictures and texts; on one machine the same seed gives the same weights.
        echo: called with each line of the log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scenes = [scene for scene in read_scenes("train") if scene.image_id in BASE_IMAGES]
    processor = tiny_processor(config.sizes, tiny_tokenizer(tokenizer_corpus(), config.sizes.vocab_size))
    model = tiny_model(config.sizes, processor.tokenizer, seed=seed)
    started = time.monotonic()
    with (folder / LOG_FILE).open("w", encoding="utf-8") as log_file:

        def log(stage: str, row: dict) -> None:
            line = json.dumps({"stage": stage, **row, "seconds": round(time.monotonic() - started, 1)})
            print(line, file=log_file, flush=True)
            echo(line)

        model.model.vision_tower = train_tower(
            model.config.vision_config, scenes, config.tower, seed=seed, log=functools.partial(log, "tower")
        )
        train_dialogues(
            model, processor.tokenizer, scenes, config.dialogues, seed=seed, log=functools.partial(log, "dialogues")
        )
        log("held-out", base_quality(model, processor, read_scenes("test")[: config.held_out]))
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        log("written", {"sha256": hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()})


def train_dialogues(
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    scenes: Sequence[Scene],
    config: DialogueConfig,
    *,
    seed: int,
    log: Log,
) -> None:
    """Train projector and language model in place, with the tower frozen."""
    rng = np.random.default_rng([seed, 2])
    encode = functools.lru_cache(maxsize=100_000)(lambda dialogue: prompts.encode(turns(dialogue), tokenizer))

    def loss() -> torch.Tensor:
        chosen, is_blurred, values = picture_batch(scenes, config.pictures, config.blurred, rng)
        told = [
            base_dialogues(scene, bool(flag), config.dialogues, rng)
            for scene, flag in zip(chosen, is_blurred, strict=True)
        ]
        return forest_loss(model, [[encode(dialogue) for dialogue in dialogues] for dialogues in told], values)

    model.train()
    model.model.vision_tower.requires_grad_(False)
    minimise((p for p in model.parameters() if p.requires_grad), loss, config.schedule, log)
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
