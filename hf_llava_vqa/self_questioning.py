"""Which questions of a dialogue the model learns to ask itself, drawn anew each epoch.

After SQ-LLaVA: each question behind the first becomes the model's own with a probability. Most VQA data have one
question a dialogue, of which SQ-LLaVA would take none; there the question is one more thing to say about the picture.
"""

import random
from typing import Any

from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.prompts import TEMPLATES, Turn, asks_itself


def check_self_questioning(ratio: float, weight: float, template: str) -> None:
    """Raise `ConfigError` unless `ratio` is a probability, 0 without a template for it, and `weight` is above 0."""
    if not 0 <= ratio <= 1:
        raise ConfigError(f"self_question_ratio is {ratio}; it must be from 0 to 1")
    if not 0 < weight < float("inf"):
        raise ConfigError(f"self_question_weight is {weight}; it must be above 0 (a ratio of 0 leaves questions out)")
    if ratio and not asks_itself(template):
        able = " or ".join(filter(asks_itself, TEMPLATES))
        raise ConfigError(f"self_question_ratio {ratio} with the template {template}: use the template {able}")


def with_own_questions(turns: list[Turn], ratio: float, *, seed: int, epoch: int, dialogue_id: str) -> list[Turn]:
    """The turns of a dialogue, each user turn behind the first made a `vuser` turn with the probability `ratio`.

    What is drawn depends on the seed, the epoch, the dialogue's id and the number of the turn only. The rule is
    SQ-LLaVA's (sqllava/train/train.py, `preprocess_v1_sq2`), whose draws are not seeded.
    """
    return [
        {**turn, "role": "vuser"}
        if number and turn["role"] == "user" and _drawn(ratio, seed, epoch, dialogue_id, number)
        else turn
        for number, turn in enumerate(turns)
    ]


def own_question(dialogue: dict[str, Any], ratio: float, *, seed: int, epoch: int) -> list[Turn] | None:
    """The dialogue in which the model, shown the picture, asks what the user did: raw turns, or None if not drawn.

    For a single question with human answers. A finished dialogue of one question stays as SQ-LLaVA leaves it.
    """
    (first, *more) = dialogue["turns"]
    if more or not _drawn(ratio, seed, epoch, dialogue["id"], 0):
        return None
    return [{"role": "user", "content": ""}, {"role": "vuser", "content": first["content"]}]


def _drawn(ratio: float, seed: int, epoch: int, dialogue_id: str, number: int) -> bool:
    """Whether a turn is the model's own; turn by turn, so that a longer dialogue changes nothing before its end."""
    return random.Random(f"self-question/{seed}/{epoch}/{dialogue_id}/{number}").random() < ratio
