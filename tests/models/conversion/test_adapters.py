"""Adapters and projectors: bit-equal after both ways; they answer as the originals' arithmetic done by hand."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from examples import MIXED
from originals import (
    ALPHA,
    HIDDEN,
    RANK,
    TOWER_ALPHA,
    TOWER_RANK,
    original_adapter,
    original_projector,
    read_bin,
)
from parts import SIDE, language_model_tokenizer, save_language_model, save_vision_tower
from peft import PeftModel
from safetensors.torch import load_file
from short_training import train_briefly
from torch import Tensor

from hf_llava_vqa.errors import ConfigError, ModelError, VqaError
from hf_llava_vqa.generation import answer_questions
from hf_llava_vqa.models import load_model
from hf_llava_vqa.models.assembling import Assembly, assemble, assembled_processor
from hf_llava_vqa.models.conversion import to_original, to_ours
from hf_llava_vqa.models.projectors.files import read_projector
from hf_llava_vqa.models.trainable import VqaModelConfig

KINDS = {"lora": "mlp", "dora": "mlp", "sq": "prototype"}
ROWS = len(language_model_tokenizer())
FILES = ("adapter_model.bin", "non_lora_trainables.bin", "Vit-lora/adapter_model.bin")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("parts")
    return {
        "language_model": save_language_model(folder / "language"),
        "vision_tower": save_vision_tower(folder / "tower"),
    }


@pytest.fixture(scope="module", params=KINDS)
def both(request: pytest.FixtureRequest, parts: dict[str, Path], tmp_path_factory: Any) -> tuple[str, Path, Path]:
    """The kind of an adapter, the original folder and ours."""
    folder = tmp_path_factory.mktemp(request.param)
    original = original_adapter(folder / "original", request.param, **parts)
    to_ours(original, folder / "ours")
    return request.param, original, folder / "ours"


def test_both_ways_give_the_same_bits(both: tuple[str, Path, Path], tmp_path: Path) -> None:
    _, original, ours = both
    to_original(ours, tmp_path / "back")
    for name in FILES:
        assert (original / name).exists() == (tmp_path / "back" / name).exists()
        if (original / name).exists():
            before, after = read_bin(original / name), read_bin(tmp_path / "back" / name)
            assert before.keys() == after.keys()
            assert all(torch.equal(after[key], value) for key, value in before.items())
    for name in ("config.json", "adapter_config.json", "Vit-lora/adapter_config.json"):
        if (original / name).exists():
            before, after = (json.loads((folder / name).read_text()) for folder in (original, tmp_path / "back"))
            said = before.keys() - {"model_type", "base_model_name_or_path"}  # older code calls it `llava`
            assert {key: after[key] for key in said} == {key: before[key] for key in said}


@torch.no_grad()
def test_it_answers_as_the_arithmetic_by_hand(both: tuple[str, Path, Path], parts: dict[str, Path]) -> None:
    """In float64: which prototype a patch joins would hang on float32's last bits."""
    kind, original, ours = both
    assembly = Assembly(str(parts["language_model"]), str(parts["vision_tower"]), KINDS[kind])
    expected = assemble(assembly, assembled_processor(assembly)).eval().double()
    adapted, processor = load_model(str(ours))
    assert isinstance(adapted, PeftModel)
    ids = processor.tokenizer("What is this?", return_tensors="pt")["input_ids"]
    image = torch.tensor([[processor.image_token_id] * 4])
    pixels = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2)).double()
    inputs = {"input_ids": torch.cat([ids, image], 1), "pixel_values": pixels}
    plain = expected(**inputs).logits
    expected.load_state_dict(merged_by_hand(kind, original, expected.state_dict()))
    logits = expected(**inputs).logits
    assert (plain - logits).abs().max() > 0.1
    torch.testing.assert_close(adapted.double()(**inputs).logits, logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(adapted.merge_and_unload()(**inputs).logits, logits, rtol=0, atol=1e-5)


def merged_by_hand(kind: str, original: Path, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """W + s BA; with DoRA its rows scaled to the magnitudes. Read from the original files, by their own names."""
    merged = dict(weights)
    adapter = {name: value.double() for name, value in read_bin(original / "adapter_model.bin").items()}
    for name in [name for name in adapter if ".lora_A." in name]:
        place = "model.language_model." + name.removeprefix("base_model.model.model.").replace("lora_A.", "")
        lora_b = adapter[name.replace("lora_A", "lora_B")]
        direction = weights[place] + ALPHA / RANK * lora_b @ adapter[name]
        if kind == "dora":
            magnitude = adapter[name.replace("lora_A", "weight_m_wdecomp")]
            direction = magnitude * direction / direction.norm(dim=1, keepdim=True)
        merged[place] = direction
    if kind == "sq":
        tower = {name: value.double() for name, value in read_bin(original / FILES[2]).items()}
        for name in [name for name in tower if ".lora_A." in name]:
            place = name.replace("base_model.model.vision_tower.vision_model.", "model.vision_tower.")
            place = place.replace("lora_A.", "")
            merged[place] = (
                weights[place] + TOWER_ALPHA / TOWER_RANK * tower[name.replace("lora_A", "lora_B")] @ tower[name]
            )
    layers = {"0": "linear_1", "2": "linear_2", "mlp.0": "linear_1", "mlp.2": "linear_2"}
    layers |= {"c": "prototype", "v": "key", "f": "value"}
    scalars = {"sim_alpha": "similarity_scale", "sim_beta": "similarity_shift"}
    for name, value in read_bin(original / "non_lora_trainables.bin").items():
        layer, _, last = name.removeprefix("base_model.model.model.mm_projector.").rpartition(".")
        if layer in layers:
            merged[f"model.multi_modal_projector.{layers[layer]}.{last}"] = value
        elif last in scalars:
            merged[f"model.multi_modal_projector.{scalars[last]}"] = value.flatten()
    return merged


def test_other_spellings_of_dora(parts: dict[str, Path], tmp_path: Path) -> None:
    """PEFT's own DoRA; and magnitudes among the other trained weights, where DoRA's LLaVA puts them."""
    original = original_adapter(tmp_path / "original", "dora", **parts)
    to_ours(original, tmp_path / "ours")
    expected = load_file(tmp_path / "ours" / "adapter_model.safetensors")
    tensors, others = read_bin(original / FILES[0]), read_bin(original / FILES[1])
    magnitudes = {name: tensors.pop(name) for name in list(tensors) if "weight_m_wdecomp" in name}

    moved = {name.replace("wdecomp.", "wdecomp.default."): value for name, value in magnitudes.items()}
    torch.save(tensors, original / FILES[0])
    torch.save(others | moved, original / FILES[1])
    to_ours(original, tmp_path / "moved")

    spelled = {
        name.replace("weight_m_wdecomp.weight", "lora_magnitude_vector"): value.flatten()
        for name, value in magnitudes.items()
    }
    torch.save(tensors | spelled, original / FILES[0])
    torch.save(others, original / FILES[1])
    config = json.loads((original / "adapter_config.json").read_text())
    (original / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "LORA", "use_dora": True}))
    to_ours(original, tmp_path / "peft")
    for folder in ("moved", "peft"):
        found = load_file(tmp_path / folder / "adapter_model.safetensors")
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("trainable", ["lora", "dora", "lora+vision", "projector"])
def test_what_we_trained_goes_there_and_back(trainable: str, parts: dict[str, Path], tmp_path: Path) -> None:
    named = {name: str(folder) for name, folder in parts.items()}
    args = VqaModelConfig(trainable=trainable, lora_r=2, lora_dropout=0.0, dtype="float32", **named)
    train_briefly(args, MIXED[1:], tmp_path / "trained", learning_rate=0.02, max_steps=2)
    to_original(tmp_path / "trained", tmp_path / "original")
    to_ours(tmp_path / "original", tmp_path / "ours", **({} if trainable != "projector" else named))
    before, after = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("trained", "ours"))
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    first, second = (
        [p["answer"] for p in answer_questions(*load_model(str(tmp_path / name)), MIXED, max_new_tokens=4)]
        for name in ("trained", "ours")
    )
    assert first == second


@pytest.mark.parametrize(("kind", "ours"), [("mlp", "mlp"), ("linear", "linear"), ("cluster", "prototype")])
def test_a_projector_by_itself(kind: str, ours: str, parts: dict[str, Path], tmp_path: Path) -> None:
    original = {f"model.mm_projector.{name}": value for name, value in original_projector(kind).items()}
    torch.save(original, tmp_path / "mm_projector.bin")
    named = {name: str(folder) for name, folder in parts.items()}
    to_ours(tmp_path / "mm_projector.bin", tmp_path / "ours", **named)
    model, _ = load_model(str(tmp_path / "ours"), merge=True)
    read = read_projector(tmp_path / "mm_projector.bin", model.config)
    assert all(torch.equal(model.state_dict()[f"model.multi_modal_projector.{n}"], value) for n, value in read.items())
    assert json.loads((tmp_path / "ours" / "assembly.json").read_text())["projector"] == ours
    to_original(tmp_path / "ours", tmp_path / "back")
    back = read_bin(tmp_path / "back" / "mm_projector.bin")
    assert back.keys() == original.keys()
    assert all(torch.equal(back[name], value) for name, value in original.items())
    to_ours(tmp_path / "back", tmp_path / "again", language_model=named["language_model"])  # its config.json says more


def test_a_projector_with_the_tokens_around_pictures(parts: dict[str, Path], tmp_path: Path) -> None:
    """As Dacon's solution was trained: all embeddings are saved, of which two rows are new."""
    projector = {f"model.mm_projector.{name}": value for name, value in original_projector("linear").items()}
    embeddings = {"model.embed_tokens.weight": torch.randn(ROWS + 3, HIDDEN)}
    torch.save(projector | embeddings, tmp_path / "mm_projector.bin")
    to_ours(tmp_path / "mm_projector.bin", tmp_path / "ours", **{name: str(folder) for name, folder in parts.items()})
    model, processor = load_model(str(tmp_path / "ours"), merge=True)
    ids = processor.tokenizer.convert_tokens_to_ids(["<im_start>", "<im_end>"])
    assert torch.equal(model.get_input_embeddings().weight[ids], embeddings["model.embed_tokens.weight"][-2:])
    assert "<im_start><image><im_end>" in processor.chat_template
    to_original(tmp_path / "ours", tmp_path / "back")
    back = read_bin(tmp_path / "back" / "mm_projector.bin")
    assert torch.equal(back.pop("model.embed_tokens.weight"), embeddings["model.embed_tokens.weight"][-2:])
    assert back.keys() == projector.keys()
    assert all(torch.equal(back[name], value) for name, value in projector.items())
    content = json.loads((tmp_path / "back" / "config.json").read_text())
    assert (content["mm_use_im_start_end"], content["vocab_size"]) == (True, ROWS)


def test_an_adapter_of_a_whole_model(tiny_llava: Path, parts: dict[str, Path], tmp_path: Path) -> None:
    projector = {f"model.mm_projector.{name}": value for name, value in original_projector("mlp").items()}
    torch.save(projector, tmp_path / "mm_projector.bin")
    to_ours(tmp_path / "mm_projector.bin", tmp_path / "ours", model_name_or_path=str(tiny_llava))
    model, _ = load_model(str(tmp_path / "ours"), merge=True)
    assert torch.equal(model.model.multi_modal_projector.linear_1.weight, projector["model.mm_projector.0.weight"])
    refused("--vision_tower is needed", to_original, tmp_path / "ours", tmp_path / "o", kind=ConfigError)
    to_original(tmp_path / "ours", tmp_path / "back", vision_tower="openai/clip-vit-large-patch14-336")
    content = json.loads((tmp_path / "back" / "config.json").read_text())
    assert (content["mm_vision_tower"], content["vocab_size"]) == ("openai/clip-vit-large-patch14-336", 512)


# What is refused, in one line


def refused(message: str, call: Any, *args: Any, kind: type[VqaError] = ModelError, **flags: Any) -> None:
    with pytest.raises(kind, match=message) as caught:
        call(*args, **flags)
    assert "\n" not in str(caught.value)
    assert not Path(args[1]).exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r": 8}, r"lora_A.weight is \[4, 64\], the model's is \[8, 64\]; use the language model and"),
        ({"target_modules": ["q_proj"]}, "has what the model has no place for: .*layers.0.mlp.* and 21 more"),
        ({"target_modules": ["out_proj"]}, "target_modules .* are not among q_proj, k_proj, v_proj, o_proj"),
        ({"target_modules": ".*q_proj"}, "target_modules .* are not among q_proj"),
        ({"peft_type": "IA3"}, "a IA3 with bias 'none'; LORA and DORA without"),
        ({"bias": "all"}, "a LORA with bias 'all'; LORA and DORA without"),
        ({"use_dora": True}, "lacks .*lora_magnitude_vector.weight, .* and 11 more; give all files"),
        ({"wdecompose_target_modules": ["q_proj"]}, "wdecompose_target_modules as set there has no counterpart"),
        ({"layers_to_transform": [0]}, "layers_to_transform as set there has no counterpart in the other layout"),
        ({"base_model_name_or_path": None}, "does not say what it was trained on; give --language_model and"),
    ],
)
def test_configurations_that_do_not_fit(change: Any, message: str, parts: dict[str, Path], tmp_path: Path) -> None:
    original = original_adapter(tmp_path / "original", "lora", **parts)
    config = json.loads((original / "adapter_config.json").read_text())
    (original / "adapter_config.json").write_text(json.dumps(config | change))
    kind = ConfigError if "base_model_name_or_path" in change else ModelError
    refused(message, to_ours, original, tmp_path / "o", kind=kind)


def test_half_an_adapter(parts: dict[str, Path], tmp_path: Path) -> None:
    original = original_adapter(tmp_path / "original", "sq", **parts)
    tensors, others = read_bin(original / FILES[0]), read_bin(original / FILES[1])
    torch.save(dict(list(tensors.items())[1:]), original / FILES[0])
    refused(r"lacks base_model.model.model.language_model.layers.0.*q_proj.lora_A.w", to_ours, original, tmp_path / "o")
    torch.save(tensors, original / FILES[0])
    torch.save(others | {"base_model.model.lm_head.weight": torch.ones(1)}, original / FILES[1])
    refused("no place for: base_model.model.lm_head.weight; give", to_ours, original, tmp_path / "o")
    torch.save({}, original / FILES[1])
    refused("holds no projector; give", to_ours, original, tmp_path / "o")
    (original / FILES[1]).unlink()
    refused("no non_lora_trainables.bin in .*; LLaVA's code writes it, with", to_ours, original, tmp_path / "o")
    torch.save(others, original / FILES[1])
    (original / FILES[2]).unlink()
    refused("no adapter_model.bin in .*Vit-lora; copy the adapter again", to_ours, original, tmp_path / "o")
    shutil.rmtree(original / "Vit-lora")
    (original / FILES[0]).write_bytes(b"\x80\x04cos\nsystem\n.")
    refused("adapter_model.bin cannot be read as tensors", to_ours, original, tmp_path / "o")
    (original / "adapter_config.json").write_text("{")
    refused("cannot be read as", to_ours, original, tmp_path / "o")


def test_dora_with_a_tower(parts: dict[str, Path], tmp_path: Path) -> None:
    original = original_adapter(tmp_path / "original", "sq", **parts)
    config = json.loads((original / "adapter_config.json").read_text())
    (original / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "DORA"}))
    refused("is DoRA and has a Vit-lora; an adapter here is one or the other", to_ours, original, tmp_path / "o")


def test_another_base(tmp_path: Path, parts: dict[str, Path], tiny_llava: Path) -> None:
    original = original_adapter(tmp_path / "original", "lora", **parts)
    other = str(save_language_model(tmp_path / "other", hidden=32))
    message = rf"linear_\d.\w+ is \[{HIDDEN}.*\], the model's is \[32.*\]; use the language model and the vision tower"
    refused(message, to_ours, original, tmp_path / "o", language_model=other)
    wide = str(save_vision_tower(tmp_path / "wide", width=16))
    refused(
        r"linear_1.weight is \[64, 32\], the model's is \[64, 16\]",
        to_ours,
        original,
        tmp_path / "o",
        vision_tower=wide,
    )
    refused("k_proj.lora_B.weight is .*32, 4.* the model's is .*64, 4", *whole(original, tmp_path, tiny_llava))
    refused(
        "--model_name_or_path is a whole LLaVA; leave it out",
        *whole(original, tmp_path, tiny_llava),
        kind=ConfigError,
        vision_tower=wide,
    )


def whole(original: Path, folder: Path, base: Path) -> Any:
    return (lambda *args, **flags: to_ours(*args, model_name_or_path=str(base), **flags), original, folder / "o")


def test_loading_an_original_says_what_to_do(both: tuple[str, Path, Path]) -> None:
    _, original, _ = both
    with pytest.raises(
        ModelError, match=r"(pickled adapter is not loaded|type 'DORA'); scripts/convert_checkpoint\.py"
    ):
        load_model(str(original))


def test_what_is_converted_already(both: tuple[str, Path, Path], tmp_path: Path) -> None:
    _, original, ours = both
    refused("is in our layout already; load_model and the recipes take it as it is", to_ours, ours, tmp_path / "o")
    refused("is in the originals' layout already; without --to original", to_original, original, tmp_path / "o")
    file = ours / "adapter_model.safetensors"
    refused("is a projector without its configuration; give the folder", to_original, file, tmp_path / "o")
    (tmp_path / "empty").mkdir()
    refused("no mm_projector.bin in .*empty; give the file of a projector", to_ours, tmp_path / "empty", tmp_path / "o")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_rslora": True}, "use_rslora as set there has no counterpart"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern as set there has no counterpart"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save as set there has no counterpart"),
    ],
)
def test_settings_that_the_originals_have_not(
    both: tuple[str, Path, Path], change: Any, message: str, tmp_path: Path
) -> None:
    _, _, ours = both
    shutil.copytree(ours, tmp_path / "changed")
    config = json.loads((ours / "adapter_config.json").read_text())
    (tmp_path / "changed" / "adapter_config.json").write_text(json.dumps(config | change))
    refused(message, to_original, tmp_path / "changed", tmp_path / "o")


def test_tokens_around_pictures_beside_lora(parts: dict[str, Path], tmp_path: Path) -> None:
    named = {name: str(folder) for name, folder in parts.items()}
    args = VqaModelConfig(trainable="lora", lora_r=2, mm_use_im_start_end=True, dtype="float32", **named)
    train_briefly(args, MIXED[1:], tmp_path / "trained", max_steps=1)
    refused("trainable_token_indices as set there has no", to_original, tmp_path / "trained", tmp_path / "o")
