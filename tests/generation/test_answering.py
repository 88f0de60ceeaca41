"""Answers: batched ones equal to those the stock model gives to one prompt at a time."""

from math import exp
from typing import Any

import pytest
import torch
from examples import MIXED, Loaded, chain, colour, question, record, stock_answer

from hf_llava_vqa import bad_images
from hf_llava_vqa.errors import ConfigError, ImageError, PromptError
from hf_llava_vqa.generation import answer_questions, answering, questions
from hf_llava_vqa.images import open_image

NEW_TOKENS = 6


@pytest.mark.parametrize("engine", ["forest", "generate"])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_batched_answers_equal_the_stock_models_one_by_one(loaded: Loaded, batch_size: int, engine: str) -> None:
    limits = {"batch_size": batch_size, "max_new_tokens": NEW_TOKENS}
    predictions = list(answer_questions(*loaded, MIXED, engine=engine, **limits))
    asked = list(questions(MIXED))
    assert len(predictions) == len(asked) == 7
    for prediction, (row, dialogue) in zip(predictions, asked, strict=True):
        ids, log_prob = stock_answer(*loaded, row, dialogue, NEW_TOKENS)
        assert prediction == {
            "id": dialogue["id"],
            "image_id": row["image_id"],
            "question": dialogue["turns"][-1]["content"],
            "answer": loaded[1].decode(ids, skip_special_tokens=True).strip(),
            "confidence": pytest.approx(exp(log_prob), rel=1e-4),
        }
        assert 0 < prediction["confidence"] <= 1
    assert len({prediction["answer"] for prediction in predictions}) == len(asked)  # the model tells them apart


@pytest.mark.parametrize("engine", ["forest", "generate"])
def test_an_answer_that_ends_early_counts_its_own_tokens_only(loaded: Loaded, engine: str) -> None:
    """One answer of the batch is `</s>` at once; the other goes on as if nothing had happened."""
    model, processor = loaded
    calls = []

    def end_the_first(_module: Any, _inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        logits[0, 0, processor.tokenizer.eos_token_id] += 100 if not calls else 0
        calls.append(logits)
        return logits

    settings = {"engine": engine, "max_new_tokens": NEW_TOKENS}
    with model.lm_head.register_forward_hook(end_the_first):
        ended, other = sorted(answer_questions(*loaded, MIXED[1:2], **settings), key=lambda p: p["answer"])
    assert (ended["answer"], ended["confidence"]) == ("", pytest.approx(1))
    (unbiased,) = (p for p in answer_questions(*loaded, MIXED, **settings) if p["id"] == other["id"])
    assert other == {**unbiased, "confidence": pytest.approx(unbiased["confidence"], rel=1e-4)}


@pytest.mark.parametrize("engine", ["forest", "generate"])
@pytest.mark.parametrize("answered", range(8))
def test_an_interrupted_run_goes_on_with_the_batches_it_would_have_made(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch, engine: str, answered: int
) -> None:
    """Also where one question of a picture is answered and the other is not: they are read together all the same."""
    settings = {"engine": engine, "batch_size": 2, "max_new_tokens": NEW_TOKENS}
    straight = list(answer_questions(*loaded, MIXED, known=(), **settings))
    known = [prediction["id"] for prediction in straight[:answered]]
    read = []

    def recording(model: Any, processor: Any, trees: Any, **options: Any) -> Any:
        read.append({dialogue["id"] for tree in trees for dialogue in tree.dialogues})
        return answer(model, processor, trees, **options)

    name = "decode" if engine == "forest" else "generate"
    answer = getattr(answering, name)
    monkeypatch.setattr(answering, name, recording)
    assert list(answer_questions(*loaded, MIXED, known=known, **settings)) == straight[answered:]
    assert all(batch - set(known) for batch in read), "no batch is read for nothing"


def test_answers_that_go_on_are_those_in_order(loaded: Loaded) -> None:
    limits = {"batch_size": 2, "max_new_tokens": NEW_TOKENS}
    as_they_come = {prediction["id"]: prediction for prediction in answer_questions(*loaded, MIXED, known=(), **limits)}
    in_order = list(answer_questions(*loaded, MIXED, **limits))
    assert [as_they_come[prediction["id"]] for prediction in in_order] == in_order
    assert list(as_they_come) != [prediction["id"] for prediction in in_order]


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
    forward = model.forward

    def recording(**inputs: Any) -> Any:
        seen.append(processor.tokenizer.decode(inputs["input_ids"][0]))
        return forward(**inputs)

    monkeypatch.setattr(model, "forward", recording)
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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"engine": "vroom"}, "unknown engine 'vroom'; use one of: forest, generate, vllm"),
        ({"engine": "generate", "temperature": 0.5}, "engine generate is greedy"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_tokens": 0}, "batch_tokens is 0"),
        ({"max_questions_per_row": 0}, "max_questions_per_row is 0"),
    ],
)
def test_settings_that_cannot_work_are_named(loaded: Loaded, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        next(answer_questions(*loaded, MIXED, **settings))


def test_attention_that_ignores_the_mask_is_refused(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaded[0].config.get_text_config(), "_attn_implementation_internal", "flash_attention_2")
    with pytest.raises(ConfigError, match="flash_attention_2 does not honour the mask"):
        next(answer_questions(*loaded, MIXED))
