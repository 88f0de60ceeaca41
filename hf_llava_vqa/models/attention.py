"""Attention over image trees, one a row: down to the first leaf by a causal kernel, only what follows under a mask.

A row begins with a chain: the picture, what all questions share, the first question and its first answer. Among these
tokens the tree's mask is the causal one, for which kernels have a fast path that computes half and reads no mask.
"""

from typing import Any

import torch
from transformers import AttentionInterface, LlavaForConditionalGeneration
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

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
    if chain is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    first = (states[:, :, :chain] for states in (query, key, value))
    above, _ = sdpa_attention_forward(module, *first, None, **kwargs)
    if chain == query.shape[2]:
        return above, None
    below, _ = sdpa_attention_forward(module, query[:, :, chain:], key, value, attention_mask, **kwargs)
    return torch.cat([above, below], dim=1), None


def use_tree_attention(model: LlavaForConditionalGeneration) -> None:
    """Have the language model of a LLaVA use `tree_attention`; what calls it without `chain` notices no difference."""
    AttentionInterface.register(TREE_SDPA, tree_attention)
    AttentionMaskInterface.register(TREE_SDPA, sdpa_mask)
    model.set_attn_implementation({"text_config": TREE_SDPA})
