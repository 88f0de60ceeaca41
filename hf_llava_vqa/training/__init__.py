"""Training: configuration, the trainer, its callbacks and what a checkpoint holds."""

from hf_llava_vqa.training.config import DataArguments, VqaConfig, parse_recipe_args
from hf_llava_vqa.training.data import load_training_data
from hf_llava_vqa.training.job import make_trainer, save_results
from hf_llava_vqa.training.trainer import VqaTrainer, training_collator

__all__ = [
    "DataArguments",
    "VqaConfig",
    "VqaTrainer",
    "load_training_data",
    "make_trainer",
    "parse_recipe_args",
    "save_results",
    "training_collator",
]
