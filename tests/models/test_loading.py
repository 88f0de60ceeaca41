"""Loading: an adapter answers the same however it is loaded, and what is no LLaVA is refused in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from examples import MIXED, SIDE, build_outspoken_llava
from peft import PeftModel
from safetensors.torch import load_file, save_file
from short_training import train_briefly
from transformers import AutoModelForCausalLM, AutoProcessor, LlamaConfig, LlavaForConditionalGeneration, LlavaProcessor
from transformers.quantizers.quantizers_utils import should_convert_module
from transformers.utils import is_flash_attn_2_available, is_kernels_available
from trl import ModelConfig

from hf_llava_vqa.errors import ConfigError, ModelError
from hf_llava_vqa.generation import answer_questions
from hf_llava_vqa.models import load_model
from hf_llava_vqa.models.loading import NOT_QUANTISED, training_model, training_processor


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    build_outspoken_llava(folder)
    return folder


@pytest.fixture(scope="module", params=[False, True], ids=["lora", "dora"])
def adapter(base: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a short training with large steps leaves behind."""
    folder = tmp_path_factory.mktemp("adapter")
    args = ModelConfig(model_name_or_path=str(base), use_peft=True, lora_r=4, lora_dropout=0.0, use_dora=request.param)
    train_briefly(args, MIXED, folder, learning_rate=0.03, max_steps=3, gradient_checkpointing=False)
    return folder


def answers(model: Any, processor: LlavaProcessor) -> list[tuple[str, str]]:
    return [(p["id"], p["answer"]) for p in answer_questions(model, processor, MIXED, max_new_tokens=6)]


def test_an_adapter_answers_the_same_however_it_is_loaded(base: Path, adapter: Path, tmp_path: Path) -> None:
    loaded = load_model(str(adapter))
    expected = answers(*loaded)
    assert isinstance(loaded[0], PeftModel)
    assert expected != answers(*load_model(str(base)))  # the training changed something
    merged = load_model(str(adapter), merge=True)
    assert isinstance(merged[0], LlavaForConditionalGeneration)
    assert answers(*merged) == expected
    for part in merged:
        part.save_pretrained(tmp_path)
    assert answers(*load_model(str(tmp_path))) == expected
    stock = LlavaForConditionalGeneration.from_pretrained(adapter), AutoProcessor.from_pretrained(adapter)
    assert answers(*stock) == expected


@torch.no_grad()
def test_the_stock_classes_give_the_same_logits(adapter: Path) -> None:
    ours, processor = load_model(str(adapter))
    stock = LlavaForConditionalGeneration.from_pretrained(adapter).eval()
    ids = processor.tokenizer("What is this?", return_tensors="pt")["input_ids"]
    image = torch.tensor([[processor.image_token_id] * 4])
    inputs = {"input_ids": torch.cat([ids, image], 1), "pixel_values": torch.rand(1, 3, SIDE, SIDE)}
    torch.testing.assert_close(ours(**inputs).logits, stock(**inputs).logits)


def test_the_published_folder_holds_safetensors_and_json_only(adapter: Path) -> None:
    names = {path.name for path in adapter.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "processor_config.json", "chat_template.jinja"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]


def test_models_are_loaded_for_answering_and_for_training(base: Path) -> None:
    assert not load_model(str(base))[0].training
    assert load_model(str(base), dtype=torch.bfloat16)[0].dtype == torch.bfloat16
    model = training_model(ModelConfig(model_name_or_path=str(base), dtype="float32"))
    assert not any(p.requires_grad for p in model.model.vision_tower.parameters())
    assert all(p.requires_grad for p in model.model.language_model.parameters())


def test_nothing_but_the_language_model_is_quantised(base: Path) -> None:
    """By transformers' own rule of matching names; bitsandbytes is not needed for it."""
    model = training_model(ModelConfig(model_name_or_path=str(base), dtype="float32"))
    linears = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    quantised = [name for name in linears if should_convert_module(name, list(NOT_QUANTISED))]
    assert quantised == [name for name in linears if name.startswith("model.language_model.layers.")]
    assert quantised


def test_image_aspect_is_kept_or_replaced(base: Path) -> None:
    assert [
        load_model(str(base), image_aspect=aspect)[1].image_processor.do_pad for aspect in (None, "pad", "crop")
    ] == [True, True, False]
    with pytest.raises(ConfigError, match="unknown image_aspect 'stretch'; use one of: pad, crop"):
        load_model(str(base), image_aspect="stretch")


# What is refused, in one line


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the base, changed: `file={"dotted.key": value}`."""

    def changed(name: str, changes: dict[str, Any]) -> Path:
        shutil.copytree(base, tmp_path / "copy")
        path = tmp_path / "copy" / name
        content = json.loads(path.read_text())
        for key, value in changes.items():
            *parents, last = key.split(".")
            inner = content
            for parent in parents:
                inner = inner[parent]
            inner[last] = value
        path.write_text(json.dumps(content))
        return path.parent

    return changed


def refused(path: str | Path, message: str) -> None:
    """Every way of loading refuses `path` with one line before it reads weights."""
    for load in (load_model, lambda name: training_processor(ModelConfig(model_name_or_path=name))):
        with pytest.raises(ModelError, match=message) as caught:
            load(str(path))
        assert "\n" not in str(caught.value)


def test_a_missing_folder(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "cannot load a model from '.*nowhere': .*; check the spelling of the folder")


def test_an_empty_folder(tmp_path: Path) -> None:
    refused(tmp_path, "cannot load a model from .*; point to a folder written by save_pretrained")


def test_another_kind_of_model(tmp_path: Path) -> None:
    sizes = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "vocab_size": 9,
    }
    AutoModelForCausalLM.from_config(LlamaConfig(**sizes)).save_pretrained(tmp_path)
    refused(tmp_path, "is a 'llama' model, not a LLaVA; use one such as llava-hf/llava-1.5-7b-hf")


def test_a_broken_configuration(base: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{not json")
    refused(tmp_path, "cannot load a model from")


def test_a_model_without_its_processor(base: Path, tmp_path: Path) -> None:
    shutil.copy(base / "config.json", tmp_path)
    refused(tmp_path, "cannot load a processor from|holds a .* not a LlavaProcessor")


def test_a_tokenizer_of_another_model(copy: Callable[..., Path]) -> None:
    refused(copy("config.json", {"image_token_index": 7}), "gives <image> the id .*, the model expects 7; use the proc")


def test_an_image_processor_of_another_model(copy: Callable[..., Path]) -> None:
    changes = {"image_processor.crop_size": {"height": 42, "width": 42}}
    refused(copy("processor_config.json", changes), "pictures of 42x42, the tower reads 28x28; use the")


def test_an_adapter_whose_base_is_gone(adapter: Path, tmp_path: Path) -> None:
    shutil.copytree(adapter, tmp_path / "moved")
    config = tmp_path / "moved" / "adapter_config.json"
    for name, message in ((str(tmp_path / "gone"), "cannot load a model from '.*gone'"), (None, "names no base model")):
        config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": name}))
        with pytest.raises(ModelError, match=message):
            load_model(str(tmp_path / "moved"))


@pytest.mark.skipif(is_flash_attn_2_available() or is_kernels_available(), reason="the package is installed")
def test_a_flag_whose_package_is_missing(base: Path) -> None:
    with pytest.raises(ModelError, match=r"package for FlashAttention2 .* install it, or leave out the flag") as caught:
        training_model(ModelConfig(model_name_or_path=str(base), attn_implementation="flash_attention_2"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (
            lambda name: "lora_" in name,
            "no weights of multi_modal_projector, which was trained in full; copy the adapter",
        ),
        (None, "no adapter_model.safetensors beside adapter_config.json; copy the adapter again, with all its files"),
    ],
)
def test_an_adapter_without_its_projector(
    adapter: Path, tmp_path: Path, keep: Callable[[str], bool] | None, message: str
) -> None:
    shutil.copytree(adapter, tmp_path / "copy")
    file = tmp_path / "copy" / "adapter_model.safetensors"
    tensors = load_file(file)
    file.unlink()
    if keep is not None:
        save_file({name: tensor for name, tensor in tensors.items() if keep(name)}, file)
    with pytest.raises(ModelError, match=message):
        load_model(str(tmp_path / "copy"))


def test_an_adapter_that_was_copied_in_part(adapter: Path, tmp_path: Path) -> None:
    shutil.copytree(adapter, tmp_path / "copy")
    file = tmp_path / "copy" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ModelError, match=r"adapter_model.safetensors: .*; copy the adapter again, with all its files"):
        load_model(str(tmp_path / "copy"))


def test_training_from_an_adapter(adapter: Path) -> None:
    with pytest.raises(ModelError, match="is an adapter; train from its base, or merge it first"):
        training_processor(ModelConfig(model_name_or_path=str(adapter)))
