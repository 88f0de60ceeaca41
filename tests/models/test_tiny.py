"""The tiny LLaVA: a complete folder, Llama's tokenizer behaviour, the same bytes for the same seed."""

import hashlib
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

from hf_llava_vqa import prompts
from hf_llava_vqa.models.tiny import SAMPLE_TEXTS, TinyConfig, build_tiny_llava, tiny_tokenizer

TURNS = [
    {"role": "user", "content": "<image>\nWhat colour is the box?\nAnswer the question."},
    {"role": "assistant", "content": "It is red."},
    {"role": "user", "content": "How many bottles are there?"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    build_tiny_llava(path, TinyConfig(), SAMPLE_TEXTS, seed=0)
    return path


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer(SAMPLE_TEXTS, 512)


def test_folder_loads_and_generates(folder: Path):
    processor = AutoProcessor.from_pretrained(folder)
    model = LlavaForConditionalGeneration.from_pretrained(folder)
    text = processor.apply_chat_template(prompts.messages(TURNS), add_generation_prompt=True)
    batch = processor(text=text, images=Image.new("RGB", (40, 30)), add_special_tokens=False, return_tensors="pt")
    assert batch["pixel_values"].shape == (1, 3, 28, 28)
    assert (batch["input_ids"] == model.config.image_token_index).sum() == 4
    generated = model.generate(**batch, max_new_tokens=3, do_sample=False)
    assert generated.shape[1] > batch["input_ids"].shape[1]
    assert model.generation_config.eos_token_id == processor.tokenizer.eos_token_id == 2
    assert model.generation_config.pad_token_id == processor.tokenizer.pad_token_id


def test_labels_are_the_answer_and_its_end(folder: Path):
    processor = AutoProcessor.from_pretrained(folder)
    ids, supervised = prompts.encode(TURNS, processor.tokenizer)
    answer = [token for token, flag in zip(ids, supervised, strict=True) if flag]
    assert processor.tokenizer.decode(answer) == "It is red.</s>"
    assert processor.chat_template == prompts.chat_template("v1", processor.tokenizer)


def test_seed_decides_every_byte(folder: Path, tmp_path: Path):
    state = torch.get_rng_state()
    build_tiny_llava(tmp_path / "same", TinyConfig(), SAMPLE_TEXTS, seed=0)
    build_tiny_llava(tmp_path / "other", TinyConfig(), SAMPLE_TEXTS, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    assert _hashes(tmp_path / "same") == _hashes(folder)
    assert _hashes(tmp_path / "other")["model.safetensors"] != _hashes(folder)["model.safetensors"]


def test_user_is_one_piece_but_two_after_a_space(tokenizer):
    assert tokenizer.tokenize("</s>USER:") == ["</s>", "USER", ":"]
    assert tokenizer.tokenize("</s>a USER:")[-3:] == ["▁US", "ER", ":"]


def test_special_ids_are_llamas(tokenizer):
    assert tokenizer.convert_tokens_to_ids(["<unk>", "<s>", "</s>", "<0x00>", "<0xFF>"]) == [0, 1, 2, 3, 258]
    assert tokenizer.convert_tokens_to_ids(["<image>", "<pad>"]) == [len(tokenizer) - 2, len(tokenizer) - 1]


@pytest.mark.parametrize("text", ["a 12 cän", "two  spaces ", "line\nline", "日本 🙂", "l, d."])
def test_any_text_survives(tokenizer, text: str):
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_newline_and_digits_stay_single(tokenizer):
    assert tokenizer.tokenize("\n12") == ["▁", "<0x0A>", "1", "2"]


def _hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
