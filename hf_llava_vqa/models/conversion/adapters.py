"""Adapters and projectors: LoRA, DoRA and SQ-LLaVA folders, and a lone `mm_projector.bin`, into ours and back."""

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, get_peft_model, get_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForImageTextToText, LlavaConfig, LlavaProcessor

from hf_llava_vqa.errors import ModelError
from hf_llava_vqa.models.adapters import (
    IN_VISION_TOWER,
    LANGUAGE_MODEL_LINEARS,
    VISION_LINEARS,
    lora_config,
    projector_adapter,
)
from hf_llava_vqa.models.adapters import PROJECTOR as PROJECTOR_NAME
from hf_llava_vqa.models.assembling import Assembly, write_assembly
from hf_llava_vqa.models.conversion import layout
from hf_llava_vqa.models.conversion.layout import CONFIG_FILE, PROJECTOR, TOWER
from hf_llava_vqa.models.loading import ADAPTER_FILE, describe
from hf_llava_vqa.models.processors import prepare_processor
from hf_llava_vqa.models.projectors.files import fitted_projector, name_in_projector, original_projector
from hf_llava_vqa.models.tensor_files import TensorFiles
from hf_llava_vqa.models.trainable import DORA, LORA, LORA_AND_VISION, VqaModelConfig
from hf_llava_vqa.prompts import FRAME

PROJECTOR_FILE, OTHERS_FILE, VISION_FOLDER = "mm_projector.bin", "non_lora_trainables.bin", "Vit-lora"
_PEFT = "base_model.model."
_LANGUAGE, _OUR_PROJECTOR, _OUR_TOWER = f"{_PEFT}model.language_model.", _PEFT + PROJECTOR, _PEFT + TOWER
_ORIGINAL_TOWER = f"{_PEFT}vision_tower.vision_model."
_OUR_TOKENS = f"{_LANGUAGE}embed_tokens.token_adapter.trainable_tokens_delta"
TOKENS = "model.embed_tokens.weight"
"""Stands beside a projector that was trained with the tokens around pictures, whose rows are the last two."""
_MAGNITUDE, _ORIGINAL_MAGNITUDE = "lora_magnitude_vector.weight", "weight_m_wdecomp.weight"
# What PEFT can and the originals do not, or theirs and PEFT cannot.
_FOREIGN = (
    *("fan_in_fan_out", "layers_to_transform", "layers_pattern", "modules_to_save", "use_rslora"),
    *("rank_pattern", "alpha_pattern", "trainable_token_indices", "wdecompose_target_modules"),
)


def adapter_to_ours(source: Path, out: Path, base: str | Assembly) -> None:
    """Write an adapter's folder, which `load_model` opens together with its base.

    Args:
        source: the folder of an adapter, or a projector by itself: its file, or the folder with it.
        base: a LLaVA of ours, or the language model and the tower that one is made of.
    """
    file = source / CONFIG_FILE
    _, aspect = layout.original_settings(layout.read_json(file), file) if file.is_file() else ("", "pad")
    config, processor = describe(base)
    files = TensorFiles(_original_files(source), _our_name)
    given = {name.removeprefix(_OUR_PROJECTOR): value for name, value in files.read(_OUR_PROJECTOR)}
    projector = fitted_projector(given, config, source)
    tensors = {name: value.contiguous() for name, value in files.read(but=_OUR_PROJECTOR)}
    tensors |= {name: value.flatten() for name, value in tensors.items() if name.endswith(_MAGNITUDE)}
    tensors |= {name: value[-len(FRAME) :].clone() for name, value in tensors.items() if name == _OUR_TOKENS}
    tensors |= {_OUR_PROJECTOR + name: value.contiguous() for name, value in projector.items()}
    peft_config = _peft_config(source) or projector_adapter(_frame(processor) if _OUR_TOKENS in tensors else None)
    _check(source, tensors, config, peft_config)
    peft_config.base_model_name_or_path = base if isinstance(base, str) else None
    peft_config.save_pretrained(out)
    save_file(tensors, out / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
    if isinstance(base, Assembly):
        write_assembly(base, out)
    prepare_processor(processor, config, image_aspect=aspect).save_pretrained(out)


def adapter_to_original(source: Path, out: Path, base: str | Assembly, *, vision_tower: str) -> None:
    """Write a LoRA or DoRA folder, the tower's LoRA in one below; or an `mm_projector.bin`, if nothing is adapted.

    LLaVA's code opens these with the language model as `--model-base`. They are pickles of tensors, all that it reads.
    """
    config, processor = describe(base, str(source))
    peft_config = PeftConfig.from_pretrained(source)
    peft_config.base_model_name_or_path = base if isinstance(base, str) else base.language_model
    _refuse_foreign(_without_our_own(peft_config, processor), source)
    tensors = dict(TensorFiles([source / SAFETENSORS_WEIGHTS_NAME], _module_name).read())
    _check(source, tensors, config, peft_config)
    content = layout.original_config(config, processor, source, vision_tower)
    projector = original_projector(_within(tensors, _OUR_PROJECTOR), layout.projector_kind(config))
    language, tower = _within(tensors, _LANGUAGE), _within(tensors, _OUR_TOWER)
    tokens = language.pop(_OUR_TOKENS.removeprefix(_LANGUAGE), None)
    if language and tokens is not None:
        _refuse_foreign({"trainable_token_indices": True}, source)
    out.mkdir(parents=True, exist_ok=True)
    layout.write_json(out / CONFIG_FILE, content)
    if language:
        _write_lora(out, peft_config, language, tower, projector)
        return
    projector = {f"model.mm_projector.{name}": value for name, value in projector.items()}
    torch.save(projector | ({} if tokens is None else {TOKENS: tokens}), out / PROJECTOR_FILE)


def main_file(source: Path) -> Path:
    """The file by which an adapter or a projector is known; raises `ModelError` if it is not there."""
    if source.is_file():
        return source
    if not (source / ADAPTER_FILE).is_file():
        return _present(source / PROJECTOR_FILE, "give the file of a projector, or the folder of an adapter or a model")
    safe = source / SAFETENSORS_WEIGHTS_NAME
    return safe if safe.is_file() else _present(source / WEIGHTS_NAME, "copy the adapter again, with all its files")


def _original_files(source: Path) -> list[Path]:
    files = [main_file(source)]
    if source.is_dir() and (source / ADAPTER_FILE).is_file():
        files.append(_present(source / OTHERS_FILE, "LLaVA's code writes it, with the projector, when training ends"))
        files += [main_file(source / VISION_FOLDER)] if (source / VISION_FOLDER).is_dir() else []
    return files


def _present(file: Path, remedy: str) -> Path:
    if not file.is_file():
        raise ModelError(f"no {file.name} in {file.parent}; {remedy}")
    return file


def _our_name(name: str) -> str | None:
    """Where a tensor of any of the originals' files belongs in an adapter of ours."""
    if name == TOKENS:
        return _OUR_TOKENS
    if rest := name_in_projector(name):
        return _OUR_PROJECTOR + rest
    name = re.sub(
        r"\.(weight_m_wdecomp|lora_magnitude_vector)(\.weight)?$", f".{_MAGNITUDE}", name.replace(".default.", ".")
    )
    inner = name.removeprefix(_PEFT)
    if inner == name:
        return name
    inner, of_tower = re.subn(r"^(vision_tower\.)?(vision_model\.)?encoder\.", f"{TOWER}encoder.", inner)
    return f"{_PEFT}{inner if of_tower else layout.our_name(inner)}"


def _module_name(name: str) -> str:
    """The name of a tensor of an adapter of ours, whichever version of PEFT and transformers wrote it."""
    name = f"{_PEFT}{layout.module_name(name.removeprefix(_PEFT))}"
    return f"{name}.weight" if name.endswith(_MAGNITUDE.removesuffix(".weight")) else name


def _frame(processor: LlavaProcessor) -> dict[str, list[int]]:
    """The tokens around pictures as PEFT's `trainable_token_indices`."""
    return {"embed_tokens": processor.tokenizer.convert_tokens_to_ids(list(FRAME))}


def _peft_config(source: Path) -> LoraConfig | None:
    """The configuration that a training of ours would have given to an adapter; None for a projector by itself."""
    if source.is_file() or not (source / ADAPTER_FILE).is_file():
        return None
    adapter = layout.read_json(source / ADAPTER_FILE)
    _refuse_foreign(adapter, source)
    targets, kind = adapter.get("target_modules") or [], adapter.get("peft_type")
    if kind not in ("LORA", "DORA") or adapter.get("bias", "none") != "none":
        raise ModelError(f"{source / ADAPTER_FILE}: a {kind} with bias {adapter.get('bias')!r}; LORA and DORA without")
    if isinstance(targets, str) or set(targets) - set(LANGUAGE_MODEL_LINEARS):
        raise ModelError(
            f"{source / ADAPTER_FILE}: target_modules {targets} are not among {', '.join(LANGUAGE_MODEL_LINEARS)}"
        )
    vision = source / VISION_FOLDER / ADAPTER_FILE
    dora = kind == "DORA" or adapter.get("use_dora", False)
    if dora and vision.is_file():
        raise ModelError(f"{source} is DoRA and has a {VISION_FOLDER}; an adapter here is one or the other")
    tower = layout.read_json(vision) if vision.is_file() else {}
    flags = VqaModelConfig(
        trainable=DORA if dora else LORA_AND_VISION if tower else LORA,
        lora_r=adapter.get("r", 8),
        lora_alpha=adapter.get("lora_alpha", 8),
        lora_dropout=adapter.get("lora_dropout", 0.0),
        lora_target_modules=sorted(targets, key=LANGUAGE_MODEL_LINEARS.index),
        vision_lora_r=tower.get("r", 0),
        vision_lora_alpha=tower.get("lora_alpha", 0),
    )
    return lora_config(flags)


def _without_our_own(peft_config: LoraConfig, processor: LlavaProcessor) -> dict[str, Any]:
    """The settings of an adapter of ours, but for those that the originals spell otherwise."""
    settings = {name: value for name, value in vars(peft_config).items() if name in _FOREIGN}
    for name in ("rank_pattern", "alpha_pattern"):
        settings[name] = settings[name].keys() - {IN_VISION_TOWER}
    if settings["trainable_token_indices"] == _frame(processor):
        settings["trainable_token_indices"] = None
    return settings | {"modules_to_save": set(peft_config.modules_to_save or ()) ^ {PROJECTOR_NAME}}


def _refuse_foreign(settings: Mapping[str, Any], source: Path) -> None:
    if foreign := [name for name in _FOREIGN if settings.get(name)]:
        raise ModelError(f"{source / ADAPTER_FILE}: {foreign[0]} as set there has no counterpart in the other layout")


def _check(source: Path, tensors: Mapping[str, Tensor], config: LlavaConfig, peft_config: LoraConfig) -> None:
    """`check_fit` against what PEFT would save of such an adapter on such a model."""
    unnamed = copy.deepcopy(peft_config)
    unnamed.base_model_name_or_path = None  # PEFT would warn that the model here has another name
    with torch.device("meta"):
        model = get_peft_model(AutoModelForImageTextToText.from_config(config), unnamed)
    expected = get_peft_model_state_dict(model, save_embedding_layers=False)
    shapes = {_module_name(name): value.shape for name, value in expected.items()}
    layout.check_fit(source, {name: value.shape for name, value in tensors.items()}, shapes)


def _within(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _write_lora(
    out: Path,
    config: LoraConfig,
    language: dict[str, Tensor],
    tower: Mapping[str, Tensor],
    projector: Mapping[str, Tensor],
) -> None:
    """The folder that LLaVA's code writes at the end of training, or SQ-LLaVA's, or DoRA's."""
    torch.save({f"{_PEFT}model.mm_projector.{name}": value for name, value in projector.items()}, out / OTHERS_FILE)
    magnitudes = {name: language.pop(name)[:, None] for name in list(language) if name.endswith(_MAGNITUDE)}
    language |= {name.replace(_MAGNITUDE, _ORIGINAL_MAGNITUDE): value for name, value in magnitudes.items()}
    language = {f"{_PEFT}model.{name}": value for name, value in language.items()}
    _write_peft(out, language, config, config.r, config.lora_alpha)
    if tower:
        rank = config.rank_pattern.get(IN_VISION_TOWER, config.r)
        alpha = config.alpha_pattern.get(IN_VISION_TOWER, config.lora_alpha)
        named = {_ORIGINAL_TOWER + name: value for name, value in tower.items()}
        _write_peft(out / VISION_FOLDER, named, config, rank, alpha)


def _write_peft(folder: Path, tensors: Mapping[str, Tensor], config: LoraConfig, rank: int, alpha: float) -> None:
    """An adapter's folder as PEFT 0.4, or the DoRA that was made from it, wrote them."""
    folder.mkdir(exist_ok=True)
    linears = {name.split(".lora_A.")[0].rpartition(".")[2] for name in tensors if ".lora_A." in name}
    content = {
        "base_model_name_or_path": config.base_model_name_or_path,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": alpha,
        "lora_dropout": config.lora_dropout,
        "modules_to_save": None,
        "peft_type": "DORA" if config.use_dora else "LORA",
        "r": rank,
        "target_modules": [name for name in dict.fromkeys(LANGUAGE_MODEL_LINEARS + VISION_LINEARS) if name in linears],
        "task_type": "CAUSAL_LM",
    }
    layout.write_json(folder / ADAPTER_FILE, content)
    torch.save(dict(tensors), folder / WEIGHTS_NAME)
