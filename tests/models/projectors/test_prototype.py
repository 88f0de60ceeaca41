"""The grouping projectors: SQ-LLaVA's own numbers, what rounding may change, and how much memory they take."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import CLIPVisionConfig, LlamaConfig

from hf_llava_vqa.models.projectors import LlavaPrototypeConfig
from hf_llava_vqa.models.projectors.prototype import (
    GroupingProjector,
    PrototypeProjector,
    SoftPrototypeProjector,
    pooling_matrix,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "parity"
ROWS = [json.loads(line) for line in (GOLDEN / "cluster_projector.jsonl").read_text().splitlines()]
ORIGINAL_NAMES = {
    "c.weight": "prototype.weight",
    "c.bias": "prototype.bias",
    "v.weight": "key.weight",
    "v.bias": "key.bias",
    "f.weight": "value.weight",
    "f.bias": "value.bias",
    "sim_alpha": "similarity_scale",
    "sim_beta": "similarity_shift",
    "mlp.0.weight": "linear_1.weight",
    "mlp.0.bias": "linear_1.bias",
    "mlp.2.weight": "linear_2.weight",
    "mlp.2.bias": "linear_2.bias",
}  # `ln_1` is defined there but never used


def configuration(width: int, hidden: int, prototypes: int, iterations: int = 2) -> LlavaPrototypeConfig:
    return LlavaPrototypeConfig(
        vision_config=CLIPVisionConfig(hidden_size=width, num_attention_heads=1),
        text_config=LlamaConfig(hidden_size=hidden, num_attention_heads=1),
        num_prototypes=prototypes,
        prototype_iterations=iterations,
    )


def original(row: dict[str, Any]) -> tuple[PrototypeProjector, dict[str, np.ndarray]]:
    """The recorded weights in our projector, and what the original made of the inputs."""
    projector = PrototypeProjector(configuration(row["D"], row["D_out"], row["N"], row["T"]))
    weights = load_file(GOLDEN / "cluster_projector" / row["weights"])
    state = projector.state_dict()
    projector.load_state_dict(
        {
            ours: weights[f"model.mm_projector.{theirs}"].reshape(state[ours].shape)
            for theirs, ours in ORIGINAL_NAMES.items()
        }
    )
    return projector, dict(np.load(GOLDEN / "cluster_projector" / row["npz"]))


@torch.no_grad()
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_the_original_numbers(row: dict[str, Any]) -> None:
    projector, golden = original(row)
    inputs = torch.from_numpy(golden["x"])
    np.testing.assert_allclose(projector(inputs), golden["y_float32"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(projector.double()(inputs.double()), golden["y"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("row", [row for row in ROWS if row["has_grad"]], ids=lambda row: row["id"])
def test_the_original_gradients(row: dict[str, Any]) -> None:
    projector, golden = original(row)
    inputs = torch.from_numpy(golden["x"]).double().requires_grad_()
    (projector.double()(inputs) * torch.from_numpy(golden["grad_w"])).sum().backward()
    np.testing.assert_allclose(inputs.grad, golden["grad_x"], rtol=0, atol=1e-9)
    gradients = {name: parameter.grad for name, parameter in projector.named_parameters()}
    norms = [gradients[ORIGINAL_NAMES[str(name)]].norm().item() for name in golden["grad_param_names"]]
    np.testing.assert_allclose(norms, golden["grad_param_norms"], rtol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
@pytest.mark.parametrize("autocast", [False, True])
def test_16_bits_do_not_change_who_joins_whom(row: dict[str, Any], autocast: bool) -> None:
    """What bfloat16 weights say of bfloat16 features is computed as if it were exact."""
    projector, golden = original(row)
    inputs = torch.from_numpy(golden["x"]).bfloat16()
    projector = projector if autocast else projector.bfloat16()
    grouped: list[torch.Tensor] = []
    group = projector.group
    projector.group = lambda tokens: grouped.append(group(tokens)) or grouped[-1]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output = projector(inputs)
    exact = projector.double()(inputs.double())
    np.testing.assert_allclose(grouped[0], grouped[1], rtol=0, atol=1e-5)
    assert output.dtype == torch.bfloat16
    assert (output - exact).norm() < 0.01 * exact.norm()


@torch.no_grad()
def test_an_independent_soft_version() -> None:
    projector = SoftPrototypeProjector(configuration(6, 4, 3)).double()
    tokens = torch.randn(2, 7, 6, dtype=torch.double)
    for picture, grouped in zip(tokens, projector.group(tokens), strict=True):
        prototypes = projector.initial
        for _ in range(2):
            scores = torch.stack([projector.key(token) @ projector.query(prototypes).T for token in picture])
            prototypes = functional.softmax(scores, dim=1).T @ projector.value(picture)
        for token, after in zip(picture, grouped, strict=True):
            mean = sum(functional.cosine_similarity(p, token, dim=0) * p for p in prototypes) / 3
            torch.testing.assert_close(after, token + projector.output(mean))


@pytest.mark.parametrize("kind", [PrototypeProjector, SoftPrototypeProjector])
def test_every_parameter_learns_and_pictures_do_not_meet(kind: type[GroupingProjector]) -> None:
    projector = kind(configuration(8, 6, 3))
    tokens = torch.randn(2, 9, 8)
    torch.testing.assert_close(projector(tokens)[1:], projector(tokens[1:]))
    projector(tokens).square().sum().backward()
    assert all(parameter.grad.any() for parameter in projector.parameters())


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that an operation returns."""

    elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.elements = max([self.elements, *sizes])
        return result


@pytest.mark.parametrize("kind", [PrototypeProjector, SoftPrototypeProjector])
def test_nothing_larger_than_the_tokens_is_laid_out(kind: type[GroupingProjector]) -> None:
    """The original lays out [N, L, D] for a picture: 75 million elements at half these sizes."""
    projector = kind(configuration(512, 512, 256))
    tokens = torch.randn(2, 576, 512, requires_grad=True)
    with Largest() as largest:
        projector(tokens).sum().backward()
    assert largest.elements == tokens.numel()


@pytest.mark.parametrize(("tokens", "groups"), [(576, 256), (64, 16), (7, 3), (3, 7)])
def test_pooling_is_the_adaptive_average(tokens: int, groups: int) -> None:
    values = torch.randn(2, tokens, 5, dtype=torch.double)
    expected = functional.adaptive_avg_pool1d(values.mT, groups).mT
    torch.testing.assert_close(pooling_matrix(values, groups) @ values, expected)
