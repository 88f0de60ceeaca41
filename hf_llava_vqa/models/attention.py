"""Attention over image trees, by the attention implementation of the model.

SDPA reads one tree a row: down to the first leaf by a causal kernel, only what follows under a mask. A row begins with
a chain: the picture, what all questions share, the first question and its first answer. Among these tokens the tree's
mask is the causal one, for which kernels have a fast path that computes half and reads no mask. FlexAttention skips
blocks of the mask, and flash-attn takes paths without any: both read rows of many trees.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface, LlavaForConditionalGeneration
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.utils.generic import is_flash_attention_requested

from hf_llava_vqa.errors import ConfigError

TREE_SDPA = "tree_sdpa"


def tree_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    chain: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' SDPA for rows whose first `chain` tokens are a chain from a root; stock SDPA without `chain`.

    Args:
        module: the attention layer.
        query, key, value: [R, H, L, D].
        attention_mask: [R, 1, L - chain, L] bool, of the queries behind the chain; without `chain` as SDPA takes it.
        chain: at most L, see `forest.chain_length`.
        **kwargs: for SDPA.

    Returns:
        [R, L, H, D], and None where others give attention weights.
    """
    if chain == query.shape[2]:  # nothing is behind it: plainly causal
        chain = attention_mask = None
    if chain is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    (first, rest), *seen = (states.split([chain, query.shape[2] - chain], dim=2) for states in (query, key, value))
    above, _ = sdpa_attention_forward(module, first, *(states for states, _ in seen), None, **kwargs)
    below, _ = sdpa_attention_forward(module, rest, key, value, attention_mask, **kwargs)
    return torch.cat([above, below], dim=1), None


def mask_for(implementation: str) -> str | None:
    """The `mask` of a `VqaCollator` that an attention implementation reads; None if it cannot read image trees."""
    if is_flash_attention_requested(requested_attention_implementation=implementation):
        return "varlen"
    return {"sdpa": "compact", TREE_SDPA: "compact", "flex_attention": "block"}.get(implementation)


def use_tree_attention(model: LlavaForConditionalGeneration) -> None:
    """Have the language model of a LLaVA read image trees with the attention implementation that it has.

    SDPA becomes `tree_attention`; what calls it without `chain` notices no difference. FlexAttention takes a
    `BlockMask` as it is, and leaves the tower to SDPA: pictures are read whole.

    Raises:
        ConfigError: attention dropout, which FlexAttention does not have.
    """
    text = model.config.text_config
    if text._attn_implementation == "sdpa":
        AttentionInterface.register(TREE_SDPA, tree_attention)
        AttentionMaskInterface.register(TREE_SDPA, sdpa_mask)
        model.set_attn_implementation({"text_config": TREE_SDPA})
    elif text._attn_implementation == "flex_attention":
        if text.attention_dropout > 0:
            raise ConfigError(
                f"--attn_implementation flex_attention has no dropout, and the model's attention_dropout is "
                f"{text.attention_dropout}; set that to 0, or use sdpa"
            )
        model.set_attn_implementation({"vision_config": "sdpa"})


@contextmanager
def masked_attention(model: LlavaForConditionalGeneration) -> Iterator[None]:
    """SDPA in the language model for a while: answering needs masks of any shape."""
    own = model.config.text_config._attn_implementation
    model.set_attn_implementation({"text_config": "sdpa"})
    try:
        yield
    finally:
        model.set_attn_implementation({"text_config": own})
