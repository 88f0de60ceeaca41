"""Attention by first chain and branches is masked attention over whole trees."""

from typing import Any

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from hf_llava_vqa import forest
from hf_llava_vqa.models.attention import TREE_SDPA, mask_for, masked_attention, tree_attention, use_tree_attention
from hf_llava_vqa.models.loading import load_model

PATHS = [[0, 1, 2, 3], [0, 1, 4, 5, 6], [0, 1, 4, 7]]
CHAIN = [[0, 1, 2, 3, 4]]


def rows_of(*groups: list[list[int]]) -> list[forest.Row]:
    return forest.lay_out([forest.merge([(path, [False] * len(path)) for path in paths]) for paths in groups])


@pytest.mark.parametrize("groups", [[PATHS], [PATHS, CHAIN], [CHAIN], [CHAIN, CHAIN[:1]]], ids=str)
def test_outputs_and_gradients_are_those_of_the_dense_mask(groups: list[list[list[int]]]) -> None:
    rows = rows_of(*groups)
    chain = forest.chain_length(rows)
    ends = torch.from_numpy(forest.pad_rows(rows, pad_token_id=0)["subtree_end"])
    generator = torch.Generator().manual_seed(0)
    shape = (3, len(rows), 2, ends.shape[1], 4)
    states = torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True)
    real = torch.arange(ends.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
    layer = torch.nn.Identity()
    ours, _ = tree_attention(layer, *states, forest.attention_mask(ends, chain), chain=chain)
    dense, _ = sdpa_attention_forward(layer, *states, forest.attention_mask(ends))
    torch.testing.assert_close(ours[real], dense[real], rtol=0, atol=1e-12)
    our, their = (torch.autograd.grad(output[real].square().sum(), states)[0] for output in (ours, dense))
    torch.testing.assert_close(our, their, rtol=0, atol=1e-12)


def test_without_a_chain_it_is_stock_sdpa(tiny_llava: Any) -> None:
    model, processor = load_model(str(tiny_llava))
    prompt = processor(text="USER: Why? ASSISTANT:", return_tensors="pt")
    before = model.generate(**prompt, max_new_tokens=4, do_sample=False)
    logits = model(**prompt).logits
    use_tree_attention(model)
    assert model.config.text_config._attn_implementation == TREE_SDPA
    assert model.config.vision_config._attn_implementation == "sdpa"
    assert model(**prompt).logits.equal(logits)
    assert model.generate(**prompt, max_new_tokens=4, do_sample=False).equal(before)


@pytest.mark.parametrize(
    ("implementation", "mask"),
    [
        ("sdpa", "compact"),
        (TREE_SDPA, "compact"),  # of a trainer before
        ("flex_attention", "block"),
        ("flash_attention_2", "varlen"),
        ("kernels-community/vllm-flash-attn3", "varlen"),
        ("eager", None),
    ],
)
def test_an_implementation_reads_its_own_kind_of_mask(implementation: str, mask: str | None) -> None:
    assert mask_for(implementation) == mask


def test_masked_attention_is_sdpa_until_it_ends(tiny_llava: Any) -> None:
    model, _ = load_model(str(tiny_llava), attn_implementation="flex_attention")
    with masked_attention(model):
        assert model.config.text_config._attn_implementation == "sdpa"
    assert model.config.text_config._attn_implementation == "flex_attention"
