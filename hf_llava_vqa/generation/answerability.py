"""Whether a question can be answered from its picture, as VizWiz's second task asks: 1 − P(unanswerable)."""

from collections.abc import Iterable, Iterator
from math import exp, fsum
from typing import Any

from transformers import LlavaForConditionalGeneration, LlavaProcessor

from hf_llava_vqa.generation.candidates import score_candidates

UNANSWERABLE = ("unanswerable", "Unanswerable")
"""How a model says so: as people's answers are written, and as the instruction of LLaVA-1.5 has it."""


def score_answerability(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, records: Iterable[dict[str, Any]], **settings: Any
) -> Iterator[dict[str, Any]]:
    """Say of every question of `records`, in order, how likely it is that the model answers it at all.

    Args:
        **settings: for `score_candidates`.

    Yields:
        `{"id", "image_id", "question", "answerable"}`; `answerable` is 1 less the probability that the model's whole
        answer is one of `UNANSWERABLE`, 0 to 1.

    Raises:
        As `score_candidates`.
    """
    for scored in score_candidates(model, processor, records, UNANSWERABLE, **settings):
        said = {key: scored[key] for key in ("id", "image_id", "question")}
        unanswerable = fsum(map(exp, scored["log_probs"]))
        yield {**said, "answerable": max(0.0, 1 - unanswerable)}
