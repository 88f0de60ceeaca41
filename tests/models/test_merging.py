"""Merging: what comes out answers like the adapter, without PEFT, and what is no adapter is refused."""

from pathlib import Path

import pytest
import torch
from examples import MIXED, build_outspoken_llava
from parts import save_language_model, save_vision_tower
from peft import get_peft_model
from safetensors.torch import load_file
from short_training import train_briefly
from transformers import LlavaForConditionalGeneration

from hf_llava_vqa.errors import ConfigError, ModelError
from hf_llava_vqa.generation import answer_questions
from hf_llava_vqa.models import load_model
from hf_llava_vqa.models.adapters import lora_config
from hf_llava_vqa.models.loading import training_model
from hf_llava_vqa.models.merging import merge_adapter
from hf_llava_vqa.models.trainable import VqaModelConfig
from hf_llava_vqa.reports.evaluation import role_of
from hf_llava_vqa.training.training_recipe import RECIPE_FILE


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    build_outspoken_llava(folder)
    return folder


@pytest.fixture(scope="module", params=["projector", "lora", "dora", "lora+vision"])
def adapter(base: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter whose every trained weight was moved, with the processor and a recipe beside it."""
    folder = tmp_path_factory.mktemp("adapter")
    model, processor = load_model(str(base))
    model = get_peft_model(model, lora_config(VqaModelConfig(trainable=request.param, lora_r=4, vision_lora_r=2)))
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = 1.5 * parameter.data + 0.05 * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / RECIPE_FILE).write_text("{}")
    return folder


def test_the_merged_model_answers_like_the_adapter(base: Path, adapter: Path, tmp_path: Path) -> None:
    merge_adapter(str(adapter), tmp_path / "merged", dtype="float32")
    expected = answers(*load_model(str(adapter)))
    merged, processor = load_model(str(tmp_path / "merged"))
    assert type(merged) is LlavaForConditionalGeneration
    found = answers(merged, processor)
    assert [text for text, _ in found] == [text for text, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-3)
    assert expected != answers(*load_model(str(base)))
    assert role_of(str(tmp_path / "merged")) == "merged"


def test_weights_are_rounded_once_to_the_wanted_type(adapter: Path, tmp_path: Path) -> None:
    for dtype in ("float32", "bfloat16"):
        merge_adapter(str(adapter), tmp_path / dtype, dtype=dtype)
    exact, rounded = (load_model(str(tmp_path / dtype))[0] for dtype in ("float32", "bfloat16"))
    assert rounded.dtype == torch.bfloat16
    for one, other in zip(exact.parameters(), rounded.parameters(), strict=True):
        assert torch.equal(one.to(torch.bfloat16), other)


def test_what_cannot_be_merged_is_refused(base: Path, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no adapter, so there is nothing to merge"):
        merge_adapter(str(base), tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="exists already; choose another folder"):
        merge_adapter(str(adapter), tmp_path)


def test_a_pretrained_projector_becomes_a_whole_model_with_its_parts(tmp_path: Path) -> None:
    """What ZeRO-3 begins the second stage with."""
    parts = {"language_model": str(save_language_model(tmp_path / "language"))}
    parts |= {"vision_tower": str(save_vision_tower(tmp_path / "tower")), "projector": "linear", "dtype": "float32"}
    train_briefly(VqaModelConfig(trainable="projector", **parts), MIXED[1:2], tmp_path / "run", max_steps=1)
    merge_adapter(str(tmp_path / "run"), tmp_path / "whole", dtype="float32")
    assert answers(*load_model(str(tmp_path / "whole"))) == answers(*load_model(str(tmp_path / "run")))
    begun = training_model(VqaModelConfig(model_name_or_path=str(tmp_path / "whole"), dtype="float32"))
    projector = load_file(tmp_path / "run" / "adapter_model.safetensors")
    prefix = "base_model.model.model.multi_modal_projector."
    for name, value in begun.model.multi_modal_projector.state_dict().items():
        assert torch.equal(value, projector[prefix + name])


def answers(model, processor) -> list[tuple[str, float]]:
    return [(p["answer"], p["confidence"]) for p in answer_questions(model, processor, MIXED, max_new_tokens=6)]
