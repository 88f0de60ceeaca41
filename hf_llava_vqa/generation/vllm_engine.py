"""vLLM as an engine: greedy answers of a merged model to the same prompts, token for token, and the same pixels.

vLLM plans batches itself and keeps what it has read of a picture for the picture's other questions. It opens a model by
its path, not as a module: hence `load_vllm` beside `load_model`.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image
from transformers import LlavaConfig, LlavaProcessor

from hf_llava_vqa.bad_images import BadImage, open_pictures
from hf_llava_vqa.collate import image_tokens
from hf_llava_vqa.errors import ConfigError, ModelError
from hf_llava_vqa.generation.decoding import Answer
from hf_llava_vqa.generation.questions import Planted
from hf_llava_vqa.models.loading import adapter_base, llava_config, load_processor
from hf_llava_vqa.models.processors import prepare_processor

VLLM_BATCH = {"batch_size": 256, "batch_tokens": 2**18}
"""What `answer_questions` should hand over together: enough for vLLM to fill a GPU."""


def load_vllm(
    path: str, *, image_aspect: str | None = None, template: str = "v1", **kwargs: Any
) -> tuple[Any, LlavaProcessor]:
    """Open a base or merged model with vLLM, for `answer_questions(..., engine="vllm")`.

    Args:
        path: a folder or a Hub repository.
        image_aspect, template: as for `load_model`.
        **kwargs: for `vllm.LLM` (`dtype`, `tensor_parallel_size`, `gpu_memory_utilization`, ...).

    Returns:
        `(llm, processor)`.

    Raises:
        ConfigError: vLLM is not installed.
        ModelError: an adapter, a projector that vLLM does not know, or as `load_model`.
    """
    vllm = _import_vllm()
    if adapter_base(path) is not None:
        raise ModelError(
            f"{path!r} is an adapter; the engine vllm needs it merged into its base and saved as one model"
        )
    config = llava_config(path)
    if config.model_type != LlavaConfig.model_type:
        raise ModelError(f"{path!r} is a {config.model_type} model, which vllm does not know; use the engine forest")
    processor = prepare_processor(load_processor(path), config, image_aspect=image_aspect, template=template)
    return vllm.LLM(model=path, generation_config="vllm", **kwargs), processor


def generate_with_vllm(
    llm: Any, processor: LlavaProcessor, trees: Sequence[Planted], *, max_new_tokens: int
) -> list[Answer]:
    """Greedy answers to trees of one question each.

    Raises:
        ConfigError: `llm` is not what `load_vllm` returned.
        ImageError: naming the record whose picture cannot be opened.
    """
    vllm = _import_vllm()
    if not isinstance(llm, vllm.LLM):
        raise ConfigError("the engine vllm answers with what load_vllm returns; load the model with that")
    settings = vllm.SamplingParams(temperature=0.0, max_tokens=max_new_tokens, logprobs=0)
    outputs = llm.generate([_prompt(processor, tree) for tree in trees], settings, use_tqdm=False)
    first = [output.outputs[0] for output in outputs]
    return [Answer(list(output.token_ids), output.cumulative_logprob) for output in first]


def _import_vllm() -> ModuleType:
    try:
        import vllm
    except ModuleNotFoundError:
        raise ConfigError('the engine vllm needs its package: pip install "hf-llava-vqa[vllm]"') from None
    return vllm


def _prompt(processor: LlavaProcessor, tree: Planted) -> dict[str, Any]:
    """The row as vLLM takes it: one token a picture, which it widens itself, and the pictures."""
    ids = tree.row.input_ids
    of_picture = ids == processor.image_token_id
    first = (of_picture.cumsum() - 1) % image_tokens(processor) == 0
    prompt: dict[str, Any] = {"prompt_token_ids": ids[~of_picture | first].tolist()}
    if tree.pictures:
        prompt["multi_modal_data"] = {"image": _pictures(processor, tree)}
    return prompt


def _pictures(processor: LlavaProcessor, tree: Planted) -> list[Image.Image]:
    """The tree's pictures, padded or cropped and scaled as the tower reads them; vLLM then only normalises them."""
    opened = open_pictures(tree.record)
    if isinstance(opened, BadImage):
        raise opened.error()
    shown = [opened[number] for number in tree.pictures]
    scaled = processor.image_processor(shown, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"]
    return [Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))) for pixels in scaled]
