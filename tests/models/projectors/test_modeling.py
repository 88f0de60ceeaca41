"""LLaVAs with another projector go every way that the stock one goes, and the stock class refuses them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from examples import MIXED, SIDE, build_outspoken_llava, stock_answer
from peft import PeftModel
from short_training import train_briefly
from transformers import AutoModel, AutoModelForImageTextToText, LlavaForConditionalGeneration, LlavaProcessor
from trl import ModelConfig

from hf_llava_vqa.generation import answer_questions
from hf_llava_vqa.models import load_model
from hf_llava_vqa.models.loading import load_processor
from hf_llava_vqa.models.projectors import PROJECTORS

KINDS = [kind for kind in PROJECTORS if kind != "mlp"]
SIZES: dict[str, Any] = {"prototype": {"num_prototypes": 3}, "soft_prototype": {"num_prototypes": 3}}


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stock")
    build_outspoken_llava(folder)
    return folder


@pytest.fixture(scope="module", params=KINDS)
def base(stock: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tower and language model of the stock one, with a projector whose pictures matter."""
    folder = tmp_path_factory.mktemp("base")
    llava = LlavaForConditionalGeneration.from_pretrained(stock)
    parts = {name: getattr(llava.config, name) for name in ("vision_config", "text_config", "image_token_index")}
    config = PROJECTORS[request.param](**parts, image_seq_length=4, **SIZES.get(request.param, {}))
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config)
    model.model.vision_tower, model.model.language_model = llava.model.vision_tower, llava.model.language_model
    model.lm_head = llava.lm_head
    for parameter in model.model.multi_modal_projector.parameters():
        parameter.data *= 5
    model.generation_config = llava.generation_config
    model.save_pretrained(folder)
    load_processor(str(stock)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a short training with large steps leaves behind."""
    folder = tmp_path_factory.mktemp("adapter")
    args = ModelConfig(model_name_or_path=str(base), use_peft=True, lora_r=4, lora_dropout=0.0)
    trainer = train_briefly(args, MIXED, folder, learning_rate=0.01, max_steps=8)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]
    return folder


def inputs(processor: LlavaProcessor) -> dict[str, torch.Tensor]:
    ids = processor.tokenizer("What is this?", return_tensors="pt")["input_ids"]
    image = torch.tensor([[processor.image_token_id] * 4])
    pixels = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    return {"input_ids": torch.cat([ids, image, ids], 1), "pixel_values": pixels}


def answers(model: Any, processor: LlavaProcessor) -> list[tuple[str, str]]:
    return [(p["id"], p["answer"]) for p in answer_questions(model, processor, MIXED, max_new_tokens=6)]


@torch.no_grad()
def test_saved_and_loaded_it_gives_the_same_logits(base: Path, tmp_path: Path) -> None:
    model, processor = load_model(str(base))
    expected = model(**inputs(processor)).logits
    model.save_pretrained(tmp_path)
    for load in (AutoModelForImageTextToText, type(model)):
        again, report = load.from_pretrained(tmp_path, output_loading_info=True)
        assert not any(report.values())
        assert type(again) is type(model)
        assert torch.equal(again.eval()(**inputs(processor)).logits, expected)
    assert type(AutoModel.from_pretrained(base)) is type(model.model)


def test_nothing_but_the_projector_differs_from_the_stock_model(base: Path, stock: Path) -> None:
    ours, theirs = (load_model(str(folder))[0].state_dict() for folder in (base, stock))
    differing = {name for name in ours.keys() | theirs.keys() if name not in ours or name not in theirs}
    assert all(name.startswith("model.multi_modal_projector.") for name in differing)
    shared = [name for name in ours.keys() & theirs.keys() if "multi_modal_projector" not in name]
    assert all(torch.equal(ours[name], theirs[name]) for name in shared)


def test_the_image_once_engine_answers_as_generate_does(base: Path) -> None:
    model, processor = load_model(str(base))
    by_id = dict(answers(model, processor))
    assert len(set(by_id.values())) > 1
    for row in MIXED:
        for dialogue in row["dialogues"]:
            if len(dialogue["turns"]) % 2:
                ids, _ = stock_answer(model, processor, row, dialogue, 6)
                assert by_id[dialogue["id"]] == processor.tokenizer.decode(ids, skip_special_tokens=True).strip()


def test_an_adapter_answers_the_same_loaded_merged_and_saved_again(base: Path, adapter: Path, tmp_path: Path) -> None:
    loaded = load_model(str(adapter))
    expected = answers(*loaded)
    assert isinstance(loaded[0], PeftModel)
    assert expected != answers(*load_model(str(base)))
    trained, before = loaded[0].get_base_model().model.multi_modal_projector, load_model(str(base))[0]
    after = trained.modules_to_save["default"].state_dict()
    changed = [not torch.equal(after[n], v) for n, v in before.model.multi_modal_projector.state_dict().items()]
    assert all(changed)
    merged = load_model(str(adapter), merge=True)
    assert type(merged[0]) is type(before)
    assert answers(*merged) == expected
    for part in merged:
        part.save_pretrained(tmp_path)
    assert answers(*load_model(str(tmp_path))) == expected


def test_the_stock_class_refuses_it(base: Path, adapter: Path) -> None:
    for folder in (base, adapter):
        with pytest.raises(KeyError, match=r"one_linear|prototype"):
            LlavaForConditionalGeneration.from_pretrained(folder)


def test_the_card_says_how_it_is_loaded(adapter: Path) -> None:
    card = (adapter / "README.md").read_text()
    assert "from hf_llava_vqa import load_model" in card
    assert "LlavaForConditionalGeneration" not in card


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_projector_begins_as_its_sizes_say(kind: str, stock: Path) -> None:
    parts = LlavaForConditionalGeneration.from_pretrained(stock).config
    config = PROJECTORS[kind](vision_config=parts.vision_config, text_config=parts.text_config)
    projector = AutoModelForImageTextToText.from_config(config).model.multi_modal_projector
    std = parts.text_config.initializer_range
    for name, parameter in projector.named_parameters():
        if name.endswith("weight"):
            assert parameter.std().item() == pytest.approx(std, rel=0.1)
        elif name == "similarity_scale":
            assert parameter.tolist() == [1]
        elif name == "initial":
            assert parameter.shape[0] == 256
        else:
            assert not parameter.any()
