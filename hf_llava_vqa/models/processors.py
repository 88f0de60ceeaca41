"""The processor as we train and evaluate with it: pinned image pipeline, our chat template, checked geometry."""

from transformers import LlavaConfig, LlavaProcessor
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from hf_llava_vqa import prompts
from hf_llava_vqa.errors import ConfigError, ModelError

IMAGE_ASPECTS = ("pad", "crop")
_IMAGE_FIELDS = ("size", "crop_size", "image_mean", "image_std", "rescale_factor", "resample")


def prepare_processor(
    processor: LlavaProcessor, config: LlavaConfig, *, image_aspect: str | None = None, template: str = "v1"
) -> LlavaProcessor:
    """Return a processor with our template and image pipeline for the model described by `config`.

    Args:
        image_aspect: `pad` to a square of the mean colour (LLaVA-1.5's own), `crop` the centre (CLIP's own; cuts tall
            photos), None to keep what the processor was saved with.
        template: the chat template comes from this one.

    Raises:
        ConfigError: unknown `image_aspect`.
        ModelError: a processor whose image geometry or tokenizer does not fit the model.
    """
    if image_aspect is not None and image_aspect not in IMAGE_ASPECTS:
        raise ConfigError(f"unknown image_aspect {image_aspect!r}; use one of: {', '.join(IMAGE_ASPECTS)}")
    _check_tokenizer(processor, config)
    stock = processor.image_processor
    pad = bool(getattr(stock, "do_pad", False)) if image_aspect is None else image_aspect == "pad"
    fields = {name: getattr(stock, name) for name in _IMAGE_FIELDS}
    # The PIL pipeline on purpose: torchvision's resize differs slightly, and scores should not depend on it.
    processor.image_processor = LlavaImageProcessorPil(do_pad=pad, **fields)
    processor.patch_size = config.vision_config.patch_size
    processor.vision_feature_select_strategy = config.vision_feature_select_strategy
    processor.num_additional_image_tokens = 1  # CLIP's CLS token
    _check_geometry(processor, config)
    processor.chat_template = prompts.chat_template(template, processor.tokenizer)
    return processor


def _check_tokenizer(processor: LlavaProcessor, config: LlavaConfig) -> None:
    image_id = processor.tokenizer.convert_tokens_to_ids(prompts.IMAGE_TOKEN)
    if image_id != config.image_token_id:
        raise ModelError(
            f"the tokenizer gives {prompts.IMAGE_TOKEN} the id {image_id}, the model expects {config.image_token_id}; "
            "use the processor that was saved with the model"
        )
    if processor.tokenizer.pad_token_id is None:
        raise ModelError("the tokenizer has no pad token; use the processor that was saved with the model")


def _check_geometry(processor: LlavaProcessor, config: LlavaConfig) -> None:
    crop, side = processor.image_processor.crop_size, config.vision_config.image_size
    if (crop["height"], crop["width"]) != (side, side):
        raise ModelError(
            f"the image processor makes pictures of {crop['width']}x{crop['height']}, the tower reads {side}x{side}; "
            "use the processor that was saved with the model"
        )
