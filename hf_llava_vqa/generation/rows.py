"""Trees as the model reads them: rows of one tree each, padded to tensors, with the mask its attention understands."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from hf_llava_vqa import forest
from hf_llava_vqa.collate import pixel_values
from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.generation.questions import Planted
from hf_llava_vqa.models.attention import TREE_SDPA

Inputs = dict[str, torch.Tensor]


def padded(model: LlavaForConditionalGeneration, processor: LlavaProcessor, trees: Sequence[Planted]) -> Inputs:
    """Trees as rows [R, L] on the model's device: `input_ids`, `position_ids`, `subtree_end`, `labels`.

    Raises:
        ConfigError: an attention backend that does not honour the tree mask.
    """
    check_attention(model)
    arrays = forest.pad_rows([tree.row for tree in trees], processor.tokenizer.pad_token_id)
    names = ("input_ids", "position_ids", "subtree_end", "labels")
    return {name: torch.from_numpy(np.ascontiguousarray(arrays[name])).to(model.device) for name in names}


def pictures(model: LlavaForConditionalGeneration, processor: LlavaProcessor, trees: Sequence[Planted]) -> Inputs:
    """`pixel_values` [I, 3, H, W] of the rows' image slots, in order; nothing if there are none.

    A record's pictures are opened once for all its trees in the batch.

    Raises:
        ImageError: naming the record whose picture cannot be opened.
    """
    opened: dict[int, torch.Tensor] = {}
    for tree in trees:
        if id(tree.record) not in opened:
            opened[id(tree.record)] = pixel_values(tree.record, processor)
    pixels = torch.cat([opened[id(tree.record)][tree.pictures] for tree in trees])
    return {"pixel_values": pixels.to(model.device)} if len(pixels) else {}


def attention(model: LlavaForConditionalGeneration, sees: torch.Tensor) -> torch.Tensor:
    """`sees` [R, Q, K] bool, whether query q may attend to key k, as the mask [R, 1, Q, K] for the model."""
    if backend(model) != "eager":
        return sees[:, None]
    lowest = torch.finfo(model.dtype).min  # eager attention adds its mask
    return torch.where(sees[:, None], 0, lowest).to(model.dtype)


def check_attention(model: LlavaForConditionalGeneration) -> None:
    """Raise `ConfigError` unless the model's attention takes a mask of any shape."""
    if backend(model) not in ("sdpa", TREE_SDPA, "eager"):
        raise ConfigError(
            f"attn_implementation {backend(model)} does not honour the mask that keeps questions apart; "
            "use sdpa, or the engine generate"
        )


def backend(model: LlavaForConditionalGeneration) -> str | None:
    """The attention implementation of the language model."""
    return model.config.get_text_config()._attn_implementation
