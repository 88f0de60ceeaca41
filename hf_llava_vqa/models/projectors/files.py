"""A projector by itself: read from what we or LLaVA's own code saved, refused unless it fits the model exactly."""

import pickle
from pathlib import Path

import torch
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoModelForImageTextToText, LlavaConfig
from transformers.utils import SAFE_WEIGHTS_NAME

from hf_llava_vqa.errors import ModelError

# LLaVA's own names of parameters -> transformers' and ours. A linear projector has none but `weight` and `bias`.
NAMES = {
    "0": "linear_1",
    "2": "linear_2",
    "mlp.0": "linear_1",
    "mlp.2": "linear_2",
    "c": "prototype",
    "v": "key",
    "f": "value",
    "sim_alpha": "similarity_scale",
    "sim_beta": "similarity_shift",
}
UNUSED = "ln_1."
"""SQ-LLaVA's code makes this layer and never calls it."""

_OURS, _ORIGINAL = "multi_modal_projector.", "mm_projector."


def read_projector(path: str | Path, config: LlavaConfig) -> dict[str, Tensor]:
    """Read the weights of the `multi_modal_projector` of a LLaVA of this configuration.

    Args:
        path: a folder or a file: an adapter, a model's `model.safetensors`, or an original `mm_projector.bin`, whose
            pickle may hold nothing but tensors.
        config: says which projector, and its shapes.

    Returns:
        Parameter name within the projector -> tensor, complete.

    Raises:
        ModelError: no such file, one without a projector, or one of another kind or other shapes, with both.
    """
    file = _weights_file(Path(path))
    weights = {_new_name(name): value for name, value in _projector_tensors(file).items() if UNUSED not in name}
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
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as content:
                names = [name for name in content.keys() if _OURS in name or _ORIGINAL in name]  # noqa: SIM118
                tensors = {name: content.get_tensor(name) for name in names}
        else:
            tensors = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, pickle.UnpicklingError) as error:
        raise ModelError(f"{file} cannot be read as tensors: {str(error).splitlines()[0]}") from error
    return {
        name.partition(prefix)[2]: value
        for name, value in tensors.items()
        for prefix in (_OURS, _ORIGINAL)
        if prefix in name
    }


def _new_name(name: str) -> str:
    layer, dot, kind = name.rpartition(".")
    return f"{NAMES.get(layer, layer)}{dot}{kind}" if dot else NAMES.get(name, name)
