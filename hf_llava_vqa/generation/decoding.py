"""Image-once decoding: the trunks are read once, then all open answers grow together over one cache.

A step feeds one token of every open answer. Its row in the mask is that of the prompt's last token, plus the answer's
own earlier tokens: the subtree rule, with answers as further branches. Rows and branches whose answers are complete
leave the batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache, LlavaForConditionalGeneration, LlavaProcessor

from hf_llava_vqa import forest
from hf_llava_vqa.generation.choosing import Chooser, Sampling
from hf_llava_vqa.generation.questions import Planted
from hf_llava_vqa.generation.rows import attention, padded, pictures

Anyone = Callable[[bool], bool]


@dataclass
class Answer:
    """Token ids, the closing `</s>` included, and the log-probability the model gives them."""

    token_ids: list[int]
    log_prob: float = 0.0


@torch.no_grad()
def decode(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    trees: Sequence[Planted],
    *,
    sampling: Sampling,
    max_new_tokens: int,
    anyone: Anyone = bool,
) -> list[Answer]:
    """Answer all leaves of `trees`, in order.

    Args:
        sampling: how tokens are drawn.
        max_new_tokens: longest answer.
        anyone: whether any rank says yes; every rank then takes the same number of steps.
    """
    answers = [Answer([]) for tree in trees for _ in tree.leaves]
    choose = Chooser(sampling, [dialogue["id"] for tree in trees for dialogue in tree.dialogues])
    branches = Branches(model, trees)
    logits = branches.read(processor, trees)
    for step in range(max_new_tokens):
        tokens, log_probs = choose(logits, branches.answer)
        living = branches.answer >= 0
        found = zip(*(values[living].tolist() for values in (branches.answer, tokens, log_probs)), strict=True)
        for number, token, log_prob in found:
            answers[number].token_ids.append(token)
            answers[number].log_prob += log_prob
        unfinished = living & (tokens != processor.tokenizer.eos_token_id)
        if step + 1 == max_new_tokens or not anyone(bool(unfinished.any())):
            break
        logits = branches.grow(branches.keep(unfinished, tokens))
    return answers


class Branches:
    """The open answers of a batch: R rows, one tree each, with up to Q branches.

    Attributes:
        answer: [R, Q] int, the number of the answer a branch gives, -1 where a row has fewer than Q.
        depth: [R, Q] int, position of the branch's last token on its path.
        sees: [R, Q, K] bool, the tokens in the cache that the branch's tokens attend to.
    """

    def __init__(self, model: LlavaForConditionalGeneration, trees: Sequence[Planted]) -> None:
        self.model = model
        self.cache = DynamicCache()
        width = max(1, *(len(tree.leaves) for tree in trees))
        self.answer = torch.full((len(trees), width), -1, device=model.device)
        self._leaves = torch.zeros_like(self.answer)  # index of each branch's last token in its row
        first = 0
        for row, tree in enumerate(trees):
            count = len(tree.leaves)
            self.answer[row, :count] = torch.arange(first, first + count)
            self._leaves[row, :count] = torch.from_numpy(tree.leaves)
            first += count

    def read(self, processor: LlavaProcessor, trees: Sequence[Planted]) -> torch.Tensor:
        """Read trunks and questions; the logits [R, Q, V] behind each question."""
        inputs = padded(self.model, processor, trees)
        sees = forest.attention_mask(inputs["subtree_end"])[:, 0]
        self.depth = inputs["position_ids"].gather(1, self._leaves)
        self.sees = sees.gather(1, self._leaves[..., None].expand(-1, -1, sees.shape[-1]))
        return self.model(
            input_ids=inputs["input_ids"],
            position_ids=inputs["position_ids"],
            attention_mask=attention(self.model, sees),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=self._leaves,
            **pictures(self.model, processor, trees),
        ).logits

    def keep(self, unfinished: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Drop branches and rows that are complete; the tokens [R, Q] of those left.

        One row stays when all are complete, for the steps of other ranks.
        """
        rows = unfinished.any(1)
        rows[0] |= ~rows.any()
        if not rows.all():
            self.cache.batch_select_indices(rows.nonzero()[:, 0])
        unfinished = unfinished[rows]
        width = max(1, int(unfinished.sum(1).max()))
        order = unfinished.int().argsort(dim=1, descending=True, stable=True)[:, :width]
        self.answer = self.answer[rows].masked_fill(~unfinished, -1).gather(1, order)
        self.depth = self.depth[rows].gather(1, order)
        self.sees = self.sees[rows].gather(1, order[..., None].expand(-1, -1, self.sees.shape[-1]))
        return tokens[rows].gather(1, order)

    def grow(self, tokens: torch.Tensor) -> torch.Tensor:
        """Feed one token a branch [R, Q]; the logits [R, Q, V] behind it."""
        itself = torch.eye(tokens.shape[1], dtype=torch.bool, device=tokens.device).expand(len(tokens), -1, -1)
        self.sees = torch.cat([self.sees, itself], dim=-1)
        self.depth = self.depth + 1
        return self.model(
            input_ids=tokens,
            position_ids=self.depth,
            attention_mask=attention(self.model, self.sees),
            past_key_values=self.cache,
            use_cache=True,
        ).logits
