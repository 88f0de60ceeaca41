"""What a recipe can be told: `DataArguments`, `VqaConfig` on top of TRL's `SFTConfig`, and `VqaModelConfig`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers.utils import is_torch_bf16_gpu_available
from trl import SFTConfig, TrlParser

from hf_llava_vqa.answers import ANSWER_TARGETS, check_confidence_weights
from hf_llava_vqa.augmentation import AUGMENTATIONS
from hf_llava_vqa.bad_images import ON_BAD_IMAGE
from hf_llava_vqa.data.prepared.folders import is_on_hub
from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.models.attention import mask_for
from hf_llava_vqa.models.processors import IMAGE_ASPECTS
from hf_llava_vqa.models.trainable import LORA_AND_VISION, VqaModelConfig
from hf_llava_vqa.prompts import TEMPLATES
from hf_llava_vqa.self_questioning import check_self_questioning


@dataclass
class DataArguments:
    """Where the questions come from."""

    source: str = field(default="vizwiz", metadata={"help": "Reader: vizwiz, dacon, llava_json, ... or parquet."})
    data_dir: list[str] | None = field(
        default=None,
        metadata={
            "help": "Folder with the files as published, or a prepared set, also hf://datasets/USER/NAME. Several "
            "prepared sets are streamed as a mixture; evaluation is on the first."
        },
    )
    data_weights: list[float] | None = field(
        default=None, metadata={"help": "How often each --data_dir is read; by default by its number of images."}
    )
    train_split: str = field(default="train", metadata={"help": "Split to train on."})
    eval_split: str | None = field(default=None, metadata={"help": "Split to evaluate on; none if not given."})
    eval_limit: int | None = field(default=None, metadata={"help": "Evaluate on the first so many images only."})
    streaming: bool = field(default=False, metadata={"help": "Read the training split as a stream."})
    skip_list: str | None = field(
        default=None, metadata={"help": "Records to leave out, as scripts/inspect_data.py lists them; not for streams."}
    )
    follow_symlinks: bool = field(
        default=False, metadata={"help": "Allow links in folders of images that lead out of them."}
    )

    def __post_init__(self) -> None:
        if isinstance(self.data_dir, str):  # a configuration file may name one folder as it is
            self.data_dir = [self.data_dir]


@dataclass
class VqaConfig(SFTConfig):
    """TRL's `SFTConfig` with what visual question answering adds.

    `per_device_train_batch_size` counts images: each is one row that holds all its questions and answers.
    `max_length` limits a single path (images counted in full) and never cuts. bf16 is used where a GPU has it, fp32
    on the CPU.

    Raises:
        ConfigError: a value that cannot work, with the flag's name and the remedy.
    """

    template: str = field(default="v1", metadata={"help": "Prompt template.", "choices": sorted(TEMPLATES)})
    answer_target: str = field(
        default="majority",
        metadata={"help": "Which human answers are trained on.", "choices": list(ANSWER_TARGETS)},
    )
    answer_confidence_weights: list[float] = field(
        default_factory=lambda: [1.0, 1.0, 1.0],
        metadata={"help": "How much an answer counts whose annotator was sure (yes), maybe and not (no)."},
    )
    self_question_ratio: float = field(
        default=0.0,
        metadata={
            "help": "Share of the questions about pictures that the model learns to ask itself, drawn anew in each "
            "epoch; needs --template v1_sq."
        },
    )
    self_question_weight: float = field(
        default=1.0, metadata={"help": "Weight of a token of such a question, beside 1 for one of an answer."}
    )
    max_questions_per_row: int = field(
        default=16, metadata={"help": "An image with more questions takes several rows."}
    )
    projector_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Learning rate of the multimodal projector; as the rest if not given."},
    )
    vision_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Learning rate of the adapter in the vision tower; as the rest if not given."},
    )
    image_aspect: str = field(
        default="pad",
        metadata={"help": "Pad photos to a square, or crop their centre.", "choices": list(IMAGE_ASPECTS)},
    )
    image_augmentation: str = field(
        default="none",
        metadata={"help": "Change training pictures anew in each epoch.", "choices": list(AUGMENTATIONS)},
    )
    on_bad_image: str = field(
        default="error",
        metadata={
            "help": "A picture that does not open stops the run, or its record is left out or replaced by another of "
            "its batch; each case is named in bad_images.jsonl.",
            "choices": list(ON_BAD_IMAGE),
        },
    )
    eval_max_new_tokens: int = field(default=32, metadata={"help": "Longest answer in tokens during evaluation."})
    max_length: int | None = field(default=None, metadata={"help": "Longest path in tokens; longer ones are refused."})
    bf16: bool | None = field(default=None, metadata={"help": "bfloat16; by default where a GPU has it."})
    on_nan: str = field(
        default="stop",
        metadata={
            "help": "A loss or gradient that is not finite stops the run, or the step is skipped and counted; the "
            "dialogues are named in nonfinite.jsonl either way.",
            "choices": ["stop", "skip"],
        },
    )
    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={"help": "A checkpoint folder, or auto: the newest whole one of the output folder, if there is any."},
    )
    force_resume: bool = field(
        default=False, metadata={"help": "Resume although data, model, seed or batch are not the checkpoint's."}
    )
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Off: every batch reaches every trained parameter."}
    )

    def __post_init__(self) -> None:
        if self.bf16 is None and not self.fp16:
            self.bf16 = _use_bf16(self.use_cpu)
        for flag in ("max_questions_per_row", "eval_max_new_tokens"):
            if getattr(self, flag) < 1:
                raise ConfigError(f"--{flag} is {getattr(self, flag)}; it must be at least 1")
        check_confidence_weights(self.answer_confidence_weights)
        if self.on_bad_image == "replace" and self.per_device_train_batch_size == 1:
            raise ConfigError(
                "--on_bad_image replace takes another record of the batch: raise --per_device_train_batch_size above "
                "1, or use skip"
            )
        check_self_questioning(self.self_question_ratio, self.self_question_weight, self.template)
        drawn = self.answer_target == "sample" or self.image_augmentation != "none" or self.self_question_ratio > 0
        if self.dataloader_persistent_workers and drawn:
            raise ConfigError(
                "--dataloader_persistent_workers: leave it off with --answer_target sample, --image_augmentation and "
                "--self_question_ratio, persistent workers would draw the first epoch's again"
            )
        if self.packing or self.padding_free:
            raise ConfigError("--packing and --padding_free: leave them off, image trees are laid out by the collator")
        if self.loss_type == "dft" or self.label_smoothing_factor:
            raise ConfigError(
                "--loss_type dft and --label_smoothing_factor: leave them off, answers have weights instead"
            )
        super().__post_init__()


def _use_bf16(use_cpu: bool) -> bool:
    if use_cpu or not torch.cuda.is_available():
        return False
    if not is_torch_bf16_gpu_available():
        raise ConfigError(
            f"{torch.cuda.get_device_name()} has no bfloat16, and LLaVA overflows in float16; use an Ampere or newer "
            "card, or train in float32 with --bf16 False --dtype float32 (twice the memory)"
        )
    return True


def parse_recipe_args(
    args: Sequence[str] | None = None, **defaults: Any
) -> tuple[DataArguments, VqaConfig, VqaModelConfig]:
    """Parse `--config FILE.yaml` and flags: the file gives defaults, the command line wins, unknown keys are errors.

    Args:
        args: the command line; that of the process if not given.
        **defaults: the recipe's own, for what neither says.

    Raises:
        ConfigError: in one line, for whatever the parser or a configuration class refuses.
    """
    parser = TrlParser((DataArguments, VqaConfig, VqaModelConfig))
    parser.set_defaults(**defaults)
    try:
        data_args, config, model_args = parser.parse_args_and_config(args)
    except (ValueError, ImportError, FileNotFoundError) as error:
        raise ConfigError(_in_our_words(" ".join(str(error).split()))) from error
    check_run(data_args, config, model_args)
    return data_args, config, model_args


def _in_our_words(message: str) -> str:
    """Name unknown keys and flags as the user wrote them; other messages of the parser are clear as they are."""
    unknown = ", ".join(re.findall(r"'--(\w+)'", message))
    if message.startswith("Unknown arguments from config file"):
        return f"the --config file has unknown keys: {unknown}; --help lists the known ones"
    if message.startswith("Some specified arguments are not used"):
        return f"unknown flags: {unknown}; --help lists the known ones"
    return message


def check_run(data_args: DataArguments, config: VqaConfig, model_args: VqaModelConfig) -> None:
    """Refuse combinations that would only fail after the model is loaded. Raises `ConfigError`."""
    if model_args.model_name_or_path is None and model_args.assembly is None:
        raise ConfigError(
            "--model_name_or_path is missing; for example llava-hf/llava-1.5-7b-hf (or give --language_model and "
            "--vision_tower)"
        )
    if data_args.data_dir is None and data_args.source != "easy_vqa":
        raise ConfigError(f"--data_dir is missing; point it to the folder that holds the {data_args.source} files")
    for folder in data_args.data_dir or []:
        if not is_on_hub(folder) and not Path(folder).is_dir():
            raise ConfigError(f"--data_dir {folder}: no such folder")
    if config.eval_strategy != "no" and data_args.eval_split is None:
        raise ConfigError(f"--eval_strategy {config.eval_strategy.value} needs --eval_split, the split to evaluate on")
    if config.vision_learning_rate is not None and model_args.trainable != LORA_AND_VISION:
        raise ConfigError(
            f"--vision_learning_rate has nothing to train with --trainable {model_args.trainable}; use lora+vision, or "
            "leave it out"
        )
    check_attention(model_args.attn_implementation or "sdpa", config)
    if model_args.attn_implementation == "flex_attention" and config.device.type == "cpu":
        raise ConfigError("--attn_implementation flex_attention cannot train on a CPU; use sdpa")


def check_attention(implementation: str, config: VqaConfig) -> str:
    """The collator's `mask` for an attention backend.

    Raises:
        ConfigError: the backend would not keep the branches of this run's image trees apart, or cannot be compiled.
    """
    mask = mask_for(implementation)
    if mask is None:
        raise ConfigError(
            f"--attn_implementation {implementation} does not honour the mask that keeps branches apart; "
            "use sdpa or flex_attention"
        )
    if mask == "varlen" and not _only_paths(config):
        raise ConfigError(
            f"--attn_implementation {implementation} takes no mask to keep branches apart: train without branches "
            "(--max_questions_per_row 1, --answer_target majority or sample, --self_question_ratio 0), or use sdpa or "
            "flex_attention"
        )
    if mask != "compact" and config.torch_compile:
        raise ConfigError(
            f"--torch_compile: leave it off with --attn_implementation {implementation}, which brings a kernel of its "
            "own, or use sdpa"
        )
    return mask


def _only_paths(config: VqaConfig) -> bool:
    """Whether every row has one question with one answer."""
    one_answer = config.answer_target in ("majority", "sample")
    return one_answer and config.max_questions_per_row == 1 and config.self_question_ratio == 0
