"""NaN and infinity in losses and gradients: found before the optimizer uses them, with the dialogues on disk."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch.nn.utils import get_total_norm
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_llava_vqa.errors import ConfigError, TrainingError

ACTIONS = ("stop", "skip")
FILE = "nonfinite.jsonl"


class NonFiniteGuard(TrainerCallback):
    """Look at every step's losses and gradients before the optimizer does.

    What is not finite is appended to `OUTPUT_DIR/nonfinite.jsonl`, a line a micro-batch: `{step, rank, what,
    micro_batch, loss, dialogue_ids, action}`, with `what` "loss" or "gradient". Lines name the micro-batches whose loss
    is not finite; if all losses are finite, all micro-batches of the step. Then the run stops, or the step is skipped:
    weights and optimizer state stay as they are. All ranks act alike. Costs one host synchronisation a step.

    Gradients are left to DeepSpeed and to float16's loss scaler where these are used: both deal with overflow
    themselves and keep gradients where nobody else sees them.

    Args:
        action: "stop" or "skip".
        accelerator: of the trainer.

    Attributes:
        skipped: steps skipped so far.

    Raises:
        ConfigError: an unknown action, or "skip" under DeepSpeed, which has made its step before this guard is asked.
    """

    def __init__(self, action: str, accelerator: Accelerator) -> None:
        if action not in ACTIONS:
            raise ConfigError(f"--on_nan {action}; use {' or '.join(ACTIONS)}")
        deepspeed = accelerator.distributed_type == DistributedType.DEEPSPEED
        if deepspeed and action == "skip":
            raise ConfigError("--on_nan skip: DeepSpeed steps before a step can be skipped; use --on_nan stop")
        self.action = action
        self.accelerator = accelerator
        self.skipped = 0
        self._sees_gradients = not deepspeed and accelerator.scaler is None
        self._noted: list[tuple[torch.Tensor, list[list[str]]]] = []

    def note(self, loss: torch.Tensor, dialogue_ids: list[list[str]]) -> None:
        """Remember one training micro-batch: its loss, a scalar, and the dialogues of each row."""
        self._noted.append((loss.detach(), dialogue_ids))

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._noted.clear()

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: torch.nn.Module,
        **_: Any,
    ) -> None:
        """Gradients are complete here: accumulated, averaged over the ranks and clipped. Raises `TrainingError`."""
        noted, self._noted = self._noted, []
        losses = torch.stack([loss.float() for loss, _ in noted])
        bad, bad_losses, bad_gradients = self._look_at(losses, model)
        if not (bad_losses or bad_gradients):
            return
        what = "loss" if bad_losses else "gradient"
        step = state.global_step + 1
        file = Path(args.output_dir, FILE)
        self._write(file, step, what, [i for i in range(len(noted)) if bad[i] or not bad_losses], noted)
        if self.action == "stop":
            raise TrainingError(
                f"step {step}: the {what} is not finite; the dialogues are in {file}: look at them, lower "
                "--learning_rate, or go on without such steps with --on_nan skip"
            )
        model.zero_grad(set_to_none=True)  # without gradients an optimizer leaves weights and its state alone
        self.skipped += 1
        if state.is_world_process_zero:
            tqdm.write(f"step {step} is skipped: the {what} is not finite; the dialogues are in {file}")

    def _look_at(self, losses: torch.Tensor, model: torch.nn.Module) -> tuple[list[int], int, int]:
        """Which of this rank's losses [M] are not finite; whether any rank has such a loss, such a gradient."""
        bad = ~losses.isfinite()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        largest = get_total_norm(gradients, math.inf) if self._sees_gradients else losses.new_zeros(())
        mine = torch.stack([bad.any(), ~largest.isfinite()])[None].int()  # [1, 2]
        ours = self.accelerator.gather(mine).amax(0)
        *flags, bad_losses, bad_gradients = torch.cat([bad.int(), ours]).tolist()
        return flags, bad_losses, bad_gradients

    def _write(
        self,
        file: Path,
        step: int,
        what: str,
        micro_batches: list[int],
        noted: list[tuple[torch.Tensor, list[list[str]]]],
    ) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as lines:
            for index in micro_batches:
                loss, dialogue_ids = noted[index]
                entry = {
                    "step": step,
                    "rank": self.accelerator.process_index,
                    "what": what,
                    "micro_batch": index,
                    "loss": str(loss.item()),
                    "dialogue_ids": [name for row in dialogue_ids for name in row],
                    "action": self.action,
                }
                lines.write(json.dumps(entry, ensure_ascii=False) + "\n")
