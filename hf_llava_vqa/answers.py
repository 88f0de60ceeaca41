"""Which of a question's human answers are trained on, and with what weight.

Answers are grouped by VizWiz normalisation ("Coke can." and "coke can" are one answer); the most frequent raw form
stands for its group, the first given on a tie. A question's weights sum to 1, so every question counts the same.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.metrics.vizwiz_accuracy.answer_rules import normalize_answer

ANSWER_TARGETS = ("majority", "votes", "credit", "sample")
CONFIDENCES = ("yes", "maybe", "no")  # what VizWiz and VQAv2 ask their annotators: are you sure?


@dataclass(frozen=True)
class _Vote:
    """One person's answer and how much it counts; the votes of a question count 1 on average."""

    text: str
    count: float


def weighted_answers(
    answers: Sequence[str],
    target: str,
    *,
    counts: Sequence[float] | None = None,
    seed: int = 0,
    epoch: int = 0,
    dialogue_id: str = "",
) -> list[tuple[str, float]]:
    """The answers to train on as `(text, weight)`, in the order their groups were first given.

    Args:
        answers: one or more raw human answers.
        target: `majority`: the largest group, weight 1 (ties: first given). `votes`: every group by its share.
            `credit`: every group by the VQA accuracy it would score. `sample`: one answer, drawn anew each epoch
            from (seed, epoch, dialogue id).
        counts: how much each answer counts beside the others, 0 or more; all the same if not given. A group is as
            large as its answers count together; credit takes each answer for so many people, and an answer is drawn
            as often as it counts. One that counts 0 is as if it had not been given. Where all count 0 nobody is
            surer than the others, and all count the same.

    Raises:
        ConfigError: unknown target.
    """
    if target not in ANSWER_TARGETS:
        raise ConfigError(f"unknown answer_target {target!r}; use one of: {', '.join(ANSWER_TARGETS)}")
    votes = _votes(answers, counts)
    groups: dict[str, list[_Vote]] = {}
    for vote in votes:
        groups.setdefault(normalize_answer(vote.text, "vizwiz"), []).append(vote)
    if target == "sample":
        drawn = _draw(votes, random.Random(f"{seed}/{epoch}/{dialogue_id}"))
        return [(_spokesman(groups[normalize_answer(drawn.text, "vizwiz")]), 1.0)]
    if target == "majority":
        return [(_spokesman(max(groups.values(), key=_size)), 1.0)]
    value = _credit if target == "credit" else _share
    values = [value(group, len(votes)) for group in groups.values()]
    total = sum(values)
    return [(_spokesman(group), v / total) for group, v in zip(groups.values(), values, strict=True)]


def confidence_counts(answers: Sequence[Mapping[str, str]], weights: Sequence[float]) -> list[float]:
    """How much each `{"answer", "answer_confidence"}` counts, for the weights of `CONFIDENCES`; 1 with none of them."""
    weight_of = dict(zip(CONFIDENCES, weights, strict=True))
    return [weight_of.get(answer["answer_confidence"], 1.0) for answer in answers]


def check_confidence_weights(weights: Sequence[float]) -> None:
    """Raise `ConfigError` unless there is a weight of 0 or more for each of `CONFIDENCES`, and one above 0."""
    if len(weights) != len(CONFIDENCES) or not all(isfinite(w) and w >= 0 for w in weights) or not any(weights):
        raise ConfigError(
            f"answer_confidence_weights is {' '.join(map(str, weights)) or 'empty'}; give three numbers of 0 or more, "
            f"not all 0, for the answers {', '.join(CONFIDENCES)}"
        )


def _votes(answers: Sequence[str], counts: Sequence[float] | None) -> list[_Vote]:
    if counts is None or not any(counts):
        return [_Vote(text, 1.0) for text in answers]
    given = [(text, count) for text, count in zip(answers, counts, strict=True) if count > 0]
    total = sum(count for _, count in given)
    return [_Vote(text, count * len(given) / total) for text, count in given]


def _draw(votes: list[_Vote], draw: random.Random) -> _Vote:
    """By rejection: where all count the same, the first draw stands."""
    most = max(vote.count for vote in votes)
    while True:
        drawn = draw.choice(votes)
        if draw.random() < drawn.count / most:
            return drawn


def _size(group: list[_Vote]) -> float:
    return sum(vote.count for vote in group)


def _spokesman(group: list[_Vote]) -> str:
    sizes: dict[str, float] = {}
    for vote in group:
        sizes[vote.text] = sizes.get(vote.text, 0.0) + vote.count
    return max(sizes, key=sizes.__getitem__)  # the first given on ties


def _share(group: list[_Vote], people: int) -> float:
    return _size(group) / people


def _credit(group: list[_Vote], people: int) -> float:
    """Leave-one-out VQA accuracy of a group's answer among so many people (exact match for one person)."""
    if people == 1:
        return 1.0
    matches = _size(group)
    own = sum(vote.count * min(1.0, (matches - vote.count) / 3) for vote in group)
    return (own + (people - matches) * min(1.0, matches / 3)) / people
