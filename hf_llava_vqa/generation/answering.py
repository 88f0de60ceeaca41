"""Answers in words: which engine answers a batch, and predictions in the order of the questions."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from math import exp
from typing import Any

from transformers import LlavaForConditionalGeneration, LlavaProcessor

from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.generation.choosing import Sampling
from hf_llava_vqa.generation.decoding import Answer, Anyone, decode
from hf_llava_vqa.generation.questions import (
    BATCH_TOKENS,
    Batch,
    Planted,
    batches,
    check_limits,
    in_order,
    in_step,
    prompt_trees,
)
from hf_llava_vqa.generation.reference import generate
from hf_llava_vqa.generation.vllm_engine import generate_with_vllm

ENGINES = ("forest", "generate", "vllm")

Engine = Callable[[LlavaForConditionalGeneration, LlavaProcessor, Sequence[Planted]], list[Answer]]


def answer_questions(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    records: Iterable[dict[str, Any]],
    *,
    template: str = "v1",
    instruction: str | None = None,
    engine: str = "forest",
    batch_size: int = 16,
    batch_tokens: int = BATCH_TOKENS,
    max_questions_per_row: int = 16,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    known: Collection[str] | None = None,
    anyone: Anyone | None = None,
) -> Iterator[dict[str, Any]]:
    """Answer every question of `records`, in order; a picture is read once for all its questions.

    Args:
        model, processor: from `load_model`; for the engine `vllm` from `load_vllm`.
        template: prompt template.
        instruction: replaces the benchmark's instruction to the model.
        engine: `forest`; `generate` for the stock decoding of one question a row; `vllm` where that is installed.
        batch_size: most images read together; with the other engines, most questions.
        batch_tokens: most prompt tokens read together, pictures and padding included.
        max_questions_per_row: an image with more questions is read again for the rest.
        max_new_tokens: longest answer (LLaVA's own evaluation uses 128).
        temperature, top_p, seed: see `Sampling`; greedy by default.
        known: ids of questions that an interrupted run answered. They are left out, and the others are read together
            with what they would have been read with, so that their answers are the same to the last bit. Answers then
            come as soon as they are there, not in order.
        anyone: for several ranks whose model needs all of them (ZeRO-3): a collective, whether any rank says yes.
            Every rank then runs the same number of passes, and the vision tower in each of its first passes; a rank
            without work reads padding.

    Yields:
        `{"id", "image_id", "question", "answer", "confidence"}`; confidence is the probability the model gave its own
        answer, closing `</s>` included, in 0..1.

    Raises:
        VqaError: naming the dialogue whose prompt cannot be built, or the record whose image cannot be opened.
        ConfigError: an unknown engine, or one that is not installed; sampling with another than `forest`; a value out
            of range, or an attention backend that does not honour the tree mask.
    """
    check_limits(batch_size=batch_size, batch_tokens=batch_tokens)
    check_limits(max_questions_per_row=max_questions_per_row, max_new_tokens=max_new_tokens)
    answer = _engine(engine, Sampling(temperature, top_p, seed), max_new_tokens, anyone or bool)
    settled = frozenset(known or ())
    trees = prompt_trees(
        processor,
        records,
        template=template,
        instruction=instruction,
        max_branches=max_questions_per_row if engine == "forest" else 1,
    )
    work = batches(trees, batch_size=batch_size, batch_tokens=batch_tokens)
    work = (batch for batch in work if not settled.issuperset(_ids(batch)))
    if anyone is not None:
        work = in_step(work, anyone, processor)
    answered = (_predictions(processor, batch, answer(model, processor, [tree for _, tree in batch])) for batch in work)
    ready = in_order(answered) if known is None else chain.from_iterable(by_tree.values() for by_tree in answered)
    for predictions in ready:
        yield from (prediction for prediction in predictions if prediction["id"] not in settled)


def _ids(batch: Batch) -> list[str]:
    return [dialogue["id"] for _, tree in batch for dialogue in tree.dialogues]


def _engine(name: str, sampling: Sampling, max_new_tokens: int, anyone: Anyone) -> Engine:
    """What answers the trees of a batch."""
    if name == "forest":
        return partial(decode, sampling=sampling, max_new_tokens=max_new_tokens, anyone=anyone)
    if name not in ENGINES:
        raise ConfigError(f"unknown engine {name!r}; use one of: {', '.join(ENGINES)}")
    if sampling.temperature > 0:
        raise ConfigError(f"the engine {name} is greedy; use the engine forest with a temperature")
    return partial(generate if name == "generate" else generate_with_vllm, max_new_tokens=max_new_tokens)


def _predictions(processor: LlavaProcessor, batch: Batch, answers: list[Answer]) -> dict[int, list[dict[str, Any]]]:
    """The predictions of each tree, by its number."""
    remaining = iter(answers)
    return {
        number: [
            {
                "id": dialogue["id"],
                "image_id": tree.record["image_id"],
                "question": dialogue["turns"][-1]["content"],
                "answer": processor.tokenizer.decode(answer.token_ids, skip_special_tokens=True).strip(),
                "confidence": exp(answer.log_prob),
            }
            for dialogue, answer in zip(tree.dialogues, remaining, strict=False)
        ]
        for number, tree in batch
    }
