"""A LLaVA made of a language model, a CLIP tower and a projector, where there is no checkpoint of all three yet."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from torch import Tensor
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    GenerationConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.integrations import is_deepspeed_zero3_enabled
from trl import ModelConfig

from hf_llava_vqa import prompts
from hf_llava_vqa.errors import ConfigError, ModelError, one_line
from hf_llava_vqa.models.projectors import PROJECTORS
from hf_llava_vqa.models.projectors.files import read_projector

ASSEMBLY_FILE = "assembly.json"
PAD = "<pad>"
ROWS = 64  # the vocabulary grows to a multiple of it, as in the llava-hf checkpoints


@dataclass
class AssemblyConfig(ModelConfig):
    """TRL's `ModelConfig`, with the parts of a LLaVA in place of a whole one.

    Raises:
        ConfigError: half of the parts, parts beside a whole, or a quantised assembly.
    """

    language_model: str | None = field(
        default=None,
        metadata={"help": "With --vision_tower instead of --model_name_or_path: lmsys/vicuna-7b-v1.5, ..."},
    )
    vision_tower: str | None = field(
        default=None, metadata={"help": "The CLIP of an assembled LLaVA: openai/clip-vit-large-patch14-336, ..."}
    )
    projector: str = field(
        default="mlp", metadata={"help": "The projector of an assembled LLaVA.", "choices": list(PROJECTORS)}
    )
    num_prototypes: int = field(default=256, metadata={"help": "Prototypes a picture of such a projector."})
    prototype_iterations: int = field(default=2, metadata={"help": "Iterations that make the prototypes."})
    mm_use_im_start_end: bool = field(
        default=False, metadata={"help": "Put pictures between <im_start> and <im_end>, two tokens that are trained."}
    )
    pretrained_projector: str | None = field(
        default=None,
        metadata={"help": "Folder or file with the projector to begin from: ours, or an original mm_projector.bin."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        assembled = self.language_model is not None
        if assembled != (self.vision_tower is not None):
            raise ConfigError("--language_model and --vision_tower make a LLaVA together; give both, or neither")
        if assembled and self.model_name_or_path is not None:
            raise ConfigError(
                "--model_name_or_path is a whole LLaVA; leave it out, or --language_model and --vision_tower"
            )
        if assembled and (self.load_in_4bit or self.load_in_8bit):
            raise ConfigError(
                "--load_in_4bit and --load_in_8bit take a saved LLaVA; save the assembled one first, or leave them out"
            )
        if not assembled and (self.projector != "mlp" or self.pretrained_projector is not None):
            raise ConfigError(
                "--projector and --pretrained_projector are for a LLaVA of --language_model and --vision_tower"
            )
        for flag in ("num_prototypes", "prototype_iterations"):
            if getattr(self, flag) < 1:
                raise ConfigError(f"--{flag} is {getattr(self, flag)}; it must be at least 1")

    @property
    def assembly(self) -> "Assembly | None":
        """The parts, if they were given."""
        if self.language_model is None or self.vision_tower is None:
            return None
        names = (member.name for member in fields(Assembly))
        return Assembly(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class Assembly:
    """What a LLaVA is made of. Equal assemblies give equal models, but for the projector."""

    language_model: str
    vision_tower: str
    projector: str = "mlp"
    num_prototypes: int = 256
    prototype_iterations: int = 2
    mm_use_im_start_end: bool = False

    def __post_init__(self) -> None:
        if self.projector not in PROJECTORS:
            raise ConfigError(f"unknown --projector {self.projector!r}; use one of: {', '.join(PROJECTORS)}")


def assembled_processor(assembly: Assembly, text: PreTrainedConfig | None = None) -> LlavaProcessor:
    """The language model's tokenizer with `<image>` and a pad token of its own, and the tower's image processor.

    Args:
        assembly: the parts.
        text: configuration of the language model, where its folder has none of its own.

    Raises:
        ModelError: a part that cannot be found, or a tokenizer without the `</s>` that ends an answer.
    """
    tokenizer = _load(AutoTokenizer, assembly.language_model, config=text)
    if tokenizer.eos_token != prompts.V1.end_of_turn:
        raise ModelError(
            f"the tokenizer of {assembly.language_model!r} ends texts with {tokenizer.eos_token!r}; the templates need "
            f"{prompts.V1.end_of_turn!r}, as Llama, Vicuna and Mistral have it"
        )
    _add_tokens(tokenizer, prompts.IMAGE_TOKEN)
    if assembly.mm_use_im_start_end:
        add_frame(tokenizer)
    if tokenizer.pad_token in (None, tokenizer.unk_token, tokenizer.eos_token):  # those mean something else
        tokenizer.add_special_tokens({"pad_token": PAD})
    tokenizer.padding_side = "right"
    images = _load(AutoImageProcessor, assembly.vision_tower, backend="pil")
    return LlavaProcessor(
        images,
        tokenizer,
        patch_size=_vision_config(assembly).patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=prompts.IMAGE_TOKEN,
    )


def add_frame(tokenizer: PreTrainedTokenizerBase) -> None:
    """Teach a tokenizer the tokens around pictures; `prompts` uses them whenever it knows them."""
    _add_tokens(tokenizer, *prompts.FRAME)


def assembled_config(assembly: Assembly, tokenizer: PreTrainedTokenizerBase) -> LlavaConfig:
    """The configuration of the whole; patch features come from the tower's last layer but one, as in LLaVA."""
    return joined_config(assembly, _text_config(assembly), tokenizer)


def joined_config(assembly: Assembly, text: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> LlavaConfig:
    """`assembled_config` around a language model's configuration, where its folder has none of its own."""
    vision = _vision_config(assembly)
    if len(tokenizer) > text.vocab_size:
        text.vocab_size = -(-len(tokenizer) // ROWS) * ROWS
    text.pad_token_id = tokenizer.pad_token_id
    names = ("num_prototypes", "prototype_iterations")
    sizes = {name: getattr(assembly, name) for name in names if hasattr(PROJECTORS[assembly.projector], name)}
    return PROJECTORS[assembly.projector](
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(prompts.IMAGE_TOKEN),
        image_seq_length=(vision.image_size // vision.patch_size) ** 2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        **sizes,
    )


def assemble(
    assembly: Assembly,
    processor: LlavaProcessor,
    *,
    pretrained_projector: str | Path | None = None,
    seed: int = 0,
    **kwargs: Any,
) -> LlavaForConditionalGeneration:
    """Load the parts and put them together.

    Rows of the vocabulary that the language model lacks are the mean of those it has, in and out.

    Args:
        assembly: the parts.
        processor: from `assembled_processor`.
        pretrained_projector: where its projector is read from (see `read_projector`); without one it is new.
        seed: of a new projector; the caller's random state is untouched.
        **kwargs: for `from_pretrained` (`dtype`, `attn_implementation`, ...).

    Raises:
        ModelError: a part that cannot be found, or that does not fit.
    """
    if is_deepspeed_zero3_enabled():
        raise ModelError("a LLaVA cannot be assembled in pieces of ZeRO-3; use ZeRO-2, or assemble and save it before")
    config = assembled_config(assembly, processor.tokenizer)
    given = {} if pretrained_projector is None else read_projector(pretrained_projector, config)
    # The language model first: without a `dtype`, transformers takes that of the first tensor for all.
    state = _language_state(assembly, config.text_config.vocab_size, kwargs.get("dtype"))
    state |= vision_state(assembly, kwargs.get("dtype"))
    state |= {f"model.multi_modal_projector.{name}": value for name, value in given.items()}
    model_class = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, report = model_class.from_pretrained(
            None, config=config, state_dict=state, output_loading_info=True, **kwargs
        )
    absent = {name for name in report["missing_keys"] if given or "multi_modal_projector" not in name}
    if unfit := sorted({*absent, *report["unexpected_keys"], *report["mismatched_keys"]}):
        raise ModelError(
            f"{assembly.language_model!r} and {assembly.vision_tower!r} do not make a LLaVA: no match for "
            f"{', '.join(map(str, unfit[:3]))}"
        )
    model.generation_config = generation_config(processor.tokenizer)
    model.assembly = assembly
    return model


def save_assembly(model: LlavaForConditionalGeneration, folder: str | Path) -> None:
    """Write what `model` was assembled from beside its adapter, whose base has no name; nothing for other models."""
    assembly = getattr(model, "assembly", None)
    if assembly is not None:
        write_assembly(assembly, folder)


def write_assembly(assembly: Assembly, folder: str | Path) -> None:
    """Write what an adapter's base is made of."""
    Path(folder, ASSEMBLY_FILE).write_text(json.dumps(asdict(assembly), indent=2) + "\n")


def read_assembly(file: str | Path) -> Assembly:
    """Read what `save_assembly` wrote; raises `ModelError` for anything else."""
    known = {member.name for member in fields(Assembly)}
    try:
        content = json.loads(Path(file).read_text())
        return Assembly(**{name: value for name, value in content.items() if name in known})
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{file} does not name a language model and a vision tower: {one_line(error)}") from error


def _text_config(assembly: Assembly) -> PreTrainedConfig:
    name = assembly.language_model
    config = _load(AutoConfig, name)
    if isinstance(config, LlavaConfig):
        raise ModelError(f"{name!r} is a LLaVA already; give it as --model_name_or_path")
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelError(
            f"{name!r} is a {config.model_type!r} model, not a language model such as lmsys/vicuna-7b-v1.5"
        )
    return config


def _vision_config(assembly: Assembly) -> CLIPVisionConfig:
    name = assembly.vision_tower
    config = _load(AutoConfig, name)
    config = config.vision_config if isinstance(config, CLIPConfig) else config
    if not isinstance(config, CLIPVisionConfig):
        raise ModelError(
            f"{name!r} is a {config.model_type!r} model, not a CLIP tower such as openai/clip-vit-large-patch14-336"
        )
    return config


def vision_state(assembly: Assembly, dtype: Any) -> dict[str, Tensor]:
    """The tower's weights under the names they have in a LLaVA."""
    tower = _load(AutoModel, assembly.vision_tower, dtype=dtype)
    tower = tower.vision_model if isinstance(tower, CLIPModel) else tower
    return {f"model.vision_tower.{name}": value for name, value in tower.state_dict().items()}


def _language_state(assembly: Assembly, rows: int, dtype: Any) -> dict[str, Tensor]:
    """The language model's weights under the names they have in a LLaVA, its vocabulary grown to `rows`."""
    model = _load(AutoModelForCausalLM, assembly.language_model, dtype=dtype)
    for embeddings in (model.get_input_embeddings(), model.get_output_embeddings()):
        embeddings.weight.data = grown(embeddings.weight.data, rows)
    return {
        f"model.language_model.{name.removeprefix('model.')}" if name.startswith("model.") else name: value
        for name, value in model.state_dict().items()
    }


def grown(weight: Tensor, rows: int) -> Tensor:
    """Embeddings [V, H] with rows appended, each the mean of those there are: [rows, H]."""
    mean = weight.float().mean(0, keepdim=True).to(weight.dtype)
    return torch.cat([weight, mean.expand(rows - len(weight), -1)])


def _add_tokens(tokenizer: PreTrainedTokenizerBase, *tokens: str) -> None:
    added = [AddedToken(token, special=True, normalized=False) for token in tokens]
    tokenizer.add_tokens(added, special_tokens=True)


def generation_config(tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """How a LLaVA with this tokenizer begins, ends and pads."""
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )


def _load(kind: Any, name: str, **kwargs: Any) -> Any:
    """`kind.from_pretrained(name)`; raises `ModelError` if there is nothing of the kind."""
    try:
        return kind.from_pretrained(name, **kwargs)
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot load {name!r} as a part of a LLaVA: {one_line(error)}") from error
