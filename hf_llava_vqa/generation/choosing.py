"""Which token comes next: the likeliest, or one drawn with a temperature from the nucleus."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hf_llava_vqa.errors import ConfigError


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Args:
        temperature: the logits are divided by it; 0 takes the likeliest token.
        top_p: draw from the likeliest tokens that together have at least this probability.
        seed: draws depend on it and on the dialogue's id only, not on what else is in the batch.
        top_k: before that, leave so many of the likeliest tokens; 0 leaves all.

    Raises:
        ConfigError: a negative temperature or `top_k`, or a `top_p` outside (0, 1].
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    top_k: int = 0

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ConfigError(f"temperature is {self.temperature}; it must be 0 (greedy) or above")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if self.top_k < 0:
            raise ConfigError(f"top_k is {self.top_k}; it must be 0 (all) or above")


class Chooser:
    """Chooses the tokens of a batch's answers, each answer from random numbers of its own."""

    def __init__(self, sampling: Sampling, dialogue_ids: Sequence[str]) -> None:
        self.sampling = sampling
        self._draws = [random.Random(f"{sampling.seed}/{name}") for name in dialogue_ids]

    def __call__(self, logits: torch.Tensor, answers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Next tokens and their log-probabilities.

        Args:
            logits: [R, Q, V].
            answers: [R, Q] int, the number of the answer each position belongs to, -1 for none.

        Returns:
            `(tokens, log_probs)` [R, Q]; the log-probability is the model's own, whatever the temperature.
        """
        logits = logits.float()
        tokens = logits.argmax(-1) if self.sampling.temperature == 0 else self._drawn(logits, answers)
        return tokens, logits.gather(-1, tokens[..., None])[..., 0] - logits.logsumexp(-1)

    def _drawn(self, logits: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        uniform = [[self._draws[number].random() if number >= 0 else 0.0 for number in row] for row in answers.tolist()]
        scaled = logits / self.sampling.temperature
        probs, tokens = scaled.softmax(-1).sort(stable=True, dim=-1, descending=True)
        if self.sampling.top_k:
            probs[..., self.sampling.top_k :] = 0
            probs = probs / probs.sum(-1, keepdim=True)
        before = probs.cumsum(-1) - probs  # probability of all likelier tokens
        total = probs.masked_fill(before >= self.sampling.top_p, 0).sum(-1)
        target = torch.tensor(uniform, device=logits.device) * total
        place = (before <= target[..., None]).sum(-1, keepdim=True) - 1
        return tokens.gather(-1, place)[..., 0]
