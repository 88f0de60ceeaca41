"""Where adapters land, what is counted as trained, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import LlavaForConditionalGeneration
from trl import ModelConfig

from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.models.adapters import (
    LANGUAGE_MODEL_LINEARS,
    check_adapter_targets,
    check_dora_rows,
    keep_trained_weights_in_float32,
    lora_config,
    trained_by_part,
    trained_parameters_line,
)


def base(folder: Path, **options: Any) -> LlavaForConditionalGeneration:
    model = LlavaForConditionalGeneration.from_pretrained(folder, **options)
    model.model.vision_tower.requires_grad_(False)
    return model


def adapted(folder: Path, *, dtype: str = "float32", **flags: Any) -> PeftModel:
    return get_peft_model(base(folder, dtype=dtype), lora_config(ModelConfig(use_peft=True, **flags)))


def adapters(model: PeftModel) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, LoraLayer)]


@pytest.mark.parametrize("use_dora", [False, True])
def test_every_linear_of_the_language_model_and_nothing_else(tiny_llava: Path, use_dora: bool) -> None:
    model = adapted(tiny_llava, use_dora=use_dora)
    names = adapters(model)
    assert len(names) == 2 * len(LANGUAGE_MODEL_LINEARS)  # two layers
    assert all(".language_model.layers." in name for name in names)
    assert ("lora_magnitude_vector" in str([name for name, _ in model.named_parameters()])) == use_dora
    check_adapter_targets(model, model.peft_config["default"])


def test_named_targets_are_anchored_to_the_language_model(tiny_llava: Path) -> None:
    names = adapters(adapted(tiny_llava, lora_target_modules=["q_proj", "v_proj"]))
    assert {name.split("language_model.layers.")[1] for name in names} == {
        f"{layer}.self_attn.{linear}" for layer in (0, 1) for linear in ("q_proj", "v_proj")
    }


def test_peft_flags_reach_the_adapter(tiny_llava: Path) -> None:
    assert lora_config(ModelConfig(use_peft=False)) is None
    config = lora_config(ModelConfig(use_peft=True, lora_r=8, lora_alpha=32, lora_dropout=0.1, use_rslora=True))
    assert (config.r, config.lora_alpha, config.lora_dropout, config.use_rslora) == (8, 32, 0.1, True)
    assert config.modules_to_save == ["multi_modal_projector"]


def test_a_target_that_llama_has_not_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--lora_target_modules out_proj: use names among q_proj"):
        lora_config(ModelConfig(use_peft=True, lora_target_modules=["q_proj", "out_proj"]))


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj"], r".*self_attn\.k_proj"])
def test_an_adapter_on_the_tower_is_refused_unless_asked_for(tiny_llava: Path, targets: str | list[str]) -> None:
    config = LoraConfig(target_modules=targets)
    model = get_peft_model(base(tiny_llava), config)
    with pytest.raises(ConfigError, match=r"landed on the vision tower \(.*vision_tower.*\); anchor target_modules"):
        check_adapter_targets(model, config)
    asked_for = LoraConfig(target_modules=r".*vision_tower.*\.q_proj")
    check_adapter_targets(get_peft_model(base(tiny_llava), asked_for), asked_for)


def test_trained_parameters_are_counted_by_part(tiny_llava: Path) -> None:
    stock = base(tiny_llava)
    sizes = {
        "vision_tower": stock.model.vision_tower.num_parameters(),
        "multi_modal_projector": sum(p.numel() for p in stock.model.multi_modal_projector.parameters()),
        "language_model": stock.model.language_model.num_parameters(),
        "lm_head": stock.lm_head.weight.numel(),
    }
    assert trained_by_part(stock) == {part: (size * (part != "vision_tower"), size) for part, size in sizes.items()}
    model = adapted(tiny_llava, lora_r=2, lora_target_modules=["q_proj"])
    lora = 2 * 2 * (64 + 64)  # layers x rank x (in + out)
    counted = trained_by_part(model)
    assert counted == {
        "vision_tower": (0, sizes["vision_tower"]),
        "multi_modal_projector": (sizes["multi_modal_projector"],) * 2,
        "language_model": (lora, sizes["language_model"] + lora),
        "lm_head": (0, sizes["lm_head"]),
    }
    trained = lora + sizes["multi_modal_projector"]
    line = trained_parameters_line(model)
    assert line.startswith(f"trains {trained:,} of {sum(sizes.values()) + lora:,} parameters")
    assert f"language_model {lora:,} of" in line


def test_trained_weights_are_kept_in_float32(tiny_llava: Path) -> None:
    model = adapted(tiny_llava, dtype="bfloat16")
    keep_trained_weights_in_float32(model)
    dtypes = {flag: {p.dtype for p in model.parameters() if p.requires_grad == flag} for flag in (True, False)}
    assert dtypes == {True: {torch.float32}, False: {torch.bfloat16}}


def test_a_row_of_zeros_stops_dora_but_not_lora(tiny_llava: Path) -> None:
    for use_dora in (False, True):
        model = adapted(tiny_llava, use_dora=use_dora)
        check_dora_rows(model)
        model.get_base_model().model.language_model.layers[1].mlp.up_proj.get_base_layer().weight.data[3] = 0
        if use_dora:
            with pytest.raises(
                ConfigError, match=r"layers\.1\.mlp\.up_proj has a weight row of zeros.*--use_dora False"
            ):
                check_dora_rows(model)
        else:
            check_dora_rows(model)
