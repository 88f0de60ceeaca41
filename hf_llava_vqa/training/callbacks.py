"""What happens beside the training steps: lines printed once at the start, and the collator's epoch."""

from itertools import islice
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState

from hf_llava_vqa.collate import VqaCollator, as_record
from hf_llava_vqa.models.adapters import trained_parameters_line
from hf_llava_vqa.training.config import VqaConfig


class CollatorEpoch(TrainerCallback):
    """Tell the collator which epoch it is, before the loader's workers copy it (`answer_target="sample"` needs it)."""

    def __init__(self, collator: VqaCollator) -> None:
        self.collator = collator

    def on_epoch_begin(self, args: VqaConfig, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.collator.epoch = round(state.epoch or 0)


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
        if not state.is_world_process_zero:
            return
        records = [as_record(row) for row in islice(train_dataloader.dataset, self.sample)]
        rows = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        share = rows / len(records)
        images = sum(len(record["images"]) for record in records) * share
        questions = sum(len(record["dialogues"]) for record in records) * share
        tokens = sum(map(self.collator.count_tokens, records)) * share
        tqdm.write(trained_parameters_line(model))  # not print: a progress bar is on the line
        reads = f"about {images:.0f} images, {questions:.0f} questions, {tokens:,.0f} tokens"
        tqdm.write(f"one optimizer step: {rows} rows, {reads}")
