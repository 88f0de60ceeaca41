"""Adapters on the language model and the vision tower, the projector trained in full, and checks of where they are."""

from collections import Counter
from collections.abc import Sequence

import torch
from peft import LoraConfig, PeftConfig
from peft.tuners.lora import LoraLayer
from peft.utils.constants import DUMMY_TARGET_MODULES
from torch import nn
from transformers import PreTrainedTokenizerBase
from trl import ModelConfig

from hf_llava_vqa import prompts
from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.models.assembling import AssemblyConfig
from hf_llava_vqa.models.trainable import LORA_AND_VISION, PROJECTOR_ONLY, VqaModelConfig

# LLaVA-1.5 adapts every linear of the language model (haotian-liu/LLaVA, train.py, find_all_linear_names).
LANGUAGE_MODEL_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# SQ-LLaVA adapts every linear of the tower (heliossun/SQ-LLaVA, --vit_lora_enable).
VISION_LINEARS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
PROJECTOR, VISION_TOWER = "multi_modal_projector", "vision_tower"
PARTS = (VISION_TOWER, PROJECTOR, "language_model", "lm_head")
IN_VISION_TOWER = rf"{VISION_TOWER}\..*"  # PEFT looks for it behind any prefix


def lora_config(args: ModelConfig, tokenizer: PreTrainedTokenizerBase | None = None) -> LoraConfig | None:
    """The adapter that the flags describe, on the language model and, with `lora+vision`, the tower; None without one.

    `--lora_target_modules` takes names of linears (`q_proj v_proj`); they are anchored to the language model, because
    CLIP has linears of the same names. `--use_dora` makes it DoRA. The projector is trained in full and saved in the
    adapter folder, and so are, with `--mm_use_im_start_end`, the embeddings of the two tokens in `tokenizer`.

    Raises:
        ConfigError: a target that no linear of a Llama language model has.
    """
    if not args.use_peft:
        return None
    if isinstance(args, VqaModelConfig) and args.trainable == PROJECTOR_ONLY:
        return projector_adapter(_trained_tokens(args, tokenizer))
    names = args.lora_target_modules or LANGUAGE_MODEL_LINEARS
    names = [names] if isinstance(names, str) else names
    unknown = sorted(set(names) - set(LANGUAGE_MODEL_LINEARS))
    if unknown:
        raise ConfigError(
            f"--lora_target_modules {' '.join(unknown)}: use names among {' '.join(LANGUAGE_MODEL_LINEARS)}"
        )
    targets, vision = language_model_targets(names), {}
    if isinstance(args, VqaModelConfig) and args.trainable == LORA_AND_VISION:
        targets = f"{targets}|{vision_targets()}"
        vision = {
            "rank_pattern": {IN_VISION_TOWER: args.vision_lora_r},
            "alpha_pattern": {IN_VISION_TOWER: args.vision_lora_alpha},
        }
    return LoraConfig(
        r=args.lora_r,
        lora_alpha=args.lora_alpha,
        lora_dropout=args.lora_dropout,
        target_modules=targets,
        modules_to_save=args.lora_modules_to_save or [PROJECTOR],
        use_dora=args.use_dora,
        use_rslora=args.use_rslora,
        bias="none",
        task_type="CAUSAL_LM",
        trainable_token_indices=_trained_tokens(args, tokenizer),
        **vision,
    )


def projector_adapter(tokens: dict[str, list[int]] | None = None) -> LoraConfig:
    """An adapter of PEFT's that adapts no layer, and trains and saves the projector in full; all else is frozen.

    `tokens` are trained too: ids by the name of their embedding, as PEFT's `trainable_token_indices`.

    So a projector by itself is resumed, loaded, merged and published like LoRA, and `--pretrained_projector` reads it.
    """
    return LoraConfig(
        target_modules=DUMMY_TARGET_MODULES,
        modules_to_save=[PROJECTOR],
        task_type="CAUSAL_LM",
        trainable_token_indices=tokens,
    )


def _trained_tokens(args: ModelConfig, tokenizer: PreTrainedTokenizerBase | None) -> dict[str, list[int]] | None:
    if tokenizer is None or not isinstance(args, AssemblyConfig) or not args.mm_use_im_start_end:
        return None
    return {"embed_tokens": tokenizer.convert_tokens_to_ids(list(prompts.FRAME))}


def language_model_targets(names: Sequence[str] = LANGUAGE_MODEL_LINEARS) -> str:
    """A regular expression that matches these linears inside the language model and nowhere else."""
    return rf".*\blanguage_model\..*\.({'|'.join(names)})"


def vision_targets() -> str:
    """A regular expression that matches the linears of the vision tower's layers."""
    return rf".*\b{VISION_TOWER}\..*\.({'|'.join(VISION_LINEARS)})"


def check_adapter_targets(model: nn.Module, peft_config: PeftConfig | None) -> None:
    """Raise `ConfigError` if an adapter landed on the vision tower without being asked for by name."""
    asked = str(getattr(peft_config, "target_modules", "")) if peft_config is not None else ""
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer) and VISION_TOWER in name and VISION_TOWER not in asked:
            raise ConfigError(
                f"an adapter landed on the vision tower ({name}); anchor target_modules to the language model, "
                f"for example {language_model_targets()!r}"
            )


def trained_by_part(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Part of the model -> (trained parameters, all parameters); quantised and sharded parameters count in full."""
    trained: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        if "original_module" in name:  # PEFT keeps the untrained projector beside the trained copy
            continue
        part = next((part for part in PARTS if part in name), "other")
        count = getattr(parameter, "ds_numel", parameter.numel())  # DeepSpeed ZeRO-3 leaves an empty local tensor
        total[part] += count
        trained[part] += count if parameter.requires_grad else 0
    return {part: (trained[part], total[part]) for part in (*PARTS, "other") if total[part]}


def trained_parameters_line(model: nn.Module) -> str:
    """One line for the log: how many parameters are trained, and where they are."""
    parts = trained_by_part(model)
    trained = sum(count for count, _ in parts.values())
    total = sum(count for _, count in parts.values())
    listed = ", ".join(f"{part} {count:,} of {size:,}" for part, (count, size) in parts.items())
    return f"trains {trained:,} of {total:,} parameters ({trained / total:.2%}): {listed}"


def keep_trained_weights_in_float32(model: nn.Module) -> None:
    """Cast 16-bit trained parameters up: at a learning rate of 2e-5 a bf16 projector would round its updates away."""
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.float16, torch.bfloat16):
            parameter.data = parameter.data.float()


def check_dora_rows(model: nn.Module) -> None:
    """Raise `ConfigError` for a base weight with an all-zero row: DoRA divides by its norm and would give NaN."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer) and any(module.use_dora.values()):
            weight = module.get_base_layer().weight
            if weight.dim() == 2 and weight.is_floating_point() and not weight.norm(dim=1).all():
                raise ConfigError(
                    f"{name} has a weight row of zeros, which DoRA cannot scale; use LoRA (--use_dora False)"
                )
