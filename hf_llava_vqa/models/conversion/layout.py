"""How LLaVA's own code lays out a model, and how transformers does: configurations and names of tensors, both ways."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText, LlavaConfig, LlavaProcessor, PreTrainedConfig

from hf_llava_vqa import prompts
from hf_llava_vqa.errors import ModelError, one_line
from hf_llava_vqa.models.projectors import PROJECTORS

CONFIG_FILE = "config.json"
LANGUAGE_MODELS = {"llava": "llama", "llava_llama": "llama", "llava_mistral": "mistral"}
PROJECTOR_TYPES = {"mlp2x_gelu": "mlp", "linear": "linear", "cluster": "prototype"}
IMAGE_ASPECTS = {"pad": "pad", "square": "crop"}
VOCABULARY = ("model.language_model.embed_tokens.weight", "lm_head.weight")
PROJECTOR = "model.multi_modal_projector."
TOWER = "model.vision_tower."
ORIGINAL_TOWER = "model.vision_tower.vision_tower.vision_model."
_BUFFERS = ("rotary_emb.inv_freq", "embeddings.position_ids")  # computed, and saved by old versions of transformers
# What the originals' code has no setting for: it computes as our configurations do by default.
_FIXED = (
    *("vision_feature_layer", "vision_feature_select_strategy", "projector_hidden_act", "multimodal_projector_bias"),
    *("num_prototypes", "prototype_iterations"),
)
# What transformers writes for a stock LLaVA, in any version -> the names of its modules.
_SAVED_NAMES = (
    (r"^language_model\.model\.", "model.language_model."),
    (r"^language_model\.lm_head\.", "lm_head."),
    (r"^(vision_tower|multi_modal_projector)\.", r"model.\1."),
    (r"^model\.vision_tower\.vision_model\.", TOWER),
)


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object; raises `ModelError` for anything else."""
    try:
        return dict(json.loads(file.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{file} cannot be read as a configuration: {one_line(error)}") from error


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object, for reading."""
    file.write_text(json.dumps(content, indent=2) + "\n")


def original_settings(config: Mapping[str, Any], file: Path) -> tuple[str, str]:
    """Our names of the projector and of how pictures are made square, which an original configuration says in its own.

    Raises:
        ModelError: one that we have not, or other features of the tower than we read.
    """
    kind, aspect = config.get("mm_projector_type", "linear"), config.get("image_aspect_ratio") or "square"
    if kind not in PROJECTOR_TYPES:
        raise ModelError(f"{file}: no projector {kind!r} here; there are {', '.join(PROJECTOR_TYPES)}")
    if aspect not in IMAGE_ASPECTS:
        raise ModelError(
            f"{file}: image_aspect_ratio {aspect!r} is not LLaVA-1.5's; there are {', '.join(IMAGE_ASPECTS)}"
        )
    layer, feature = config.get("mm_vision_select_layer", -2), config.get("mm_vision_select_feature", "patch")
    if (layer, feature) != (-2, "patch"):
        raise ModelError(f"{file}: features {feature!r} of layer {layer} are read; here it is 'patch' of -2")
    return PROJECTOR_TYPES[kind], IMAGE_ASPECTS[aspect]


def text_config(config: Mapping[str, Any], file: Path) -> PreTrainedConfig:
    """The language model's part of an original configuration."""
    kind = LANGUAGE_MODELS.get(config.get("model_type", ""))
    if kind is None:
        raise ModelError(
            f"{file}: model_type {config.get('model_type')!r} is not among {', '.join(LANGUAGE_MODELS)}, which can be "
            "converted"
        )
    known = CONFIG_MAPPING[kind]().to_dict().keys() - {"architectures", "dtype", "model_type"}
    names = known | {"rope_theta", "rope_scaling"}
    return CONFIG_MAPPING[kind](
        **{name: value for name, value in config.items() if name in names and value is not None}
    )


def original_config(config: LlavaConfig, processor: LlavaProcessor, source: Path, vision_tower: str) -> dict[str, Any]:
    """The configuration that LLaVA's own code reads; raises `ModelError` for parts that it has not."""
    text = config.text_config.to_dict()
    kinds = {kind: name for name, kind in LANGUAGE_MODELS.items()}  # the last: what today's code writes
    projectors = {ours: theirs for theirs, ours in PROJECTOR_TYPES.items()}
    kind = projector_kind(config)
    if text["model_type"] not in kinds or kind not in projectors:
        raise ModelError(
            f"{source}: LLaVA's own code has no {text['model_type']!r} language model with a projector {kind!r}; "
            f"it has {', '.join(kinds)} with {', '.join(projectors)}"
        )
    default = type(config)()
    for name in _FIXED:
        value, theirs = getattr(config, name, None), getattr(default, name, None)
        if value != theirs:
            raise ModelError(f"{source}: {name} is {value!r}; LLaVA's own code computes with {theirs!r} only")
    rope = text.pop("rope_parameters")
    theta = rope.pop("rope_theta")
    scaling = {"type": rope.pop("rope_type")} | rope
    kept = {name: value for name, value in text.items() if value is not None and name not in ("_name_or_path", "dtype")}
    return kept | {
        "architectures": ["LlavaMistralForCausalLM" if text["model_type"] == "mistral" else "LlavaLlamaForCausalLM"],
        "model_type": kinds[text["model_type"]],
        "vocab_size": config.image_token_id,
        "pad_token_id": processor.tokenizer.unk_token_id,
        "rope_theta": theta,
        "rope_scaling": None if scaling["type"] == "default" else scaling,
        "torch_dtype": str(config.dtype or torch.float16).removeprefix("torch."),
        "image_aspect_ratio": "pad" if getattr(processor.image_processor, "do_pad", False) else "square",
        "mm_hidden_size": config.vision_config.hidden_size,
        "mm_projector_type": projectors[kind],
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": prompts.FRAME[0] in processor.tokenizer.get_vocab(),
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": config.vision_feature_layer,
        "mm_vision_tower": vision_tower,
        "use_mm_proj": True,
    }


def check_last_token(config: LlavaConfig, processor: LlavaProcessor, source: Path) -> None:
    """Raise `ModelError` unless `<image>` and `<pad>` come last: the original layout has neither, and ends before."""
    image, pad = config.image_token_id, processor.tokenizer.pad_token
    behind = sorted(token for token, index in processor.tokenizer.get_vocab().items() if index > image and token != pad)
    if behind:
        raise ModelError(
            f"{source}: the tokens {', '.join(behind)} come behind {prompts.IMAGE_TOKEN}, where the original layout "
            "has none; only models without them can be converted back"
        )


def projector_kind(config: LlavaConfig) -> str:
    """The name of a LLaVA's projector."""
    return next(name for name, kind in PROJECTORS.items() if type(config) is kind)


def our_name(name: str) -> str | None:
    """Where a tensor of the original layout belongs in ours, None for a buffer; the projector keeps its layers."""
    if name.endswith(_BUFFERS):
        return None
    for old, new in ((ORIGINAL_TOWER, TOWER), ("model.mm_projector.", PROJECTOR), ("model.", "model.language_model.")):
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def original_name(name: str) -> str:
    """The inverse of `our_name`."""
    for new, old in ((TOWER, ORIGINAL_TOWER), (PROJECTOR, "model.mm_projector."), ("model.language_model.", "model.")):
        if name.startswith(new):
            return old + name.removeprefix(new)
    return name


def module_name(name: str) -> str:
    """The name in the model of a tensor that transformers saved."""
    for pattern, new in _SAVED_NAMES:
        name = re.sub(pattern, new, name)
    return name


def model_shapes(config: LlavaConfig) -> dict[str, torch.Size]:
    """The shapes of the parameters of a LLaVA, by name; makes none of them."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    return {name: value.shape for name, value in model.state_dict().items()}


def check_fit(source: Path, found: Mapping[str, torch.Size], expected: Mapping[str, torch.Size]) -> None:
    """Raise `ModelError` unless both have the same tensors in the same shapes: half a match would answer like a whole.

    The original layout in transformers' class, for example, loads with a report and random weights.
    """
    for problem, names in (
        ("lacks", sorted(expected.keys() - found.keys())),
        ("has what the model has no place for:", sorted(found.keys() - expected.keys())),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ModelError(
                f"{source} {problem} {', '.join(names[:3])}{more}; give all files of the checkpoint, and the language "
                "model and vision tower it was made with"
            )
    for name, shape in found.items():
        if shape != expected[name]:
            raise ModelError(
                f"{source}: {name} is {list(shape)}, the model's is {list(expected[name])}; use the language model and "
                "the vision tower it was made with"
            )
