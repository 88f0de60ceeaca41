"""A projector trained by itself: from assembled parts to a folder that holds it alone, and back."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from examples import MIXED
from parts import save_language_model, save_vision_tower
from safetensors.torch import load_file
from short_training import train_briefly
from transformers import LlavaProcessor

from hf_llava_vqa import prompts
from hf_llava_vqa.errors import ModelError
from hf_llava_vqa.generation import answer_questions
from hf_llava_vqa.generation.questions import prompt_trees
from hf_llava_vqa.models import load_model
from hf_llava_vqa.models.assembling import AssemblyConfig
from hf_llava_vqa.models.loading import training_model, training_processor
from hf_llava_vqa.models.projectors import PROJECTORS
from hf_llava_vqa.models.projectors.files import projector_shapes
from hf_llava_vqa.models.trainable import VqaModelConfig


@pytest.fixture(scope="module", params=PROJECTORS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[AssemblyConfig, Path]:
    """The flags and the folder of a short run."""
    folder = tmp_path_factory.mktemp("run")
    args = VqaModelConfig(
        trainable="projector",
        language_model=str(save_language_model(folder / "language")),
        vision_tower=str(save_vision_tower(folder / "tower")),
        projector=request.param,
        num_prototypes=3,
        dtype="float32",
    )
    train(args, folder / "adapter")
    return args, folder / "adapter"


def train(args: VqaModelConfig, output: Path) -> None:
    settings = {"per_device_train_batch_size": 2, "save_strategy": "steps", "save_steps": 6}
    train_briefly(args, MIXED[1:], output, learning_rate=0.02, max_steps=6, **settings)


def answers(model: Any, processor: LlavaProcessor) -> list[tuple[str, str]]:
    return [(p["id"], p["answer"]) for p in answer_questions(model, processor, MIXED, max_new_tokens=6)]


def test_the_folder_holds_the_projector_alone(trained: tuple[AssemblyConfig, Path]) -> None:
    args, adapter = trained
    shapes = projector_shapes(training_model(args).config)
    for folder in (adapter, adapter / "checkpoint-6"):
        tensors = load_file(folder / "adapter_model.safetensors")
        assert {name.rpartition("multi_modal_projector.")[2]: value.shape for name, value in tensors.items()} == shapes
        assert "from hf_llava_vqa import load_model" in (folder / "README.md").read_text()
        assert json.loads((folder / "assembly.json").read_text())["projector"] == args.projector


def test_it_is_loaded_with_the_parts_it_was_trained_on(trained: tuple[AssemblyConfig, Path], tmp_path: Path) -> None:
    args, adapter = trained
    expected = answers(*load_model(str(adapter)))
    assert expected != answers(training_model(args).eval(), training_processor(args))
    merged = load_model(str(adapter), merge=True)
    assert answers(*merged) == expected
    for part in merged:
        part.save_pretrained(tmp_path)
    assert answers(*load_model(str(tmp_path))) == expected


def test_a_model_begins_with_it_bit_for_bit(trained: tuple[AssemblyConfig, Path]) -> None:
    args, adapter = trained
    merged = load_model(str(adapter), merge=True)[0].state_dict()
    args.pretrained_projector = str(adapter)
    begun = training_model(args).state_dict()
    args.pretrained_projector = None
    assert merged.keys() == begun.keys()
    assert all(torch.equal(value, begun[name]) for name, value in merged.items())


def test_parts_that_are_gone_are_named(trained: tuple[AssemblyConfig, Path], tmp_path: Path) -> None:
    _, adapter = trained
    for file in (*adapter.glob("*.json"), *adapter.glob("*.safetensors")):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "chat_template.jinja").write_bytes((adapter / "chat_template.jinja").read_bytes())
    assembly = json.loads((tmp_path / "assembly.json").read_text())
    (tmp_path / "assembly.json").write_text(json.dumps(assembly | {"language_model": str(tmp_path / "gone")}))
    with pytest.raises(ModelError, match=r"cannot load '.*gone' as a part of a LLaVA"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("place", ["parts", "whole"])
@pytest.mark.parametrize("trainable", ["projector", "lora"])
def test_tokens_around_pictures_are_trained_with_it(
    place: str, trainable: str, tiny_llava: Path, tmp_path: Path
) -> None:
    base = {"model_name_or_path": str(spacious(tiny_llava, tmp_path / "whole"))}
    if place == "parts":
        language, tower = save_language_model(tmp_path / "language"), save_vision_tower(tmp_path / "tower")
        base = {"language_model": str(language), "vision_tower": str(tower)}
    args = VqaModelConfig(trainable=trainable, mm_use_im_start_end=True, dtype="float32", lora_r=4, **base)
    train(args, tmp_path / "adapter")

    model, processor = load_model(str(tmp_path / "adapter"), merge=True)
    ids = processor.tokenizer.convert_tokens_to_ids(list(prompts.FRAME))
    before = training_model(args).get_input_embeddings().weight
    changed = (model.get_input_embeddings().weight != before).any(1).nonzero().flatten()
    assert changed.tolist() == sorted(ids)
    (one,) = prompt_trees(processor, MIXED[1:2], template="v1", instruction=None, max_branches=8)
    assert [one.row.input_ids.tolist().count(token) for token in ids] == [1, 1]
    expected = answers(model, processor)
    assert expected == answers(*load_model(str(tmp_path / "adapter")))
    for part in (model, processor):
        part.save_pretrained(tmp_path / "merged")
    assert expected == answers(*load_model(str(tmp_path / "merged")))


def spacious(folder: Path, place: Path) -> Path:
    """A model whose vocabulary has rows to spare, as those of the Hub."""
    model, processor = load_model(str(folder))
    model.resize_token_embeddings(len(processor.tokenizer) + 10)
    for part in (model, processor):
        part.save_pretrained(place)
    return place


def test_a_vocabulary_without_rows_to_spare_is_refused(tiny_llava: Path) -> None:
    args = VqaModelConfig(trainable="projector", mm_use_im_start_end=True, model_name_or_path=str(tiny_llava))
    with pytest.raises(ModelError, match=r"--mm_use_im_start_end: the vocabulary of .* has no two rows to spare"):
        training_processor(args)
