"""Answering questions: records in, one prediction a question out."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from hf_llava_vqa import prompts
from hf_llava_vqa.collate import image_tokens, pixel_values, prompt_turns
from hf_llava_vqa.errors import VqaError

Question = tuple[dict[str, Any], dict[str, Any]]  # a record and one of its dialogues


def questions(records: Iterable[dict[str, Any]]) -> Iterator[Question]:
    """Every dialogue of every record that ends with a user turn, with its record, in order."""
    for record in records:
        for dialogue in record["dialogues"]:
            if dialogue["turns"][-1]["role"] == "user":
                yield record, dialogue


def answer_questions(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    records: Iterable[dict[str, Any]],
    *,
    template: str = "v1",
    instruction: str | None = None,
    batch_size: int = 16,
    max_new_tokens: int = 128,
) -> Iterator[dict[str, Any]]:
    """Answer every question of `records`, greedily, in order.

    Args:
        instruction: replaces the benchmark's instruction to the model.
        batch_size: questions answered together.
        max_new_tokens: longest answer (LLaVA's own evaluation uses 128).

    Yields:
        `{"id", "image_id", "question", "answer", "confidence"}`; confidence is the probability the model gave its own
        answer, in 0..1.

    Raises:
        VqaError: naming the dialogue whose prompt cannot be built, or the record whose image cannot be opened.
    """
    pending = questions(records)
    while batch := list(islice(pending, batch_size)):
        ids = [_prompt(processor, record, dialogue, template, instruction) for record, dialogue in batch]
        answers, confidences = _generate(model, processor, ids, _pixels(processor, batch), max_new_tokens)
        for (record, dialogue), answer, confidence in zip(batch, answers, confidences, strict=True):
            yield {
                "id": dialogue["id"],
                "image_id": record["image_id"],
                "question": dialogue["turns"][-1]["content"],
                "answer": answer,
                "confidence": confidence,
            }


def _prompt(
    processor: LlavaProcessor,
    record: dict[str, Any],
    dialogue: dict[str, Any],
    template: str,
    instruction: str | None,
) -> list[int]:
    """The prompt's ids with every image widened to its tokens."""
    try:
        turns = prompt_turns(record, dialogue, instruction)
        ids, _ = prompts.encode(turns, processor.tokenizer, template)
    except VqaError as error:
        raise type(error)(f"{record['image_id']}, dialogue {dialogue['id']}: {error}") from error
    image_id, width = processor.image_token_id, image_tokens(processor)
    return [token for token in ids for _ in range(width if token == image_id else 1)]


def _pixels(processor: LlavaProcessor, batch: Iterable[Question]) -> torch.Tensor:
    """The pictures of each question, in order; a record's are opened once for all its questions in the batch."""
    opened: dict[int, torch.Tensor] = {}
    for record, _ in batch:
        if id(record) not in opened:
            opened[id(record)] = pixel_values(record, processor)
    return torch.cat([opened[id(record)] for record, _ in batch])


@torch.no_grad()
def _generate(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    ids: list[list[int]],
    pixels: torch.Tensor,
    max_new_tokens: int,
) -> tuple[list[str], list[float]]:
    """Greedy answers and their probabilities; prompts are padded on the left, as generation needs."""
    tokenizer, device = processor.tokenizer, model.device
    width = max(map(len, ids))
    input_ids = torch.full((len(ids), width), tokenizer.pad_token_id)
    attention_mask = torch.zeros_like(input_ids)
    for row, prompt in enumerate(ids):
        input_ids[row, width - len(prompt) :] = torch.tensor(prompt)
        attention_mask[row, width - len(prompt) :] = 1
    inputs = {"pixel_values": pixels.to(device)} if len(pixels) else {}  # generate stumbles over an explicit None
    output = model.generate(
        input_ids=input_ids.to(device),
        attention_mask=attention_mask.to(device),
        **inputs,
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        use_cache=True,
        return_dict_in_generate=True,
        output_logits=True,
    )
    new_ids = output.sequences[:, width:]
    ends = new_ids == tokenizer.eos_token_id
    log_probs = torch.stack(output.logits, dim=1).float().log_softmax(-1)
    chosen = log_probs.gather(-1, new_ids[..., None])[..., 0].masked_fill(ends.cumsum(-1) > ends.int(), 0)
    texts = tokenizer.batch_decode(new_ids, skip_special_tokens=True)
    return [text.strip() for text in texts], chosen.sum(-1).exp().tolist()
