"""What happens beside the training steps: lines printed once at the start, and the collator's epoch."""

from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState

from hf_llava_vqa.collate import VqaCollator
from hf_llava_vqa.models.adapters import trained_parameters_line
from hf_llava_vqa.training.config import VqaConfig


class CollatorEpoch(TrainerCallback):
    """Tell the collator which epoch it is, before the loader's workers copy it (`answer_target="sample"` needs it)."""

    def __init__(self, collator: VqaCollator) -> None:
        self.collator = collator

    def on_epoch_begin(self, args: VqaConfig, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.collator.epoch = round(state.epoch or 0)


class StartUpReport(TrainerCallback):
    """Print, once on rank 0, what is trained and what one optimizer step reads."""

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
        rows = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        line = f"one optimizer step: {rows} images"
        dataset = train_dataloader.dataset
        if hasattr(dataset, "with_format") and hasattr(dataset, "__len__"):
            line += f" of {len(dataset)}"
            counts = dataset.select_columns(["dialogues"])["dialogues"]
            per_image = sum(map(len, counts)) / len(dataset)
            line += f", about {rows * per_image:.1f} questions"
        tqdm.write(trained_parameters_line(model))  # not print: a progress bar is on the line
        tqdm.write(f"{line}; {state.max_steps} steps")
