"""Invented records that several tests share: dialogues about pictures of one colour each."""

import io
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from hf_llava_vqa import prompts
from hf_llava_vqa.images import open_image
from hf_llava_vqa.models.tiny import SAMPLE_TEXTS, TinyConfig, build_tiny_llava
from hf_llava_vqa.records import UNDECODED_FEATURES, make_dialogue, make_record

Loaded = tuple[LlavaForConditionalGeneration, LlavaProcessor]
SIDE = 28  # pixels: what the tiny model reads
QUESTIONS = ["What is this?", "What colour is the box?", "Is there a dog?", "How many bottles are there?", "Why?"]
ANSWERS = ["yes", "no", "a red can", "Two bottles.", "two bottles", "unanswerable", "blue"]

FUZZ = settings(max_examples=2000, database=None, suppress_health_check=[HealthCheck.too_slow])
"""For tests that feed damaged files to a reader: only a `VqaError` may come out. Inputs are kept tiny."""


@cache
def png(colour: tuple[int, int, int]) -> bytes:
    """The file of a square picture that is all `colour`."""
    file = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), colour).save(file, "PNG")
    return file.getvalue()


def record(
    name: str, dialogues: Sequence[dict[str, Any]], *, colours: Iterable[tuple[int, int, int]] = (), source: str = ""
) -> dict[str, Any]:
    """A record with one picture for each of `colours`."""
    return make_record(image_id=name, dialogues=dialogues, images=map(png, colours), source=source)


def question(name: str, text: str = "What is this?", answers: Sequence[str] = ("yes",)) -> dict[str, Any]:
    """A dialogue of one question with human answers."""
    return make_dialogue(id=name, question=text, answers=answers)


def chain(name: str, *contents: str, answers: Sequence[str] = ()) -> dict[str, Any]:
    """A dialogue of several turns, the user's and the assistant's in alternation."""
    roles = ("user", "assistant")
    turns = [{"role": roles[number % 2], "content": content} for number, content in enumerate(contents)]
    return make_dialogue(id=name, turns=turns, answers=answers)


def dataset(records: Sequence[dict[str, Any]]) -> Dataset:
    """Records as `load_records` returns them."""
    return Dataset.from_list(list(records), features=UNDECODED_FEATURES)


def colour(number: int) -> tuple[int, int, int]:
    """A colour of its own for each of 512 numbers."""
    return 32 * (number % 8), 32 * (number // 8 % 8), 32 * (number // 64 % 8)


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes of a file with 1-3 stretches of at most 8 bytes replaced by others, and perhaps its end cut off."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = start + draw(st.integers(0, 8))
        data = data[:start] + draw(st.binary(max_size=8)) + data[end:]
    return data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data


@st.composite
def records(
    draw: st.DrawFn, *, max_records: int = 3, max_questions: int = 12, max_answers: int = 10
) -> list[dict[str, Any]]:
    """Records of 0-2 pictures, every picture in a colour of its own, with questions and chains below them."""
    numbers = iter(draw(st.permutations(range(2 * max_records))))
    text, answer = st.sampled_from(QUESTIONS), st.sampled_from(ANSWERS)
    result = []
    for name in map(str, range(draw(st.integers(1, max_records)))):
        dialogues = []
        for index in range(draw(st.integers(1, max_questions))):
            earlier = draw(st.lists(st.tuples(text, answer), max_size=2))
            turns = [content for pair in earlier for content in pair]
            finished = bool(earlier) and draw(st.booleans())  # a dialogue of instruction data: no human answers
            answers = [] if finished else draw(st.lists(answer, min_size=1, max_size=max_answers))
            dialogues.append(chain(f"{name}.{index}", *turns, *([] if finished else [draw(text)]), answers=answers))
        colours = [colour(1 + next(numbers)) for _ in range(draw(st.integers(0, 2)))]
        result.append(record(name, dialogues, colours=colours))
    return result


def build_outspoken_llava(folder: Path) -> None:
    """A tiny LLaVA with weights so large that answers depend on the question and on the picture."""
    build_tiny_llava(folder, TinyConfig(initializer_range=0.3), SAMPLE_TEXTS, seed=0)
    model = LlavaForConditionalGeneration.from_pretrained(folder)
    for parameter in model.model.multi_modal_projector.parameters():
        parameter.data *= 30
    model.save_pretrained(folder)


@torch.no_grad()
def stock_answer(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    row: dict[str, Any],
    dialogue: dict[str, Any],
    max_new_tokens: int,
) -> tuple[list[int], float]:
    """One prompt through the chat template and plain `generate`: the answer's token ids; their log-probability, from
    one pass over the whole."""
    messages = prompts.messages(prompts.question_turns(dialogue["turns"], images=len(row["images"])))
    blocks = [block for message in messages for block in message["content"] if block["type"] == "image"]
    for block, image in zip(blocks, row["images"], strict=True):
        block["image"] = open_image(image)
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    ids = model.generate(**inputs, do_sample=False, max_new_tokens=max_new_tokens)
    start = inputs["input_ids"].shape[1]
    logits = model(input_ids=ids, pixel_values=inputs.get("pixel_values")).logits[0, start - 1 : -1]
    log_probs = logits.log_softmax(-1).gather(-1, ids[0, start:, None])
    return ids[0, start:].tolist(), log_probs.double().sum().item()


MIXED = [
    record("none", [question("none.0"), question("none.1", "How many bottles are there?")]),
    record("one", [question("one.0"), question("one.1", "Is there a dog?")], colours=[colour(7)]),
    record(
        "other", [question("other.0"), chain("other.1", "Hello?", "Hi.", "Why?", answers=["so"])], colours=[colour(56)]
    ),
    record("two", [question("two.0", "Why?"), chain("two.done", "Hello?", "Hi.")], colours=[colour(7), colour(56)]),
]
"""Records of 0-2 pictures, with prompts of different lengths; the last dialogue holds no question."""
