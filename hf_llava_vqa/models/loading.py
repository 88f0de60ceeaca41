"""Loading a LLaVA and its processor: a base, one of our adapters, a merged model or an assembly, here or on the Hub."""

from pathlib import Path
from typing import Any

from huggingface_hub.errors import HfHubHTTPError
from peft import PeftConfig, PeftModel
from peft.utils import SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedConfig,
)
from transformers.utils import cached_file
from trl import ModelConfig, get_quantization_config

from hf_llava_vqa.errors import ModelError
from hf_llava_vqa.models.assembling import (
    ASSEMBLY_FILE,
    Assembly,
    AssemblyConfig,
    add_frame,
    assemble,
    assembled_config,
    assembled_processor,
    read_assembly,
)
from hf_llava_vqa.models.processors import prepare_processor
from hf_llava_vqa.models.projectors.files import read_projector

ADAPTER_FILE = "adapter_config.json"
ORIGINAL_KEY = "mm_vision_tower"  # LLaVA's own code names a tower where transformers has its configuration
_CONVERT = "scripts/convert_checkpoint.py converts what LLaVA's and DoRA's own code saved"
# As LLaVA does: the projector stays in 16 bits, and so does the small tower. Names count from the model's beginning.
NOT_QUANTISED = ("model.multi_modal_projector", "model.vision_tower", "lm_head")
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
        **kwargs: for the model's `from_pretrained` (`dtype`, `device_map`, `attn_implementation`,
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
    config, processor = describe(base or path, path)
    processor = prepare_processor(processor, config, image_aspect=image_aspect, template=template)
    model = _model(base or path, processor, **kwargs)
    if base is not None:
        model = PeftModel.from_pretrained(model, path)
        model = model.merge_and_unload() if merge else model
    return model.eval(), processor


def training_processor(args: ModelConfig, *, image_aspect: str = "pad", template: str = "v1") -> LlavaProcessor:
    """The processor of the base that the model flags name or assemble; reads no model, so mistakes show early.

    Raises:
        ModelError: not a LLaVA, or an adapter (merge it first, or resume from its checkpoint).
    """
    base = _base(args)
    if isinstance(base, str) and adapter_base(base) is not None:
        raise ModelError(f"{base!r} is an adapter; train from its base, or merge it first")
    config, processor = describe(base)
    if isinstance(args, AssemblyConfig) and args.mm_use_im_start_end:
        add_frame(processor.tokenizer)
        if len(processor.tokenizer) > config.text_config.vocab_size:
            raise ModelError(
                f"--mm_use_im_start_end: the vocabulary of {base!r} has no two rows to spare; leave it out"
            )
    if isinstance(args, AssemblyConfig) and args.pretrained_projector is not None:
        read_projector(args.pretrained_projector, config)
    return prepare_processor(processor, config, image_aspect=image_aspect, template=template)


def training_model(args: ModelConfig) -> LlavaForConditionalGeneration:
    """The base that the model flags name or assemble, quantised if they say so, with its vision tower frozen.

    Raises:
        ModelError: a flag that needs a package which is not installed (flash-attn, bitsandbytes), or as `assemble`.
    """
    try:
        model = _trained_base(args)
    except ImportError as error:
        raise ModelError(f"{_first_line(error)}; install it, or leave out the flag that needs it") from error
    model.model.vision_tower.requires_grad_(False)
    return model


def _trained_base(args: ModelConfig) -> LlavaForConditionalGeneration:
    base = _base(args)
    options = {"dtype": args.dtype, "attn_implementation": args.attn_implementation}
    if isinstance(args, AssemblyConfig) and not isinstance(base, str):
        return assemble(base, assembled_processor(base), pretrained_projector=args.pretrained_projector, **options)
    quantization = get_quantization_config(args)
    if quantization is not None:
        quantization.llm_int8_skip_modules = list(NOT_QUANTISED)
    return AutoModelForImageTextToText.from_pretrained(
        base, revision=args.model_revision, quantization_config=quantization, **options
    )


def adapter_base(path: str) -> str | Assembly | None:
    """The base model an adapter folder or repository names, or what it is assembled from; None for no adapter."""
    if _find_file(path, ADAPTER_FILE) is None:
        return None
    assembly = _find_file(path, ASSEMBLY_FILE)
    if assembly is not None:
        return read_assembly(assembly)
    try:
        base = PeftConfig.from_pretrained(path).base_model_name_or_path
    except KeyError as error:  # DoRA's own code calls its adapters DORA
        raise ModelError(f"{path}: PEFT has no adapters of type {error}; {_CONVERT}") from error
    if not base:
        raise ModelError(f"{path}/{ADAPTER_FILE} names no base model; set its base_model_name_or_path")
    return base


def check_adapter_weights(path: str) -> None:
    """Raise `ModelError` unless an adapter holds every part that was trained in full beside it.

    PEFT would put the base's in their place, with no more than a warning.
    """
    file = cached_file(path, SAFETENSORS_WEIGHTS_NAME, _raise_exceptions_for_missing_entries=False)
    if file is None and _find_file(path, WEIGHTS_NAME) is not None:
        raise ModelError(f"{path}: a pickled adapter is not loaded; {_CONVERT}")
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
    """The configuration at `path`; raises `ModelError` unless it is a LLaVA's, with whichever projector."""
    try:
        if ORIGINAL_KEY in PreTrainedConfig.get_config_dict(path)[0]:
            raise ModelError(f"{path!r} has the layout of LLaVA's own code; {_CONVERT}")
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


def describe(base: str | Assembly, saved: str | None = None) -> tuple[LlavaConfig, LlavaProcessor]:
    """A base's configuration, and the processor that was saved at a path or, without one, comes with the base."""
    if isinstance(base, str):
        return llava_config(base), load_processor(saved or base)
    processor = assembled_processor(base) if saved is None else load_processor(saved)
    return assembled_config(base, processor.tokenizer), processor


def _base(args: ModelConfig) -> str | Assembly:
    assembly = args.assembly if isinstance(args, AssemblyConfig) else None
    return args.model_name_or_path if assembly is None else assembly


def _model(base: str | Assembly, processor: LlavaProcessor, **kwargs: Any) -> LlavaForConditionalGeneration:
    if isinstance(base, str):
        return AutoModelForImageTextToText.from_pretrained(base, **kwargs)
    return assemble(base, processor, **kwargs)


def _find_file(path: str, name: str) -> str | None:
    """Where a file of a folder or repository lies here; None if there is no such file."""
    if Path(path).is_dir():
        file = Path(path, name)
        return str(file) if file.is_file() else None
    try:
        return cached_file(path, name, _raise_exceptions_for_missing_entries=False)
    except (OSError, HfHubHTTPError) as error:
        raise ModelError(f"cannot load a model from {path!r}: {_first_line(error)}; {_remedy(path)}") from error


def _remedy(path: str) -> str:
    if Path(path).exists():
        return "point to a folder written by save_pretrained or by a recipe"
    return "check the spelling of the folder, or that the Hub repository exists and can be reached"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")
