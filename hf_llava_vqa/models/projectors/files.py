"""A projector by itself: read from what we or LLaVA's own code saved, refused unless it fits the model exactly."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from torch import Tensor
from transformers import AutoModelForImageTextToText, LlavaConfig
from transformers.utils import SAFE_WEIGHTS_NAME

from hf_llava_vqa.errors import ModelError
from hf_llava_vqa.models.tensor_files import read_tensors, tensor_shapes

# Projector -> transformers' and our names of its layers -> LLaVA's and SQ-LLaVA's own. The paper's has no original.
ORIGINAL_NAMES: dict[str, dict[str, str]] = {
    "mlp": {"linear_1": "0", "linear_2": "2"},
    "linear": {},
    "prototype": {
        "linear_1": "mlp.0",
        "linear_2": "mlp.2",
        "prototype": "c",
        "key": "v",
        "value": "f",
        "similarity_scale": "sim_alpha",
        "similarity_shift": "sim_beta",
    },
}
_NAMES = {original: ours for names in ORIGINAL_NAMES.values() for ours, original in names.items()}
UNUSED = "ln_1."
"""SQ-LLaVA's code makes this layer and never calls it."""

_OURS, _ORIGINAL, _TRAINED_TOKENS = "multi_modal_projector.", "mm_projector.", "trainable_tokens_delta"


def read_projector(path: str | Path, config: LlavaConfig) -> dict[str, Tensor]:
    """Read the weights of the `multi_modal_projector` of a LLaVA of this configuration.

    Args:
        path: a folder or a file: an adapter, a model's `model.safetensors`, or an original `mm_projector.bin`, whose
            pickle may hold nothing but tensors.
        config: says which projector, and its shapes.

    Returns:
        Parameter name within the projector -> tensor, complete.

    Raises:
        ModelError: no such file, one without a projector, one of another kind or other shapes, with both, or one with
            trained tokens beside it.
    """
    file = _weights_file(Path(path))
    return fitted_projector(_projector_tensors(file), config, file)


def fitted_projector(tensors: Mapping[str, Tensor], config: LlavaConfig, file: Path) -> dict[str, Tensor]:
    """Bring a projector's tensors under our names; raises as `read_projector`, where `file` stands in the message."""
    weights = {_renamed(name, _NAMES): value for name, value in tensors.items() if UNUSED not in name}
    expected = projector_shapes(config)
    if not weights:
        raise ModelError(f"{file} holds no projector; give the folder of an adapter, or an mm_projector.bin")
    if weights.keys() != expected.keys():
        raise ModelError(
            f"{file} holds a projector of {', '.join(sorted(weights))}, the model's is one of "
            f"{', '.join(sorted(expected))}; choose the --projector it was made with"
        )
    for name, value in weights.items():
        if value.numel() == 1:  # [1, 1, 1] in SQ-LLaVA's code
            weights[name] = value.reshape(expected[name])
        elif value.shape != expected[name]:
            raise ModelError(
                f"{file}: {name} is {list(value.shape)}, the model's is {list(expected[name])}; use the language model "
                "and the vision tower it was made with"
            )
    return weights


def original_projector(weights: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """The inverse of `fitted_projector`, with SQ-LLaVA's unused layer as its code initialises it."""
    tensors = {_renamed(name, ORIGINAL_NAMES[kind]): value for name, value in weights.items()}
    if kind == "prototype":
        template = weights["value.bias"]
        scalars = {name: value.reshape(1, 1, 1) for name, value in tensors.items() if name.startswith("sim_")}
        unused = {"weight": torch.ones_like(template), "bias": torch.zeros_like(template)}
        tensors |= scalars | {f"{UNUSED}{name}": value for name, value in unused.items()}
    return tensors


def original_kind(names: Iterable[str]) -> str:
    """Which projector the originals give such names; `mlp` if none, which then does not fit."""
    layers = {name.rpartition(".")[0] or name for name in names if UNUSED not in name} - {"weight", "bias"}
    return next((kind for kind, known in ORIGINAL_NAMES.items() if set(known.values()) == layers), "mlp")


def projector_shapes(config: LlavaConfig) -> dict[str, torch.Size]:
    """The shapes of the projector's parameters, by name."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    return {name: value.shape for name, value in model.model.multi_modal_projector.state_dict().items()}


def _weights_file(path: Path) -> Path:
    names = (SAFETENSORS_WEIGHTS_NAME, SAFE_WEIGHTS_NAME, "mm_projector.bin")
    files = [path] if path.is_file() else [path / name for name in names if (path / name).is_file()]
    if not files:
        raise ModelError(f"no projector in {path}: neither a file, nor a folder with {', '.join(names)}")
    return files[0]


def _projector_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a file whose names lie in a projector, by the rest of their names."""
    shapes = tensor_shapes(file)
    if any(_TRAINED_TOKENS in name for name in shapes):
        raise ModelError(
            f"{file} holds trained tokens beside the projector, which would be lost: merge the adapter "
            "(scripts/merge_adapter.py) and give the merged model as --model_name_or_path"
        )
    names = {name: rest for name in shapes if (rest := name_in_projector(name))}
    return {names[name]: value for name, value in read_tensors(file, names)}


def name_in_projector(name: str) -> str:
    """What follows the projector's own name, in our layout and in the originals'; "" for a name of another part."""
    for prefix in (_OURS, _ORIGINAL):
        if prefix in name:
            return name.partition(prefix)[2]
    return ""


def _renamed(name: str, names: Mapping[str, str]) -> str:
    layer, dot, kind = name.rpartition(".")
    return f"{names.get(layer, layer)}{dot}{kind}" if dot else names.get(name, name)
