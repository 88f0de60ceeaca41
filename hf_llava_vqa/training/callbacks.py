"""What happens beside the training steps: lines printed once at the start, and which epoch it is."""

from itertools import islice
from typing import Any

from accelerate.data_loader import DataLoaderShard
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from hf_llava_vqa.collate import VqaCollator, as_record
from hf_llava_vqa.models.adapters import trained_parameters_line
from hf_llava_vqa.training.config import VqaConfig
from hf_llava_vqa.training.training_recipe import global_batch


class CurrentEpoch(TrainerCallback):
    """Tell the collator and the sampler which epoch it is, before the loader's workers copy them.

    The collator draws answers and augments by the epoch. The Trainer tells samplers, but not on several ranks in the
    epoch in which a run goes on: the loader that skips what was done hides them.
    """

    def __init__(self, collator: VqaCollator) -> None:
        self.collator = collator

    def on_epoch_begin(
        self, args: VqaConfig, state: TrainerState, control: TrainerControl, train_dataloader: DataLoader, **_: Any
    ) -> None:
        epoch = int(state.epoch or 0)  # in the middle of a pass after a resume
        self.collator.epoch = epoch
        if isinstance(train_dataloader, DataLoaderShard):
            train_dataloader.set_epoch(epoch)


class StreamEpoch(TrainerCallback):
    """Count the passes over a stream, which the Trainer takes for one long epoch, from 0 again after a resume.

    With `save_strategy`, `eval_strategy` or `logging_strategy` "epoch", things happen at the first step that ends in
    a new pass.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def on_step_end(self, args: VqaConfig, state: TrainerState, control: TrainerControl, **_: Any) -> TrainerControl:
        batch = global_batch(args)
        state.epoch = state.global_step * batch / self.rows
        if int(state.epoch) > int((state.global_step - 1) * batch / self.rows):
            control.should_log |= args.logging_strategy == IntervalStrategy.EPOCH
            control.should_evaluate |= args.eval_strategy == IntervalStrategy.EPOCH
            control.should_save |= args.save_strategy == SaveStrategy.EPOCH
        return control


class StartUpReport(TrainerCallback):
    """Print, once on rank 0, what is trained and what one optimizer step reads, judged by the first rows."""

    sample = 256  # rows

    def __init__(self, collator: VqaCollator) -> None:
        self.collator = collator

    def on_train_begin(
        self,
        args: VqaConfig,
        state: TrainerState,
        control: TrainerControl,
        model: Any,
        train_dataloader: Any,
        **_: Any,
    ) -> None:
        if not state.is_world_process_zero or state.global_step >= state.max_steps:  # a finished run has no rows left
            return
        records = [as_record(row) for row in islice(train_dataloader.dataset, self.sample)]
        rows = global_batch(args)
        share = rows / len(records)
        images = sum(len(record["images"]) for record in records) * share
        questions = sum(len(record["dialogues"]) for record in records) * share
        tokens = sum(map(self.collator.count_tokens, records)) * share
        tqdm.write(trained_parameters_line(model))  # not print: a progress bar is on the line
        reads = f"about {images:.0f} images, {questions:.0f} questions, {tokens:,.0f} tokens"
        tqdm.write(f"one optimizer step: {rows} rows, {reads}")
