"""Whole models: bit-equal after both ways, whatever files they come in; what is not whole or fits not is refused.

That the result gives the logits, gradients and answers which LLaVA's own code recorded, `test_parity` shows.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from originals import GOLDEN, TOWER, original_model, original_tensors
from parts import save_language_model, save_vision_tower
from safetensors.torch import load_file, save_file
from torch import Tensor

from hf_llava_vqa.errors import ConfigError, ModelError, VqaError
from hf_llava_vqa.models import load_model
from hf_llava_vqa.models.assembling import Assembly, assemble, assembled_processor
from hf_llava_vqa.models.conversion import to_original, to_ours

ROWS = 2000


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    to_ours(original_model(folder / "original"), folder / "ours", vision_tower=str(TOWER))
    return folder / "ours"


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
        assert found[name].dtype == value.dtype, name


def test_both_ways_give_the_same_bits(converted: Path, tmp_path: Path) -> None:
    to_original(converted, tmp_path / "back", vision_tower="clip-tiny")
    assert_equal(load_file(tmp_path / "back" / "model.safetensors"), original_tensors())
    before = json.loads((GOLDEN / "tiny_model" / "config.json").read_text())
    after = json.loads((tmp_path / "back" / "config.json").read_text())
    same = before.keys() & after.keys() - {"transformers_version"}
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    assert {"mm_projector_type", "mm_hidden_size", "rope_theta", "vocab_size", "num_attention_heads"} <= same


def test_a_model_saved_by_transformers_goes_back_too(converted: Path, tmp_path: Path) -> None:
    """`save_pretrained` spells names in its own way."""
    for part in load_model(str(converted)):
        part.save_pretrained(tmp_path / "saved")
    to_original(tmp_path / "saved", tmp_path / "back", vision_tower="clip-tiny")
    assert_equal(load_file(tmp_path / "back" / "model.safetensors"), original_tensors())


def test_pickled_shards_and_a_tower_from_elsewhere(converted: Path, tmp_path: Path) -> None:
    expected = load_file(converted / "model.safetensors")
    to_ours(original_model(tmp_path / "shards", pickled=True), tmp_path / "ours", vision_tower=str(TOWER))
    assert_equal(load_file(tmp_path / "ours" / "model.safetensors"), expected)
    to_ours(original_model(tmp_path / "bare", tower=False), tmp_path / "with tower", vision_tower=str(TOWER))
    assert_equal(load_file(tmp_path / "with tower" / "model.safetensors"), expected)


def test_the_folder_is_complete(converted: Path) -> None:
    model, processor = load_model(str(converted))
    assert (model.config.image_token_id, processor.tokenizer.pad_token_id) == (ROWS, ROWS + 1)
    assert model.dtype == torch.float32
    assert len(model.lm_head.weight) == 2048
    original = original_tensors()["lm_head.weight"]
    assert torch.equal(model.lm_head.weight[:ROWS], original)
    torch.testing.assert_close(model.lm_head.weight[ROWS:], original.mean(0).expand(48, -1))
    assert processor.image_processor.do_pad
    assert model.config.text_config.rms_norm_eps == 1e-5
    assert model.generation_config.eos_token_id == 2


def test_16_bits_stay_16_bits(tmp_path: Path) -> None:
    folder = original_model(tmp_path / "original")
    halves = {name: value.half() for name, value in original_tensors().items()}
    save_file(halves, folder / "model.safetensors")
    to_ours(folder, tmp_path / "ours", vision_tower=str(TOWER))
    assert load_model(str(tmp_path / "ours"))[0].dtype == torch.float16
    to_original(tmp_path / "ours", tmp_path / "back", vision_tower="clip-tiny")
    assert_equal(load_file(tmp_path / "back" / "model.safetensors"), halves)


def test_stretched_positions(tmp_path: Path) -> None:
    scaling = {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}}
    to_ours(changed(tmp_path / "original", **scaling), tmp_path / "ours", vision_tower=str(TOWER))
    rope = load_model(str(tmp_path / "ours"))[0].config.text_config.rope_parameters
    assert (rope["rope_theta"], rope["rope_type"], rope["factor"]) == (5e5, "linear", 2.0)
    to_original(tmp_path / "ours", tmp_path / "back", vision_tower="clip-tiny")
    after = json.loads((tmp_path / "back" / "config.json").read_text())
    assert {name: after[name] for name in scaling} == scaling


def test_sq_llavas_projector_in_a_whole_model(tmp_path: Path) -> None:
    cluster = load_file(GOLDEN / "cluster_projector" / "cluster_n16.safetensors")
    others = {name: value for name, value in original_tensors().items() if ".mm_projector." not in name}
    folder = changed(tmp_path / "original", lambda _: others | cluster, mm_projector_type="cluster", model_type="llava")
    to_ours(folder, tmp_path / "ours", vision_tower=str(TOWER))
    model, _ = load_model(str(tmp_path / "ours"))
    assert type(model).__name__ == "LlavaPrototypeForConditionalGeneration"
    assert torch.equal(model.model.multi_modal_projector.key.weight, cluster["model.mm_projector.v.weight"])
    to_original(tmp_path / "ours", tmp_path / "back", vision_tower="clip-tiny")
    unused = {"model.mm_projector.ln_1.weight": torch.ones(32), "model.mm_projector.ln_1.bias": torch.zeros(32)}
    assert_equal(load_file(tmp_path / "back" / "model.safetensors"), others | cluster | unused)


# What is refused, in one line


def refused(
    message: str, call: Callable[..., None], *args: Any, kind: type[VqaError] = ModelError, **flags: Any
) -> None:
    with pytest.raises(kind, match=message) as caught:
        call(*args, **flags)
    assert "\n" not in str(caught.value)
    assert not Path(args[1]).exists() or (Path(args[1]) / "there before").exists()


def changed(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict, **config: Any) -> Path:
    """The golden model with other tensors, or another configuration."""
    original_model(folder)
    save_file(change(original_tensors()), folder / "model.safetensors")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | config))
    return folder


def without(*names: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {name: value for name, value in tensors.items() if name not in names}


KEY = "model.layers.1.self_attn.k_proj.weight"
POSITIONS = "model.vision_tower.vision_tower.vision_model.embeddings.position_embedding.weight"


@pytest.mark.parametrize(
    ("change", "config", "message"),
    [
        (without(KEY), {}, rf"original lacks {KEY}; give all files of the checkpoint"),
        (without(POSITIONS), {}, rf"original lacks {POSITIONS}; give"),
        (
            lambda t: t | {"model.image_newline": torch.ones(48)},
            {},
            "has what the model has no place for: model.image_n",
        ),
        (dict, {"num_hidden_layers": 1}, r"no place for: model.layers.1.input_layernorm.weight, .* and 6 more; give"),
        (dict, {"hidden_size": 96}, r"linear_1.\w+ is \[48.*\], the model's is \[96.*\]; use the language model"),
        (dict, {"intermediate_size": 64}, r"down_proj.weight is \[48, 96\], the model's is \[48, 64\]; use the lang"),
        (
            without("model.mm_projector.2.bias"),
            {},
            "holds a projector of linear_1.bias, linear_1.weight, linear_2.weigh",
        ),
        (dict, {"mm_projector_type": "linear"}, "holds a projector of linear_1.* choose the --projector it was made"),
        (
            dict,
            {"mm_projector_type": "identity"},
            "no projector 'identity' here; there are mlp2x_gelu, linear, cluster",
        ),
        (
            dict,
            {"image_aspect_ratio": "anyres"},
            "image_aspect_ratio 'anyres' is not LLaVA-1.5's; there are pad, square",
        ),
        (dict, {"mm_vision_select_layer": -1}, "features 'patch' of layer -1 are read; here it is 'patch' of -2"),
        (dict, {"model_type": "llava_mpt"}, "model_type 'llava_mpt' is not among llava, llava_llama, llava_mistral"),
        (
            dict,
            {"vocab_size": 1990},
            "the tokenizer has 2000 tokens, the model rows for 1990; put the tokenizer beside",
        ),
    ],
)
def test_half_a_model_and_another_kind(change: Any, config: Any, message: str, tmp_path: Path) -> None:
    refused(message, to_ours, changed(tmp_path / "original", change, **config), tmp_path / "o", vision_tower=str(TOWER))


def test_another_tower(tmp_path: Path) -> None:
    tower = str(save_vision_tower(tmp_path / "tower"))
    message = (
        r"position_embedding.weight is \[17, 32\], the model's is \[5, 32\]; use the language model and the vision"
    )
    refused(message, to_ours, original_model(tmp_path / "original"), tmp_path / "o", vision_tower=tower)
    wide = str(save_vision_tower(tmp_path / "wide", width=16))
    message = r"linear_1.weight is \[48, 32\], the model's is \[48, 16\]; use the language model and the vision tower"
    refused(message, to_ours, original_model(tmp_path / "bare", tower=False), tmp_path / "o", vision_tower=wide)
    refused("cannot load 'clip-tiny' as a part of a LLaVA", to_ours, tmp_path / "bare", tmp_path / "o")


def test_files_that_are_gone_or_hold_code(tmp_path: Path) -> None:
    folder = original_model(tmp_path / "original", pickled=True)
    shard = folder / "pytorch_model-00002-of-00002.bin"
    torch.save({"lm_head.weight": print}, shard)
    refused(
        "00002.bin cannot be read as tensors: Weights only", to_ours, folder, tmp_path / "o", vision_tower=str(TOWER)
    )
    torch.save([torch.ones(1)], shard)
    refused("cannot be read as tensors: it holds some", to_ours, folder, tmp_path / "o", vision_tower=str(TOWER))
    shard.unlink()
    refused("no .*00002.bin, which pytorch_model.bin.index.json names; copy", to_ours, folder, tmp_path / "o")
    (folder / "pytorch_model.bin.index.json").write_text("[]")
    refused("index.json does not say where weights are; copy", to_ours, folder, tmp_path / "o")
    refused("no .*nowhere; download a repository first: hf download", to_ours, tmp_path / "nowhere", tmp_path / "o")


def test_what_is_converted_already(converted: Path, tiny_llava: Path, tmp_path: Path) -> None:
    for ours in (converted, tiny_llava):
        refused("is in our layout already; load_model and the recipes take it as it is", to_ours, ours, tmp_path / "o")
    original = original_model(tmp_path / "original")
    refused("is in the originals' layout already; without --to original", to_original, original, tmp_path / "o")
    refused("is a 'llama' model, not a LLaVA", to_ours, changed_type(tmp_path / "llama"), tmp_path / "o")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "there before").touch()
    message = "taken exists already; choose another folder for what is converted"
    refused(message, to_ours, original, tmp_path / "taken", kind=ConfigError)
    refused(message, to_original, converted, tmp_path / "taken", kind=ConfigError)


def changed_type(folder: Path) -> Path:
    original_model(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return folder


@pytest.mark.parametrize("model_type", ["llava", "llava_llama"])
def test_loading_an_original_says_what_to_do(model_type: str, tmp_path: Path) -> None:
    folder = changed(tmp_path / "original", model_type=model_type)
    with pytest.raises(ModelError, match=r"has the layout of LLaVA's own code; scripts/convert_checkpoint\.py conv"):
        load_model(str(folder))


def test_flags_that_do_not_go_together(converted: Path, tmp_path: Path) -> None:
    original, out = original_model(tmp_path / "original"), tmp_path / "o"
    message = "is a whole model; leave out --model_name_or_path and --language_model"
    refused(message, to_ours, original, out, kind=ConfigError, language_model="a")
    refused("--vision_tower is needed: the CLIP that", to_original, converted, out, kind=ConfigError)


def test_parts_that_the_originals_have_not(tmp_path: Path) -> None:
    language, tower = save_language_model(tmp_path / "qwen", "qwen2"), save_vision_tower(tmp_path / "tower")
    for kind, folder in (("mlp", language), ("soft_prototype", save_language_model(tmp_path / "llama"))):
        assembly = Assembly(str(folder), str(tower), kind)
        processor = assembled_processor(assembly)
        for part in (assemble(assembly, processor), processor):
            part.save_pretrained(tmp_path / kind)
        message = (
            rf"{kind}: LLaVA's own code has no '.*' language model with a projector '{kind}'; it has llama, mistral"
        )
        refused(message, to_original, tmp_path / kind, tmp_path / "o", vision_tower="clip-tiny")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vision_feature_layer": -1}, "vision_feature_layer is -1; LLaVA's own code computes with -2 only"),
        (
            {"projector_hidden_act": "relu"},
            "projector_hidden_act is 'relu'; LLaVA's own code computes with 'gelu' only",
        ),
        (
            {"model_type": "llava_prototype", "projector_hidden_act": "prototype", "num_prototypes": 8},
            "_prototypes is 8;",
        ),
    ],
)
def test_settings_that_the_originals_have_not(converted: Path, change: Any, message: str, tmp_path: Path) -> None:
    shutil.copytree(converted, tmp_path / "changed")
    content = json.loads((converted / "config.json").read_text())
    (tmp_path / "changed" / "config.json").write_text(json.dumps(content | change))
    refused(message, to_original, tmp_path / "changed", tmp_path / "o", vision_tower="clip-tiny")


def test_tokens_that_the_originals_have_no_place_for(converted: Path, tmp_path: Path) -> None:
    model, processor = load_model(str(converted))
    processor.tokenizer.add_tokens(["<im_start>", "<im_end>"], special_tokens=True)
    for part in (model, processor):
        part.save_pretrained(tmp_path / "framed")
    message = "the tokens <im_end>, <im_start> come behind <image>, where the original layout has none"
    refused(message, to_original, tmp_path / "framed", tmp_path / "o", vision_tower="clip-tiny")
