"""Loading a LLaVA and its processor: a base, one of our adapters, or a merged model, from a folder or the Hub."""

from pathlib import Path
from typing import Any

from huggingface_hub.errors import HfHubHTTPError
from peft import PeftConfig, PeftModel
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoProcessor, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
from transformers.utils import cached_file
from trl import ModelConfig, get_quantization_config

from hf_llava_vqa.errors import ModelError
from hf_llava_vqa.models.processors import prepare_processor

ADAPTER_FILE = "adapter_config.json"
_COPY_AGAIN = "copy the adapter again, with all its files"


def load_model(
    path: str, *, image_aspect: str | None = None, template: str = "v1", merge: bool = False, **kwargs: Any
) -> tuple[LlavaForConditionalGeneration | PeftModel, LlavaProcessor]:
    """Load anything of ours for answering: a base, an adapter with its base, or a merged model.

    Args:
        path: a folder or a Hub repository.
        image_aspect: `pad`, `crop` or None for what the processor was saved with.
        template: prompt template.
        merge: fold an adapter into its base, so that answering costs no extra products.
        **kwargs: for `LlavaForConditionalGeneration.from_pretrained` (`dtype`, `device_map`, `attn_implementation`,
            `quantization_config`, ...).

    Returns:
        `(model, processor)`, the model in evaluation mode.

    Raises:
        ModelError: a path that does not exist, is not a LLaVA, or an adapter whose base or whose own weights, those of
            the projector among them, cannot be found.
    """
    base = adapter_base(path)
    if base is not None:
        check_adapter_weights(path)
    config = llava_config(base or path)
    processor = prepare_processor(load_processor(path), config, image_aspect=image_aspect, template=template)
    model = LlavaForConditionalGeneration.from_pretrained(base or path, **kwargs)
    if base is not None:
        model = PeftModel.from_pretrained(model, path)
        model = model.merge_and_unload() if merge else model
    return model.eval(), processor


def training_processor(args: ModelConfig, *, image_aspect: str = "pad", template: str = "v1") -> LlavaProcessor:
    """The processor of the base that TRL's model flags name; reads no weights, so mistakes show early.

    Raises:
        ModelError: not a LLaVA, or an adapter (merge it first, or resume from its checkpoint).
    """
    path = args.model_name_or_path
    if adapter_base(path) is not None:
        raise ModelError(f"{path!r} is an adapter; train from its base, or merge it first")
    config = llava_config(path)
    return prepare_processor(load_processor(path), config, image_aspect=image_aspect, template=template)


def training_model(args: ModelConfig) -> LlavaForConditionalGeneration:
    """The base that TRL's model flags name, quantised if they say so, with its vision tower frozen."""
    quantization = get_quantization_config(args)
    if quantization is not None:  # as LLaVA does: the projector stays in 16 bits, and so does the small tower
        quantization.llm_int8_skip_modules = ["multi_modal_projector", "vision_tower", "lm_head"]
    model = LlavaForConditionalGeneration.from_pretrained(
        args.model_name_or_path,
        revision=args.model_revision,
        dtype=args.dtype,
        attn_implementation=args.attn_implementation,
        quantization_config=quantization,
    )
    model.model.vision_tower.requires_grad_(False)
    return model


def adapter_base(path: str) -> str | None:
    """The base model an adapter folder or repository names; None if `path` is not an adapter."""
    if not _has_file(path, ADAPTER_FILE):
        return None
    base = PeftConfig.from_pretrained(path).base_model_name_or_path
    if not base:
        raise ModelError(f"{path}/{ADAPTER_FILE} names no base model; set its base_model_name_or_path")
    return base


def check_adapter_weights(path: str) -> None:
    """Raise `ModelError` unless an adapter holds every part that was trained in full beside it.

    PEFT would put the base's in their place, with no more than a warning.
    """
    file = cached_file(path, SAFETENSORS_WEIGHTS_NAME, _raise_exceptions_for_missing_entries=False)
    if file is None:
        raise ModelError(f"{path}: no {SAFETENSORS_WEIGHTS_NAME} beside {ADAPTER_FILE}; {_COPY_AGAIN}")
    try:
        with safe_open(file, framework="pt") as weights:
            names = list(weights.keys())
    except SafetensorError as error:
        raise ModelError(f"{file}: {_first_line(error)}; {_COPY_AGAIN}") from error
    for part in PeftConfig.from_pretrained(path).modules_to_save or ():
        if not any(f".{part}." in name for name in names):
            raise ModelError(f"{file}: no weights of {part}, which was trained in full; {_COPY_AGAIN}")


def llava_config(path: str) -> LlavaConfig:
    """The configuration at `path`; raises `ModelError` unless it is a stock LLaVA's."""
    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot load a model from {path!r}: {_first_line(error)}; {_remedy(path)}") from error
    if not isinstance(config, LlavaConfig):
        raise ModelError(
            f"{path!r} is a {config.model_type!r} model, not a LLaVA; use one such as llava-hf/llava-1.5-7b-hf"
        )
    return config


def load_processor(path: str) -> LlavaProcessor:
    """The processor saved at `path`, with the PIL image pipeline; raises `ModelError` if there is none."""
    try:
        processor = AutoProcessor.from_pretrained(path, backend="pil")
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot load a processor from {path!r}: {_first_line(error)}; {_remedy(path)}") from error
    if not isinstance(processor, LlavaProcessor):
        raise ModelError(
            f"{path!r} holds a {type(processor).__name__}, not a LlavaProcessor; use the one of its base model"
        )
    return processor


def _has_file(path: str, name: str) -> bool:
    if Path(path).is_dir():
        return (Path(path) / name).is_file()
    try:
        return cached_file(path, name, _raise_exceptions_for_missing_entries=False) is not None
    except (OSError, HfHubHTTPError) as error:
        raise ModelError(f"cannot load a model from {path!r}: {_first_line(error)}; {_remedy(path)}") from error


def _remedy(path: str) -> str:
    if Path(path).exists():
        return "point to a folder written by save_pretrained or by a recipe"
    return "check the spelling of the folder, or that the Hub repository exists and can be reached"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")
