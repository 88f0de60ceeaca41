"""Assembling: the whole does what its parts do, is the same each time, and mistakes are one line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from examples import MIXED, stock_answer
from parts import KINDS, PATCH, SIDE, language_model_tokenizer, save_language_model, save_vision_tower
from transformers import AutoModelForCausalLM, AutoTokenizer, CLIPVisionModel, LlavaForConditionalGeneration

from hf_llava_vqa.errors import ConfigError, ModelError
from hf_llava_vqa.generation import answer_questions
from hf_llava_vqa.models import load_model
from hf_llava_vqa.models.assembling import Assembly, AssemblyConfig, assemble, assembled_processor, read_assembly
from hf_llava_vqa.models.loading import training_model, training_processor


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_vision_tower(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_language_model(tmp_path_factory.mktemp("llama"))


def flags(language: Path, tower: Path, **changes: Any) -> AssemblyConfig:
    return AssemblyConfig(language_model=str(language), vision_tower=str(tower), dtype="float32", **changes)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_are_what_they_were(kind: str, tower: Path, tmp_path: Path) -> None:
    args = flags(save_language_model(tmp_path, kind), tower)
    model, processor = training_model(args).eval(), training_processor(args)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    words = theirs.config.vocab_size
    ids = processor.tokenizer("What is this?", return_tensors="pt")["input_ids"]
    assert (
        ids.tolist()
        == AutoTokenizer.from_pretrained(tmp_path)("What is this?", return_tensors="pt")["input_ids"].tolist()
    )
    torch.testing.assert_close(model(input_ids=ids).logits[..., :words], theirs(input_ids=ids).logits)
    pixels = torch.rand(1, 3, SIDE, SIDE)
    hidden = CLIPVisionModel.from_pretrained(tower)(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
    projected = model.model.multi_modal_projector(hidden)
    torch.testing.assert_close(model.get_image_features(pixels).pooler_output[0], projected[0])
    assert type(model) is LlavaForConditionalGeneration


@pytest.mark.parametrize("kind", KINDS)
def test_new_tokens_are_the_mean_of_the_old(kind: str, tower: Path, tmp_path: Path) -> None:
    args = flags(save_language_model(tmp_path, kind), tower)
    model, tokenizer = training_model(args), training_processor(args).tokenizer
    words = len(language_model_tokenizer())
    assert tokenizer.convert_tokens_to_ids(["<image>", "<pad>"]) == [words, words + 1]
    assert tokenizer.pad_token_id == words + 1 == model.config.text_config.pad_token_id
    assert model.config.image_token_id == words
    assert model.config.text_config.vocab_size % 64 == 0
    for weight in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
        assert len(weight) == model.config.text_config.vocab_size
        torch.testing.assert_close(weight[words:], weight[:words].mean(0).expand(len(weight) - words, -1))


@pytest.mark.parametrize("kind", KINDS)
def test_it_answers_as_generate_does_and_is_saved_like_any_other(kind: str, tower: Path, tmp_path: Path) -> None:
    args = flags(save_language_model(tmp_path / "language", kind), tower)
    model, processor = training_model(args).eval(), training_processor(args)
    answers = {p["id"]: p["answer"] for p in answer_questions(model, processor, MIXED, max_new_tokens=6)}
    for row in MIXED:
        for dialogue in row["dialogues"]:
            if dialogue["id"] in answers:
                ids, _ = stock_answer(model, processor, row, dialogue, 6)
                assert answers[dialogue["id"]] == processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
    for part in (model, processor):
        part.save_pretrained(tmp_path / "whole")
    again = answer_questions(*load_model(str(tmp_path / "whole")), MIXED, max_new_tokens=6)
    assert {p["id"]: p["answer"] for p in again} == answers


@pytest.mark.parametrize("projector", ["mlp", "linear", "prototype", "soft_prototype"])
def test_equal_assemblies_are_equal_models(projector: str, language: Path, tower: Path) -> None:
    assembly = Assembly(str(language), str(tower), projector, num_prototypes=3, prototype_iterations=1)
    processor = assembled_processor(assembly)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, same, other = (assemble(assembly, processor, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, same.state_dict()[name]) for name, value in first.state_dict().items())
    differing = {name for name, value in first.state_dict().items() if not torch.equal(value, other.state_dict()[name])}
    assert differing
    assert all("multi_modal_projector" in name for name in differing)
    if "prototype" in projector:
        assert (first.config.num_prototypes, first.config.prototype_iterations) == (3, 1)


def test_the_image_processor_is_the_towers(language: Path, tower: Path) -> None:
    processor = training_processor(flags(language, tower))
    assert processor.image_processor.do_pad
    assert processor.image_processor.crop_size == {"height": SIDE, "width": SIDE}
    assert processor.patch_size == PATCH


def test_every_part_has_the_type_asked_for_or_else_the_language_models(
    language: Path, tower: Path, tmp_path: Path
) -> None:
    shutil.copytree(language, tmp_path / "half")
    AutoModelForCausalLM.from_pretrained(language, dtype=torch.float16).save_pretrained(tmp_path / "half")
    args = flags(tmp_path / "half", tower)
    for dtype, expected in {"bfloat16": torch.bfloat16, "auto": torch.float16, None: torch.float16}.items():
        args.dtype = dtype
        assert {parameter.dtype for parameter in training_model(args).parameters()} == {expected}


def test_a_tower_without_its_text_encoder_is_the_same(language: Path, tower: Path, tmp_path: Path) -> None:
    CLIPVisionModel.from_pretrained(tower).save_pretrained(tmp_path)
    shutil.copy(tower / "preprocessor_config.json", tmp_path)
    whole, alone = (training_model(flags(language, place)).state_dict() for place in (tower, tmp_path))
    assert whole.keys() == alone.keys()
    assert all(torch.equal(value, alone[name]) for name, value in whole.items())


# What is refused, in one line


def refused(args: AssemblyConfig, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        training_processor(args)
    assert "\n" not in str(caught.value)


def test_parts_that_are_no_parts(language: Path, tower: Path, tiny_llava: Path, tmp_path: Path) -> None:
    refused(flags(tmp_path / "nowhere", tower), "cannot load '.*nowhere' as a part of a LLaVA")
    refused(flags(language, tmp_path), "cannot load .* as a part of a LLaVA")
    refused(flags(tiny_llava, tower), "is a LLaVA already; give it as --model_name_or_path")
    shutil.copytree(language, tmp_path / "mixed")
    shutil.copy(tower / "config.json", tmp_path / "mixed")
    refused(flags(tmp_path / "mixed", tower), "is a 'clip' model, not a language model such as lmsys/vicuna-7b-v1.5")
    shutil.copytree(tower, tmp_path / "both")
    shutil.copy(language / "config.json", tmp_path / "both")
    refused(flags(language, tmp_path / "both"), "is a 'llama' model, not a CLIP tower such as openai/clip-vit-large")


def test_a_tokenizer_that_ends_texts_otherwise(language: Path, tower: Path, tmp_path: Path) -> None:
    shutil.copytree(language, tmp_path / "copy")
    tokenizer = language_model_tokenizer()
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.save_pretrained(tmp_path / "copy")
    refused(flags(tmp_path / "copy", tower), r"ends texts with '<\|im_end\|>'; the templates need '</s>', as Llama")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"language_model": "a"}, "--language_model and --vision_tower make a LLaVA together"),
        ({"vision_tower": "b"}, "--language_model and --vision_tower make a LLaVA together"),
        (
            {"language_model": "a", "vision_tower": "b", "model_name_or_path": "c"},
            "--model_name_or_path is a whole LLaVA",
        ),
        (
            {"language_model": "a", "vision_tower": "b", "load_in_4bit": True},
            "--load_in_4bit and --load_in_8bit take a",
        ),
        (
            {"model_name_or_path": "c", "projector": "linear"},
            "--projector and --pretrained_projector are for a LLaVA of",
        ),
        ({"model_name_or_path": "c", "pretrained_projector": "d"}, "--projector and --pretrained_projector are for"),
        (
            {"language_model": "a", "vision_tower": "b", "num_prototypes": 0},
            "--num_prototypes is 0; it must be at least 1",
        ),
    ],
)
def test_flags_that_contradict_each_other(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AssemblyConfig(**changes)


def test_an_unknown_projector_and_a_broken_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown --projector 'mlp3'; use one of: mlp, linear, prototype"):
        Assembly("a", "b", "mlp3")
    file = tmp_path / "assembly.json"
    for content in ("{not json", "[]", json.dumps({"language_model": "a"})):
        file.write_text(content)
        with pytest.raises(ModelError, match=r"assembly\.json does not name a language model and a vision tower"):
            read_assembly(file)
