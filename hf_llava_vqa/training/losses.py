"""The losses of answers and of the model's own questions, each by itself, beside the one that is trained on."""

from collections.abc import Sequence

import torch

NAMES = ("answer_loss", "question_loss")


def sums_apart(losses: torch.Tensor, weights: torch.Tensor, own_questions: torch.Tensor) -> torch.Tensor:
    """What the losses are made of: [4], loss and weight of answers, then of questions.

    Args:
        losses: [R, T], weighted.
        weights: [R, T], 0 where nothing is trained on.
        own_questions: [R, T] bool, the tokens that are no answer's.
    """
    sums = torch.stack([losses, weights]).float()
    questions = (sums * own_questions).sum((1, 2))
    return torch.cat([sums.sum((1, 2)) - questions, questions])


class LossesApart:
    """Means over all tokens since the last log, by kind; a kind without tokens has none."""

    def __init__(self) -> None:
        self.sums = [0.0] * 4

    def add(self, sums: Sequence[float], metrics: dict[str, list[float]]) -> None:
        """Add what `sums_apart` gave, summed over ranks, and write the means to TRL's metrics, which a log clears."""
        if not any(name in metrics for name in NAMES):
            self.sums = [0.0] * 4
        self.sums = [old + new for old, new in zip(self.sums, sums, strict=True)]
        for name, loss, weight in zip(NAMES, self.sums[::2], self.sums[1::2], strict=True):
            if weight > 0:
                metrics[name] = [loss / weight]
