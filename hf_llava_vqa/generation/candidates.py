"""Scoring given answers: their log-probabilities as branches of the questions' trees, one pass, nothing decoded."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from hf_llava_vqa import forest
from hf_llava_vqa.errors import ConfigError, RecordError
from hf_llava_vqa.generation.questions import (
    BATCH_TOKENS,
    Batch,
    Planted,
    batches,
    check_limits,
    encode,
    in_order,
    plant,
    questions,
)
from hf_llava_vqa.generation.rows import attention, padded, pictures

Scored = tuple[Planted, list[float]]
Group = tuple[dict[str, Any], list[dict[str, Any]]]  # a record and some of its dialogues


def score_candidates(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    records: Iterable[dict[str, Any]],
    candidates: Sequence[str] | None = None,
    *,
    template: str = "v1",
    instruction: str | None = None,
    batch_size: int = 16,
    batch_tokens: int = BATCH_TOKENS,
    max_branches_per_row: int = 64,
) -> Iterator[dict[str, Any]]:
    """Score `candidates` as answers to every question of `records`, in order.

    A candidate's log-probability is the sum over its tokens and the closing `</s>`, not divided by its length: the
    probability that the model answers exactly this. `probabilities` are these, normalised over the candidates of the
    question. With the one candidate `unanswerable`, P(unanswerable) is `exp(log_probs[0])`.

    Args:
        candidates: the answers to score: yes and no, a vocabulary. None takes the `choices` of each dialogue.
        template, instruction, batch_size, batch_tokens: as for `answer_questions`.
        max_branches_per_row: candidates that share one reading of the picture, those of all its questions together; a
            question's own candidates always do.

    Yields:
        `{"id", "image_id", "question", "answer", "candidates", "log_probs", "probabilities"}`; `answer` is the
        likeliest candidate, the first of equals.

    Raises:
        RecordError: a dialogue without `choices`, when no candidates are given.
        VqaError: naming the dialogue whose prompt or candidate cannot be encoded, or the record whose image cannot be
            opened.
        ConfigError: no candidates, a value out of range, or an attention backend that does not honour the tree mask.
    """
    check_limits(batch_size=batch_size, batch_tokens=batch_tokens, max_branches_per_row=max_branches_per_row)
    if candidates is not None and len(candidates) == 0:
        raise ConfigError("there are no candidates; give at least one answer to score")
    groups = _groups(records, candidates, max_branches_per_row)
    trees = (_candidate_tree(processor, *group, candidates, template, instruction) for group in groups)
    work = batches(trees, batch_size=batch_size, batch_tokens=batch_tokens)
    for tree, log_probs in in_order(_score(model, processor, batch) for batch in work):
        yield from _results(tree, log_probs, candidates)


def _groups(records: Iterable[dict[str, Any]], candidates: Sequence[str] | None, most: int) -> Iterator[Group]:
    """Consecutive questions of one record, as many as have at most `most` candidates together, but at least one."""
    for record in records:
        group: list[dict[str, Any]] = []
        branches = 0
        for _, dialogue in questions([record]):
            count = len(_choices(record, dialogue, candidates))
            if group and branches + count > most:
                yield record, group
                group, branches = [], 0
            group.append(dialogue)
            branches += count
        if group:
            yield record, group


def _choices(record: dict[str, Any], dialogue: dict[str, Any], candidates: Sequence[str] | None) -> Sequence[str]:
    """What is scored as an answer to this question."""
    if candidates is None and not dialogue["choices"]:
        raise RecordError(f"{record['image_id']}, dialogue {dialogue['id']}: has no choices; give candidates to score")
    return dialogue["choices"] if candidates is None else candidates


def _candidate_tree(
    processor: LlavaProcessor,
    record: dict[str, Any],
    dialogues: list[dict[str, Any]],
    candidates: Sequence[str] | None,
    template: str,
    instruction: str | None,
) -> Planted:
    """One path for each candidate of each question; only the candidate's own tokens are labelled."""
    paths = []
    for dialogue in dialogues:
        for candidate in _choices(record, dialogue, candidates):
            ids, flags = encode(processor, record, dialogue, template, instruction, candidate)
            start = len(flags) - flags[::-1].index(False)  # earlier answers of the dialogue are part of the question
            paths.append((ids, [index >= start for index in range(len(ids))]))
    return plant(processor, record, dialogues, paths)


@torch.no_grad()
def _score(model: LlavaForConditionalGeneration, processor: LlavaProcessor, batch: Batch) -> dict[int, Scored]:
    """Each tree of the batch by its number, with the log-probability of each path's labelled tokens."""
    trees = [tree for _, tree in batch]
    inputs = padded(model, processor, trees)
    labelled = inputs["labels"] != forest.IGNORE_INDEX
    logits = model(
        input_ids=inputs["input_ids"],
        position_ids=inputs["position_ids"],
        attention_mask=attention(model, forest.attention_mask(inputs["subtree_end"])[:, 0]),
        use_cache=False,
        logits_to_keep=labelled.roll(-1, dims=1),  # a labelled token is predicted by the one before it in the row
        **pictures(model, processor, trees),
    ).logits.float()
    chosen = logits.gather(-1, inputs["labels"][labelled][:, None])[:, 0] - logits.logsumexp(-1)
    log_probs = torch.zeros(labelled.shape, dtype=torch.float64, device=chosen.device)
    log_probs[labelled] = chosen.double()
    sums = log_probs.cumsum(1).cpu()
    return {n: (tree, _path_sums(tree, row.numpy())) for (n, tree), row in zip(batch, sums, strict=True)}


def _path_sums(tree: Planted, sums: np.ndarray) -> list[float]:
    """Differences of running sums [L] between each leaf and the unlabelled token that starts its branch."""
    starts = np.maximum.accumulate(np.where(tree.row.labels == forest.IGNORE_INDEX, np.arange(len(tree)), 0))
    return (sums[tree.leaves] - sums[starts[tree.leaves]]).tolist()


def _results(tree: Planted, log_probs: list[float], candidates: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    start = 0
    for dialogue in tree.dialogues:
        choices = list(_choices(tree.record, dialogue, candidates))
        own = np.array(log_probs[start : start + len(choices)])
        start += len(choices)
        shares = np.exp(own - own.max())
        yield {
            "id": dialogue["id"],
            "image_id": tree.record["image_id"],
            "question": dialogue["turns"][-1]["content"],
            "answer": choices[int(own.argmax())],
            "candidates": choices,
            "log_probs": own.tolist(),
            "probabilities": (shares / shares.sum()).tolist(),
        }
