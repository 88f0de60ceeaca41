"""SIGTERM and SIGINT: the step is finished, a checkpoint saved, the run stopped."""

import signal
import threading
from types import FrameType
from typing import Any, Self

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import SaveStrategy

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopOnSignal(TrainerCallback):
    """Turn the first SIGTERM or Ctrl-C into one checkpoint and the end of training; used `with` around `train()`.

    Whatever `save_strategy` says, exactly one checkpoint of the last step is saved. An evaluation that is due then is
    left out: schedulers kill within seconds. A signal during an evaluation or a save takes effect right after it.
    The next Ctrl-C does what it did before, usually raise `KeyboardInterrupt`; signals that were ignored stay so.

    Args:
        accelerator: to agree with the other ranks, by one number a step, on who was told what.

    Attributes:
        received: "SIGTERM" or "SIGINT" once training stops for it; the same on all ranks.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.received: str | None = None
        self._noted = 0  # number of the signal this rank was sent
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self.received = None
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            for number in SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())
        self._noted = 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted = self._noted or number
        if number == signal.SIGINT:
            signal.signal(number, self._previous[number])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._told_to_stop():
            left_out = "; its evaluation is left out" if control.should_evaluate else ""
            self._say(state, f"saving a checkpoint after step {state.global_step}, then stopping{left_out}")
            control.should_save = control.should_training_stop = True
            control.should_evaluate = False

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if args.save_strategy == SaveStrategy.BEST:  # the Trainer decides alone about the save: one step more
            return
        if self._told_to_stop():
            self._say(state, f"saving a checkpoint after step {state.global_step}, then stopping")
            control.should_save = control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._told_to_stop():
            self._say(state, f"stopping with the checkpoint of step {state.global_step}")
            control.should_training_stop = True

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The Trainer's loop also comes here when it stops within an epoch: nothing is due then."""
        if self.received is not None:
            control.should_save = control.should_evaluate = False

    def _told_to_stop(self) -> bool:
        """Whether a signal has reached some rank; true once, on all ranks together."""
        if self.received is not None:
            return False
        number = self._noted
        if self.accelerator.num_processes > 1:
            told = torch.tensor([number], device=self.accelerator.device)
            number = int(self.accelerator.gather(told).max())
        if number:
            self.received = signal.Signals(number).name
        return bool(number)

    def _say(self, state: TrainerState, what: str) -> None:
        if state.is_world_process_zero:
            tqdm.write(f"{self.received}: {what}")  # not print: a progress bar is on the line
