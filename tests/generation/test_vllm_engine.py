"""vLLM's engine, with a stand-in for vLLM that answers what it is given through the stock `generate`.

The stand-in opens the model by its path and reads pictures with the processor that lies there, as vLLM does.
"""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from examples import MIXED, build_outspoken_llava, colour, png, record
from examples import question as ask
from PIL import Image
from transformers import AutoProcessor, LlavaConfig, LlavaForConditionalGeneration

from hf_llava_vqa.errors import ConfigError, ImageError, ModelError
from hf_llava_vqa.generation import VLLM_BATCH, answer_questions, load_vllm
from hf_llava_vqa.models import load_model
from hf_llava_vqa.models.projectors import LlavaPrototypeConfig

NEW_TOKENS = 6
IMAGE_TOKENS = 4


class FakeLLM:
    def __init__(self, model: str, **settings: Any) -> None:
        self.settings = settings
        self.model = LlavaForConditionalGeneration.from_pretrained(model).eval()
        self.processor = AutoProcessor.from_pretrained(model, backend="pil")
        self.prompts: list[dict[str, Any]] = []

    def generate(self, prompts: list[dict[str, Any]], params: SimpleNamespace, *, use_tqdm: bool) -> list[Any]:
        assert (params.temperature, params.logprobs, use_tqdm) == (0.0, 0, False)
        self.prompts += prompts
        return [self._answer(prompt, params.max_tokens) for prompt in prompts]

    def _answer(self, prompt: dict[str, Any], max_tokens: int) -> SimpleNamespace:
        images = prompt.get("multi_modal_data", {}).get("image", [])
        image_id = self.processor.image_token_id
        assert prompt["prompt_token_ids"].count(image_id) == len(images)
        widened = [id for id in prompt["prompt_token_ids"] for _ in range(IMAGE_TOKENS if id == image_id else 1)]
        pixels = self.processor.image_processor(images, return_tensors="pt") if images else {}
        settings = {"do_sample": False, "max_new_tokens": max_tokens, "output_logits": True}
        output = self.model.generate(torch.tensor([widened]), **pixels, **settings, return_dict_in_generate=True)
        ids = output.sequences[0, len(widened) :].tolist()
        chosen = [logits[0].log_softmax(-1)[id].item() for logits, id in zip(output.logits, ids, strict=True)]
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=tuple(ids), cumulative_logprob=sum(chosen))])


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("merged")
    build_outspoken_llava(folder)
    return folder


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = FakeLLM, SimpleNamespace  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    return module


@pytest.fixture
def wide(tmp_path: Path) -> dict[str, Any]:
    """A record of a wide picture with two halves, which padding and cropping read differently."""
    picture = Image.new("RGB", (90, 40), colour(7))
    picture.paste(colour(56), (0, 0, 30, 40))
    picture.save(tmp_path / "wide.png")
    return {**record("wide", [ask("wide.0"), ask("wide.1", "Why?")]), "images": [str(tmp_path / "wide.png")]}


@pytest.mark.usefixtures("vllm")
@pytest.mark.parametrize("aspect", ["pad", "crop"])
def test_answers_are_those_of_our_own_engine(merged: Path, wide: dict[str, Any], aspect: str) -> None:
    rows = [*MIXED, wide]
    expected = answer_questions(*load_model(str(merged), image_aspect=aspect), rows, max_new_tokens=NEW_TOKENS)
    llm, processor = load_vllm(str(merged), image_aspect=aspect)
    found = list(answer_questions(llm, processor, rows, engine="vllm", max_new_tokens=NEW_TOKENS, **VLLM_BATCH))
    assert found == [{**row, "confidence": pytest.approx(row["confidence"], rel=1e-3)} for row in expected]
    assert len({row["answer"] for row in found}) == len(found)


@pytest.mark.usefixtures("vllm")
def test_order_survives_small_batches(merged: Path) -> None:
    llm, processor = load_vllm(str(merged))
    together, apart = (
        list(answer_questions(llm, processor, MIXED, engine="vllm", max_new_tokens=2, batch_size=size))
        for size in (64, 1)
    )
    assert [row["id"] for row in apart] == [row["id"] for row in together]
    assert [row["answer"] for row in apart] == [row["answer"] for row in together]


@pytest.mark.usefixtures("vllm")
def test_a_picture_is_one_token_and_already_of_the_towers_size(merged: Path, wide: dict[str, Any]) -> None:
    two = record("two", [ask("two.0")], colours=[colour(7), colour(56)])
    llm, processor = load_vllm(str(merged), dtype="float32")
    list(answer_questions(llm, processor, [wide, two], engine="vllm", max_new_tokens=1))
    assert llm.settings == {"generation_config": "vllm", "dtype": "float32"}
    assert [len(prompt["multi_modal_data"]["image"]) for prompt in llm.prompts] == [2, 1, 1]  # the longest first
    pictures = [picture for prompt in llm.prompts for picture in prompt["multi_modal_data"]["image"]]
    assert {(picture.size, picture.mode) for picture in pictures} == {((28, 28), "RGB")}
    assert [picture.getpixel((0, 0)) for picture in pictures[:2]] == [colour(7), colour(56)]


def test_without_vllm_it_is_named(merged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    message = r'the engine vllm needs its package: pip install "hf-llava-vqa\[vllm\]"'
    with pytest.raises(ConfigError, match=message):
        load_vllm(str(merged))
    with pytest.raises(ConfigError, match=message):
        next(answer_questions(*load_model(str(merged)), MIXED, engine="vllm"))


@pytest.mark.usefixtures("vllm")
def test_models_that_vllm_cannot_answer_with(merged: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the engine vllm answers with what load_vllm returns"):
        next(answer_questions(*load_model(str(merged)), MIXED, engine="vllm"))
    with pytest.raises(ConfigError, match="the engine vllm is greedy; use the engine forest with a temperature"):
        next(answer_questions(*load_vllm(str(merged)), MIXED, engine="vllm", temperature=0.5))
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(
        f'{{"peft_type": "LORA", "base_model_name_or_path": "{merged}"}}'
    )
    with pytest.raises(ModelError, match="is an adapter; the engine vllm needs it merged into its base"):
        load_vllm(str(tmp_path / "adapter"))
    stock = LlavaConfig.from_pretrained(merged)
    config = LlavaPrototypeConfig(text_config=stock.text_config, vision_config=stock.vision_config)
    config.save_pretrained(tmp_path / "prototype")
    with pytest.raises(ModelError, match="is a llava_prototype model, which vllm does not know"):
        load_vllm(str(tmp_path / "prototype"))


@pytest.mark.usefixtures("vllm")
def test_a_picture_that_does_not_open_is_named(merged: Path) -> None:
    row = {**record("r", [ask("q")]), "images": [{"bytes": png((1, 2, 3))[:40], "path": None}]}
    with pytest.raises(ImageError, match="r: image in memory"):
        list(answer_questions(*load_vllm(str(merged)), [row], engine="vllm", max_new_tokens=1))
