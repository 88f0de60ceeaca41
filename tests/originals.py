"""Tiny checkpoints as the code of LLaVA, DoRA and SQ-LLaVA leaves them: one that was run there, adapters invented."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hf_llava_vqa.models.adapters import LANGUAGE_MODEL_LINEARS, VISION_LINEARS

GOLDEN = Path(__file__).parent / "golden" / "parity"
TOWER = GOLDEN / "tiny_model" / "clip-tiny"
RANK, ALPHA, TOWER_RANK, TOWER_ALPHA = 4, 6, 2, 3
WIDTH, HIDDEN, KEYS, INNER, TOWER_INNER, LAYERS, TOWER_LAYERS = 32, 64, 32, 128, 64, 2, 3  # those of `parts`


def original_model(folder: Path, *, pickled: bool = False, tower: bool = True) -> Path:
    """The golden LLaVA in its own layout, with its tokenizer; in two pickled shards with old buffers if asked for."""
    shutil.copytree(GOLDEN / "tokenizer" / "fast_legacy_false", folder)
    shutil.copy(GOLDEN / "tiny_model" / "config.json", folder)
    tensors = original_tensors()
    if not tower:
        tensors = {name: value for name, value in tensors.items() if ".vision_tower." not in name}
    if not pickled:
        save_file(tensors, folder / "model.safetensors")
        return folder
    buffers = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(6)}
    names = [f"pytorch_model-0000{number}-of-00002.bin" for number in (1, 2)]
    shards = [dict(list(tensors.items())[:40]) | buffers, dict(list(tensors.items())[40:])]
    for name, shard in zip(names, shards, strict=True):
        torch.save(shard, folder / name)
    places = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


def original_tensors() -> dict[str, Tensor]:
    """The golden weights under LLaVA's own names."""
    return load_file(GOLDEN / "tiny_model" / "model.safetensors")


def original_adapter(folder: Path, kind: str, *, language_model: Path, vision_tower: Path) -> Path:
    """A `lora`, `dora` or `sq` folder (SQ-LLaVA's: LoRA of the tower too, cluster projector), all tensors drawn."""
    torch.manual_seed(0)
    folder.mkdir()
    projector_type = "cluster" if kind == "sq" else "mlp2x_gelu"
    config = {"model_type": "llava", "mm_vision_tower": str(vision_tower), "mm_projector_type": projector_type}
    (folder / "config.json").write_text(json.dumps(config | {"image_aspect_ratio": "pad"}))
    sizes = {"k_proj": (KEYS, HIDDEN), "v_proj": (KEYS, HIDDEN), "down_proj": (HIDDEN, INNER)}
    sizes |= {"gate_proj": (INNER, HIDDEN), "up_proj": (INNER, HIDDEN)}
    tensors: dict[str, Tensor] = {}
    for layer in range(LAYERS):
        for name in LANGUAGE_MODEL_LINEARS:
            outer, inner = sizes.get(name, (HIDDEN, HIDDEN))
            part = "self_attn" if name in ("q_proj", "k_proj", "v_proj", "o_proj") else "mlp"
            module = f"base_model.model.model.layers.{layer}.{part}.{name}"
            tensors |= _lora(module, outer, inner, RANK)
            if kind == "dora":
                tensors[f"{module}.weight_m_wdecomp.weight"] = torch.rand(outer, 1) + 0.5
    _save_peft(
        folder, tensors, LANGUAGE_MODEL_LINEARS, RANK, ALPHA, "DORA" if kind == "dora" else "LORA", language_model
    )
    projector = original_projector("cluster" if kind == "sq" else "mlp")
    torch.save(
        {f"base_model.model.model.mm_projector.{name}": value for name, value in projector.items()},
        folder / "non_lora_trainables.bin",
    )
    if kind == "sq":
        tower: dict[str, Tensor] = {}
        for layer in range(TOWER_LAYERS):
            for name in VISION_LINEARS:
                outer, inner = {"fc1": (TOWER_INNER, WIDTH), "fc2": (WIDTH, TOWER_INNER)}.get(name, (WIDTH, WIDTH))
                part = "mlp" if name.startswith("fc") else "self_attn"
                module = f"base_model.model.vision_tower.vision_model.encoder.layers.{layer}.{part}.{name}"
                tower |= _lora(module, outer, inner, TOWER_RANK)
        (folder / "Vit-lora").mkdir()
        _save_peft(folder / "Vit-lora", tower, VISION_LINEARS, TOWER_RANK, TOWER_ALPHA, "LORA", None)
    return folder


def original_projector(kind: str) -> dict[str, Tensor]:
    """A drawn projector under its own names; `ln_1` is as SQ-LLaVA's code initialises it, and never calls it."""
    torch.manual_seed(1)
    if kind == "linear":
        return {"weight": torch.randn(HIDDEN, WIDTH) * 0.2, "bias": torch.randn(HIDDEN) * 0.2}
    prefix = "mlp." if kind == "cluster" else ""
    layers = {f"{prefix}0": (HIDDEN, WIDTH), f"{prefix}2": (HIDDEN, HIDDEN)}
    others: dict[str, Tensor] = {}
    if kind == "cluster":
        layers |= dict.fromkeys("cvf", (WIDTH, WIDTH))
        others = {"sim_alpha": torch.full((1, 1, 1), 1.25), "sim_beta": torch.full((1, 1, 1), -0.5)}
        others |= {"ln_1.weight": torch.ones(WIDTH), "ln_1.bias": torch.zeros(WIDTH)}
    weights = {f"{name}.weight": torch.randn(shape) * 0.2 for name, shape in layers.items()}
    return others | weights | {f"{name}.bias": torch.randn(outer) * 0.2 for name, (outer, _) in layers.items()}


def read_bin(file: Path) -> dict[str, Tensor]:
    """The tensors of one of the originals' files."""
    return torch.load(file, weights_only=True)


def _lora(module: str, outer: int, inner: int, rank: int) -> dict[str, Tensor]:
    return {
        f"{module}.lora_A.weight": torch.randn(rank, inner) * 0.2,
        f"{module}.lora_B.weight": torch.randn(outer, rank) * 0.2,
    }


def _save_peft(
    folder: Path,
    tensors: dict[str, Tensor],
    targets: tuple[str, ...],
    rank: int,
    alpha: int,
    kind: str,
    base: Path | None,
) -> None:
    config = {"peft_type": kind, "task_type": "CAUSAL_LM", "bias": "none", "inference_mode": True, "lora_dropout": 0.05}
    config |= {"r": rank, "lora_alpha": alpha, "target_modules": list(targets)}
    config |= {"base_model_name_or_path": base and str(base), "fan_in_fan_out": False, "modules_to_save": None}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    torch.save(tensors, folder / "adapter_model.bin")
