"""The loop both stages of the base share: AdamW, warm-up, cosine decay, clipped gradients."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

Log = Callable[[dict], None]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast."""

    steps: int
    learning_rate: float = 1e-3
    warmup: int = 200  # steps
    log_every: int = 100  # steps


def minimise(parameters: Iterable[nn.Parameter], loss: Callable[[], Tensor], schedule: Schedule, log: Log) -> None:
    """Take `schedule.steps` steps on what `loss` returns, a fresh batch each call; `log` gets the running mean."""
    parameters = list(parameters)
    optimizer = torch.optim.AdamW(parameters, lr=schedule.learning_rate, weight_decay=0.01, betas=(0.9, 0.98))
    rates = OneCycleLR(
        optimizer,
        schedule.learning_rate,
        total_steps=schedule.steps,
        pct_start=schedule.warmup / schedule.steps,
        cycle_momentum=False,
    )
    running = 0.0
    for step in range(1, schedule.steps + 1):
        value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        rates.step()
        running += value.item()
        if step % schedule.log_every == 0:
            log({"step": step, "loss": round(running / schedule.log_every, 5)})
            running = 0.0
