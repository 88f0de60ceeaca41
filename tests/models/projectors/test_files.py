"""Projectors from files: ours and the originals' give the same tensors, and what does not fit is refused."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

from hf_llava_vqa.errors import ModelError
from hf_llava_vqa.models.projectors import PROJECTORS
from hf_llava_vqa.models.projectors.files import projector_shapes, read_projector

GOLDEN = Path(__file__).parents[2] / "golden" / "parity"
STOCK = "base_model.model.model.multi_modal_projector."  # as PEFT writes it


def configuration(kind: str = "mlp", *, width: int = 32, hidden: int = 48) -> LlavaConfig:
    sizes: dict[str, Any] = {"num_prototypes": 16} if "prototype" in kind else {}
    return PROJECTORS[kind](
        vision_config=CLIPVisionConfig(hidden_size=width, num_attention_heads=2, num_hidden_layers=1),
        text_config=LlamaConfig(hidden_size=hidden, num_attention_heads=4, num_hidden_layers=1, vocab_size=8),
        **sizes,
    )


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """An adapter's folder with the stock projector, and something else."""
    shapes = projector_shapes(configuration())
    tensors = {STOCK + name: torch.randn(shape) for name, shape in shapes.items()}
    save_file({**tensors, "base_model.model.lora_A.weight": torch.ones(1)}, tmp_path / "adapter_model.safetensors")
    return tmp_path


def test_an_original_mlp() -> None:
    original = load_file(GOLDEN / "tiny_model" / "model.safetensors")
    read = read_projector(GOLDEN / "tiny_model" / "mm_projector.bin", configuration())
    assert read.keys() == {f"linear_{layer}.{kind}" for layer in (1, 2) for kind in ("weight", "bias")}
    for name, value in read.items():
        theirs = name.replace("linear_1", "0").replace("linear_2", "2")
        assert torch.equal(value, original[f"model.mm_projector.{theirs}"])


def test_an_original_linear_one(tmp_path: Path) -> None:
    tensors = {"weight": torch.randn(48, 32), "bias": torch.randn(48)}
    torch.save({f"model.mm_projector.{name}": value for name, value in tensors.items()}, tmp_path / "mm_projector.bin")
    read = read_projector(tmp_path, configuration("linear"))
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], value) for name, value in tensors.items())


def test_an_original_prototype_one() -> None:
    file = GOLDEN / "cluster_projector" / "cluster_n16.safetensors"
    original, read = load_file(file), read_projector(file, configuration("prototype"))
    assert {name: value.shape for name, value in read.items()} == projector_shapes(configuration("prototype"))
    assert torch.equal(read["value.weight"], original["model.mm_projector.f.weight"])
    assert torch.equal(read["similarity_scale"], original["model.mm_projector.sim_alpha"].flatten())


@pytest.mark.parametrize("where", [".", "adapter_model.safetensors"])
def test_an_adapters_folder_and_file(ours: Path, where: str) -> None:
    saved, read = load_file(ours / "adapter_model.safetensors"), read_projector(ours / where, configuration())
    assert read.keys() == projector_shapes(configuration()).keys()
    assert all(torch.equal(value, saved[STOCK + name]) for name, value in read.items())


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [("mlp", 20_979_712), ("linear", 4_198_400), ("prototype", 24_130_562 - 2 * 1024), ("soft_prototype", 25_440_256)],
)
def test_sizes_beside_a_7b_model(kind: str, parameters: int) -> None:
    """SQ-LLaVA's has 2 x 1024 more in a layer that it never calls."""
    config = PROJECTORS[kind](
        vision_config=CLIPVisionConfig(hidden_size=1024, num_attention_heads=16, num_hidden_layers=1),
        text_config=LlamaConfig(hidden_size=4096, num_hidden_layers=1, vocab_size=8),
    )
    assert sum(shape.numel() for shape in projector_shapes(config).values()) == parameters


# What is refused, in one line


def refused(path: Path, config: LlavaConfig, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        read_projector(path, config)
    assert "\n" not in str(caught.value)


def test_other_shapes(ours: Path) -> None:
    refused(
        ours, configuration(hidden=64), r"linear_\d.\w+ is \[48.*\], the model's is \[64.*\]; use the language model"
    )
    refused(ours, configuration(width=16), r"linear_1.weight is \[48, 32\], the model's is \[48, 16\]; use the")
    cluster = GOLDEN / "cluster_projector" / "cluster_n256.safetensors"
    refused(cluster, configuration("prototype"), r"is \[16.*\], the model's is \[32.*\]; use the language model")


@pytest.mark.parametrize("kind", ["linear", "prototype", "soft_prototype"])
def test_another_kind(ours: Path, kind: str) -> None:
    refused(ours, configuration(kind), "holds a projector of linear_1.bias, .* choose the --projector it was made with")


def test_half_a_projector(ours: Path) -> None:
    file = ours / "adapter_model.safetensors"
    tensors = load_file(file)
    del tensors[STOCK + "linear_2.bias"]
    save_file(tensors, file)
    refused(
        ours, configuration(), "holds a projector of linear_1.bias, linear_1.weight, linear_2.weight, the model's is"
    )


def test_trained_tokens_beside_it(ours: Path) -> None:
    file = ours / "adapter_model.safetensors"
    save_file(load_file(file) | {"model.embed_tokens.token_adapter.trainable_tokens_delta": torch.ones(2, 48)}, file)
    refused(ours, configuration(), "holds trained tokens beside the projector, which would be lost: merge the adapter")


def test_no_projector_at_all(ours: Path, tmp_path: Path) -> None:
    save_file({"lora_A.weight": torch.ones(1)}, ours / "adapter_model.safetensors")
    refused(ours, configuration(), "holds no projector; give the folder of an adapter, or an mm_projector.bin")
    refused(tmp_path / "nowhere", configuration(), "no projector in .*nowhere: neither a file, nor a folder with")


def test_files_that_are_broken_or_hold_more_than_tensors(tmp_path: Path) -> None:
    class Call:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "called",)

    (tmp_path / "code.bin").write_bytes(pickle.dumps({"model.mm_projector.0.weight": Call()}, protocol=2))
    torch.save({"model.mm_projector.0.weight": Call()}, tmp_path / "code.pt")
    (tmp_path / "broken.bin").write_bytes(b"no tensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no tensors")
    for name in ("code.bin", "code.pt", "broken.bin", "broken.safetensors"):
        refused(tmp_path / name, configuration(), f"{name} cannot be read as tensors: ")
    assert not (tmp_path / "called").exists()
