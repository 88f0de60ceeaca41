"""A model of one layer in the stock Trainer: the guards' hooks are called as in a real run."""

from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class Toy(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(3, 1)

    def forward(self, x: torch.Tensor, return_loss: bool = True) -> dict[str, torch.Tensor]:
        return {"loss": self.layer(x).square().mean()}


class AtStep(TrainerCallback):
    """Do something when a hook is called after so many steps."""

    def __init__(self, hook: str, step: int, act: Any) -> None:
        self.step = step
        self.act = act
        setattr(self, hook, self._called)

    def _called(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step == self.step:
            self.act()


class ToyTrainer(Trainer):
    """Remembers the steps at which it saved and evaluated."""

    def __init__(self, folder: Path, callbacks: list[TrainerCallback] | None = None, **changes: Any) -> None:
        settings = {
            **{"output_dir": str(folder), "use_cpu": True, "max_steps": 6, "per_device_train_batch_size": 1},
            **{"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "logging_steps": 100},
        }
        rows = [{"x": torch.full((3,), 1.0 + index)} for index in range(4)]
        args = TrainingArguments(**(settings | changes))
        super().__init__(Toy(), args, train_dataset=rows, eval_dataset=rows[:1], callbacks=callbacks)
        self.saved: list[int] = []
        self.evaluated: list[int] = []

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        self.saved.append(self.state.global_step)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        self.evaluated.append(self.state.global_step)
        return super().evaluate(*args, **kwargs)
