"""Answers: batched ones equal to those the stock model gives to one prompt at a time."""

from typing import Any

import pytest
import torch
from examples import MIXED, build_outspoken_llava, chain, colour, question, record
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from hf_llava_vqa import bad_images, prompts
from hf_llava_vqa.errors import ConfigError, ImageError, PromptError
from hf_llava_vqa.generation import answer_questions, questions
from hf_llava_vqa.images import open_image
from hf_llava_vqa.models import load_model

Loaded = tuple[LlavaForConditionalGeneration, LlavaProcessor]
NEW_TOKENS = 6


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = tmp_path_factory.mktemp("outspoken")
    build_outspoken_llava(folder)
    return load_model(str(folder))


@torch.no_grad()
def stock_answer(loaded: Loaded, row: dict[str, Any], dialogue: dict[str, Any]) -> tuple[str, float]:
    """One prompt through the chat template and `generate`; the answer's probability from one pass over it."""
    model, processor = loaded
    messages = prompts.messages(prompts.question_turns(dialogue["turns"], images=len(row["images"])))
    blocks = [block for message in messages for block in message["content"] if block["type"] == "image"]
    for block, image in zip(blocks, row["images"], strict=True):
        block["image"] = open_image(image)
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    ids = model.generate(**inputs, do_sample=False, max_new_tokens=NEW_TOKENS)
    start = inputs["input_ids"].shape[1]
    log_probs = model(input_ids=ids, pixel_values=inputs.get("pixel_values")).logits[0, start - 1 : -1].log_softmax(-1)
    probability = log_probs.gather(-1, ids[0, start:, None]).sum().exp().item()
    return processor.decode(ids[0, start:], skip_special_tokens=True).strip(), probability


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_batched_answers_equal_the_stock_models_one_by_one(loaded: Loaded, batch_size: int) -> None:
    predictions = list(answer_questions(*loaded, MIXED, batch_size=batch_size, max_new_tokens=NEW_TOKENS))
    asked = list(questions(MIXED))
    assert len(predictions) == len(asked) == 7
    for prediction, (row, dialogue) in zip(predictions, asked, strict=True):
        answer, probability = stock_answer(loaded, row, dialogue)
        assert prediction == {
            "id": dialogue["id"],
            "image_id": row["image_id"],
            "question": dialogue["turns"][-1]["content"],
            "answer": answer,
            "confidence": pytest.approx(probability, rel=1e-4),
        }
        assert 0 < prediction["confidence"] <= 1
    assert len({prediction["answer"] for prediction in predictions}) == len(asked)  # the model tells them apart


def test_an_answer_that_ends_early_counts_its_own_tokens_only(loaded: Loaded) -> None:
    """The first answer of the batch is `</s>` at once: the padding behind it has no share in its confidence."""
    model, processor = loaded

    def end_the_first(_module: Any, _inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        logits[0, :, processor.tokenizer.eos_token_id] += 100
        return logits

    with model.lm_head.register_forward_hook(end_the_first):
        first, second = answer_questions(model, processor, MIXED[1:2], max_new_tokens=NEW_TOKENS)
    assert (first["answer"], first["confidence"]) == ("", pytest.approx(1))
    (unbiased,) = (p for p in answer_questions(*loaded, MIXED, max_new_tokens=NEW_TOKENS) if p["id"] == second["id"])
    assert second == {**unbiased, "confidence": pytest.approx(unbiased["confidence"], rel=1e-4)}


def test_a_picture_is_opened_once_a_batch(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def counting(source: Any) -> Any:
        opened.append(source)
        return open_image(source)

    monkeypatch.setattr(bad_images, "open_image", counting)
    row = record("r", [question(str(number), f"Question {number}?") for number in range(6)], colours=[colour(7)])
    list(answer_questions(*loaded, [row], batch_size=6, max_new_tokens=1))
    assert len(opened) == 1


def test_the_prompt_follows_the_benchmark_or_the_instruction(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = loaded
    seen = []
    generate = model.generate

    def recording(**inputs: Any) -> Any:
        seen.append(processor.tokenizer.decode(inputs["input_ids"][0]))
        return generate(**inputs)

    monkeypatch.setattr(model, "generate", recording)
    for instruction in (None, "Be brief."):
        row = record("r", [question("q")], source="easy_vqa")
        list(answer_questions(model, processor, [row], instruction=instruction, max_new_tokens=1))
    assert "What is this?\nAnswer the question using a single word or phrase. ASSISTANT:" in seen[0]
    assert "What is this?\nBe brief. ASSISTANT:" in seen[1]


def test_records_are_read_as_they_are_needed(loaded: Loaded) -> None:
    def endless() -> Any:
        while True:
            yield MIXED[0]

    answers = answer_questions(*loaded, endless(), batch_size=2, max_new_tokens=1)
    assert [next(answers)["id"] for _ in range(3)] == ["none.0", "none.1", "none.0"]


@pytest.mark.parametrize(
    ("row", "error", "message"),
    [
        (record("r", [question("q")], source="vqa9"), ConfigError, "r, dialogue q: unknown benchmark 'vqa9'"),
        (record("r", [chain("q", "Hello?", " ", "Why?")]), PromptError, "r, dialogue q: turn 1"),
        ({**record("r", [question("q")]), "images": [{"bytes": b"x", "path": None}]}, ImageError, "r: image in memory"),
    ],
)
def test_what_cannot_be_asked_is_named(
    loaded: Loaded, row: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        list(answer_questions(*loaded, [row], max_new_tokens=1))
