"""Which of a question's human answers are trained on, and with what weight.

Answers are grouped by VizWiz normalisation ("Coke can." and "coke can" are one answer); the most frequent raw form
stands for its group, the first given on a tie. A question's weights sum to 1, so every question counts the same.
"""

import random
from collections import Counter
from collections.abc import Sequence

from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.metrics.vizwiz_accuracy.answer_rules import normalize_answer

ANSWER_TARGETS = ("majority", "votes", "credit", "sample")


def weighted_answers(
    answers: Sequence[str], target: str, *, seed: int = 0, epoch: int = 0, dialogue_id: str = ""
) -> list[tuple[str, float]]:
    """The answers to train on as `(text, weight)`, in the order their groups were first given.

    Args:
        answers: one or more raw human answers.
        target: `majority`: the largest group, weight 1 (ties: first given). `votes`: every group by its share.
            `credit`: every group by the VQA accuracy it would score. `sample`: one answer, drawn anew each epoch
            from (seed, epoch, dialogue id).

    Raises:
        ConfigError: unknown target.
    """
    if target not in ANSWER_TARGETS:
        raise ConfigError(f"unknown answer_target {target!r}; use one of: {', '.join(ANSWER_TARGETS)}")
    groups: dict[str, list[str]] = {}
    for answer in answers:
        groups.setdefault(normalize_answer(answer, "vizwiz"), []).append(answer)
    if target == "sample":
        drawn = random.Random(f"{seed}/{epoch}/{dialogue_id}").choice(list(answers))
        return [(_spokesman(groups[normalize_answer(drawn, "vizwiz")]), 1.0)]
    if target == "majority":
        return [(_spokesman(max(groups.values(), key=len)), 1.0)]
    value = _credit if target == "credit" else _share
    values = [value(len(group), len(answers)) for group in groups.values()]
    total = sum(values)
    return [(_spokesman(group), v / total) for group, v in zip(groups.values(), values, strict=True)]


def _spokesman(group: list[str]) -> str:
    return Counter(group).most_common(1)[0][0]  # most_common keeps first-given order on ties


def _share(matches: int, total: int) -> float:
    return matches / total


def _credit(matches: int, total: int) -> float:
    """Leave-one-out VQA accuracy of an answer that `matches` of `total` people gave (exact match for one person)."""
    if total == 1:
        return 1.0
    return (matches * min(1.0, (matches - 1) / 3) + (total - matches) * min(1.0, matches / 3)) / total
