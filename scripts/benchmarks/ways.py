"""The model that training is measured on, and the ways to train it: stock TRL, and ours with and without image-once.

Every optimizer step is one pass over all rows, whatever the batch size: so all ways make the same steps, and their
losses must agree. Rows are sorted by length, so that none pays for padding that sorting avoids.
"""

import argparse
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from operator import itemgetter
from typing import Any

import torch
from datasets import Dataset, Features, Image, List, Value
from peft import LoraConfig
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    TrainerCallback,
)
from trl import SFTConfig, SFTTrainer

from hf_llava_vqa import VqaCollator, VqaConfig, VqaTrainer, forest, prompts
from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.flags import positive
from hf_llava_vqa.models.adapters import PROJECTOR, language_model_targets
from hf_llava_vqa.models.tiny import TinyConfig, tiny_model, tiny_processor, tiny_tokenizer
from hf_llava_vqa.records import UNDECODED_FEATURES, Record
from scripts.benchmarks.question_sets import QuestionSet, question_sets, texts

PATCH = 14  # pixels a side
IMAGE_TOKENS = (64, 256, 576)
HEAD_SIZE = 128  # LLaVA's
HIDDEN_OVER_RANK = 32  # LLaVA's r = 128 at a width of 4096
MESSAGES = {"messages": List({"role": Value("string"), "content": Value("string")})}
PROMPT_COMPLETION = {"prompt": Value("string"), "completion": Value("string")}

SETTINGS = {
    "train_sampling_strategy": "sequential",
    "max_length": None,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
    "ddp_find_unused_parameters": False,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
}
"""Of the trainers of all ways."""


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that decide what is trained."""
    parser.add_argument(
        "--model", choices=["tiny", "7b"], default="tiny", help="random weights of this size (default: tiny)"
    )
    parser.add_argument("--hidden", type=int, default=768, help="width of the tiny language model (default: 768)")
    parser.add_argument("--layers", type=positive, default=2, help="of the tiny language model (default: 2)")
    parser.add_argument("--image_tokens", type=int, choices=IMAGE_TOKENS, default=576, help="an image (default: 576)")
    parser.add_argument("--scale", type=positive, default=1, metavar="N", help="N times as many pictures (default: 1)")
    parser.add_argument(
        "--attention", choices=["sdpa", "flex_attention"], default="sdpa", help="of our ways (default: sdpa)"
    )
    parser.add_argument("--gradient_checkpointing", action="store_true", help="recompute activations on all sides")


@dataclass(frozen=True)
class Workbench:
    """What all ways share: the flags, the questions and a model for them."""

    args: argparse.Namespace
    sets: dict[str, QuestionSet]

    @classmethod
    def of(cls, args: argparse.Namespace, names: Sequence[str]) -> "Workbench":
        """The named sets, made. Raises `ConfigError` for a model that cannot be, or that this machine cannot hold."""
        if args.model == "7b" and not torch.cuda.is_available():
            raise ConfigError("--model 7b needs a GPU, of 80 GB; use --model tiny")
        if args.attention == "flex_attention" and not torch.cuda.is_available():
            raise ConfigError("--attention flex_attention cannot train on a CPU; use sdpa")
        if args.hidden < 1 or args.hidden % math.lcm(8, 2 * heads(args.hidden)):  # a tower of a quarter has two heads
            raise ConfigError(f"--hidden {args.hidden} does not divide into heads; use a multiple of {HEAD_SIZE}")
        make = question_sets(args.scale)
        return cls(args, {name: make[name]() for name in names})

    @cached_property
    def config(self) -> TinyConfig:
        """Sizes in the proportions of LLaVA-1.5-7B: a tower of about 5 % of the language model."""
        hidden = self.args.hidden
        return TinyConfig(
            image_size=PATCH * math.isqrt(self.args.image_tokens),
            patch_size=PATCH,
            vision_hidden=max(hidden // 4, 32),
            vision_intermediate=max(hidden, 64),
            hidden=hidden,
            intermediate=hidden * 11 // 4,
            layers=self.args.layers,
            heads=heads(hidden),
            max_positions=4096,
            vocab_size=1024,
        )

    @cached_property
    def processor(self) -> LlavaProcessor:
        """With a tokenizer trained on the questions."""
        corpus = [prompts.V1.system, *texts(list(self.sets.values()))]
        return tiny_processor(self.config, tiny_tokenizer(corpus, self.config.vocab_size))

    def model(self) -> LlavaForConditionalGeneration:
        """The same random weights at every call; the tower is frozen."""
        if self.args.model == "7b":
            model = model_7b(self.processor, self.config.image_size)
        else:
            model = tiny_model(self.config, self.processor.tokenizer, seed=0)
        model.model.vision_tower.requires_grad_(False)
        return model

    @property
    def lora(self) -> LoraConfig:
        """LLaVA's own proportion of rank to width, no dropout, the projector in full."""
        rank = max((4096 if self.args.model == "7b" else self.args.hidden) // HIDDEN_OVER_RANK, 4)
        return LoraConfig(
            r=rank,
            lora_alpha=2 * rank,
            lora_dropout=0.0,
            target_modules=language_model_targets(),
            modules_to_save=[PROJECTOR],
            task_type="CAUSAL_LM",
        )

    def by_length(self, records: Sequence[Record]) -> tuple[list[Record], list[int]]:
        """The records in the order of their tokens, and these."""
        collator = VqaCollator(self.processor, mask="compact")
        counted = sorted(((collator.count_tokens(record), record) for record in records), key=itemgetter(0))
        return [record for _, record in counted], [tokens for tokens, _ in counted]

    def pairs(self, record: Record) -> int:
        """Pairs of tokens of a record's trees of which one attends to the other: a token's path has depth + 1."""
        collator = VqaCollator(self.processor)
        image = collator.image_token_id, collator.image_tokens
        rows = forest.lay_out([forest.expand_images(tree, *image) for tree in collator.trees(record)])
        return sum(int((row.position_ids + 1).sum()) for row in map(forest.trim_leaves, rows))


def heads(hidden: int) -> int:
    """Of a language model of this width, each as near to LLaVA's size as two or more allow."""
    return max(hidden // HEAD_SIZE, 2)


def model_7b(processor: LlavaProcessor, image_size: int) -> LlavaForConditionalGeneration:
    """LLaVA-1.5-7B's architecture with random bfloat16 weights, made on the GPU; its own `image_size` is 336."""
    vision = CLIPVisionConfig(
        image_size=image_size,
        patch_size=PATCH,
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        projection_dim=768,
    )
    tokenizer = processor.tokenizer
    text = LlamaConfig(vocab_size=32064, max_position_embeddings=4096, pad_token_id=tokenizer.pad_token_id)
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=processor.image_token_id,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    torch.manual_seed(0)
    with torch.device("cuda"):
        return LlavaForConditionalGeneration._from_config(config, dtype=torch.bfloat16)


@dataclass(frozen=True)
class Way:
    """One way to train on one set of questions."""

    records: list[Record]  # what each row holds
    rows: Dataset
    lengths: list[int]  # real tokens of each row
    trainer_class: type[SFTTrainer]
    config_class: type[SFTConfig]
    settings: dict[str, Any] = field(default_factory=dict)

    def head(self, count: int) -> "Way":
        """The same on the first rows only."""
        few = min(count, len(self.rows))
        return replace(self, records=self.records[:few], rows=self.rows.select(range(few)), lengths=self.lengths[:few])

    def trainer(
        self, bench: Workbench, batch_size: int, steps: int, folder: str, callback: TrainerCallback
    ) -> SFTTrainer:
        """A trainer that makes `steps` optimizer steps, each one pass over the rows in batches of `batch_size`."""
        cuda = torch.cuda.is_available()
        workers = min(8, os.cpu_count() or 1) if cuda else 0  # on the CPU the model needs every core itself
        settings = {
            "num_train_epochs": steps,
            "per_device_train_batch_size": batch_size,
            "gradient_accumulation_steps": math.ceil(len(self.rows) / batch_size),
            "dataloader_num_workers": workers,
            "dataloader_persistent_workers": workers > 0,
            "activation_checkpointing": bench.args.gradient_checkpointing,
        }
        config = self.config_class(
            output_dir=folder, use_cpu=not cuda, bf16=cuda, **(SETTINGS | settings | self.settings)
        )
        model = bench.model()
        if self.trainer_class is not SFTTrainer:
            model.set_attn_implementation(bench.args.attention)
        torch.manual_seed(0)  # of the adapter's weights
        return self.trainer_class(
            model,
            config,
            train_dataset=self.rows,
            processing_class=bench.processor,
            peft_config=bench.lora,
            callbacks=[callback],
        )


def stock(questions: QuestionSet, bench: Workbench) -> Way:
    """TRL with its vision collator, a row a dialogue.

    Rows are prompt and completion. These train on one answer only, so sets with dialogues of several turns go as
    messages with `assistant_only_loss`.
    """
    records, lengths = bench.by_length(questions.one_answer_a_row)
    several_turns = any(len(record["dialogues"][0]["turns"]) > 2 for record in records)
    row = _messages if several_turns else partial(_prompt_completion, processor=bench.processor)
    features = Features({"images": List(Image()), **(MESSAGES if several_turns else PROMPT_COMPLETION)})
    rows = Dataset.from_list([row(record) for record in records], features=features)
    return Way(records, rows, lengths, SFTTrainer, SFTConfig, {"assistant_only_loss": several_turns})


def ours(questions: QuestionSet, bench: Workbench, *, image_once: bool) -> Way:
    """`VqaTrainer` with a row a picture, or with a row a dialogue."""
    records, lengths = bench.by_length(questions.records if image_once else questions.one_answer_a_row)
    rows = Dataset.from_list(records, features=UNDECODED_FEATURES)
    return Way(records, rows, lengths, VqaTrainer, VqaConfig)


def _messages(record: Record) -> dict[str, Any]:
    return {"images": record["images"], "messages": record["dialogues"][0]["turns"]}


def _prompt_completion(record: Record, processor: LlavaProcessor) -> dict[str, Any]:
    turns = prompts.question_turns(record["dialogues"][0]["turns"], images=len(record["images"]))
    messages = prompts.messages(turns)
    prompt = processor.apply_chat_template(messages[:-1], add_generation_prompt=True)
    whole = processor.apply_chat_template(messages)
    return {"images": record["images"], "prompt": prompt, "completion": whole.removeprefix(prompt)}
