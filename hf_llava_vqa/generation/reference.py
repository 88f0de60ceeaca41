"""The stock `generate`, one prompt a row: slower, and what image-once decoding is compared with."""

from collections.abc import Sequence

import torch
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from hf_llava_vqa.generation.decoding import Answer
from hf_llava_vqa.generation.questions import Planted
from hf_llava_vqa.generation.rows import pictures


@torch.no_grad()
def generate(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, trees: Sequence[Planted], *, max_new_tokens: int
) -> list[Answer]:
    """Greedy answers to trees of one question each; prompts are padded on the left, as `generate` needs."""
    tokenizer = processor.tokenizer
    width = max(map(len, trees))
    input_ids = torch.full((len(trees), width), tokenizer.pad_token_id)
    attention_mask = torch.zeros_like(input_ids)
    for row, tree in enumerate(trees):
        input_ids[row, width - len(tree) :] = torch.from_numpy(tree.row.input_ids)
        attention_mask[row, width - len(tree) :] = 1
    output = model.generate(
        input_ids=input_ids.to(model.device),
        attention_mask=attention_mask.to(model.device),
        **pictures(model, processor, trees),
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
    lengths = (ends.cumsum(-1) - ends.int() == 0).sum(-1).tolist()  # up to the first `</s>`, with it
    chosen = [
        logits.float().log_softmax(-1).gather(-1, new_ids[:, [step]]) for step, logits in enumerate(output.logits)
    ]
    log_probs = torch.cat(chosen, dim=-1).tolist()
    return [
        Answer(ids[:length], sum(values[:length]))
        for ids, values, length in zip(new_ids.tolist(), log_probs, lengths, strict=True)
    ]
