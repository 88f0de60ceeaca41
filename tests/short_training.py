"""A few large steps of training in this process, and what they leave in a folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from examples import dataset
from trl import ModelConfig

from hf_llava_vqa.models.adapters import lora_config
from hf_llava_vqa.models.loading import training_model, training_processor
from hf_llava_vqa.training import VqaConfig, VqaTrainer


def train_briefly(args: ModelConfig, records: Sequence[dict[str, Any]], folder: Path, **settings: Any) -> VqaTrainer:
    """Train what the flags say and save it in `folder`; returns the trainer, for its log."""
    processor = training_processor(args)
    given: dict[str, Any] = {"per_device_train_batch_size": 4, "save_strategy": "no", "logging_steps": 1, **settings}
    trainer = VqaTrainer(
        training_model(args),
        VqaConfig(output_dir=str(folder), use_cpu=True, bf16=False, report_to="none", disable_tqdm=True, **given),
        train_dataset=dataset(records),
        processing_class=processor,
        peft_config=lora_config(args, processor.tokenizer),
    )
    trainer.train()
    trainer.save_model()
    return trainer
