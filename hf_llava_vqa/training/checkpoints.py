"""What a checkpoint holds beyond the Trainer's own files: `training_recipe.json`, enough to run the training again."""

import importlib.metadata
import json
from pathlib import Path
from typing import Any

from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file, save_file
from transformers import Trainer
from transformers.trainer import TRAINING_ARGS_NAME

from hf_llava_vqa.models.adapters import trained_by_part

RECIPE_FILE = "training_recipe.json"
PACKAGES = ("hf-llava-vqa", "torch", "transformers", "trl", "peft", "datasets", "accelerate")


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide the numbers."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def save_training_recipe(trainer: Trainer, folder: str | Path) -> None:
    """Write `training_recipe.json`: settings (tokens masked), trained parameters, steps done and versions."""
    recipe: dict[str, Any] = {
        "settings": trainer.args.to_dict(),  # the Trainer masks every *_token
        "trained_parameters": {part: count for part, (count, _) in trained_by_part(trainer.model).items()},
        "processes": trainer.args.world_size,
        "global_step": trainer.state.global_step,
        "versions": versions(),
    }
    for name in ("output_dir", "logging_dir"):  # paths of one machine mean nothing on another
        recipe["settings"].pop(name, None)
    Path(folder, RECIPE_FILE).write_text(json.dumps(recipe, indent=2, sort_keys=True, default=str) + "\n")


def make_portable(folder: str | Path) -> None:
    """Leave safetensors and JSON in a saved folder, under names that every loader finds.

    The Trainer pickles its arguments, the Hub token among them, and nothing reads that file. PEFT writes DoRA's
    magnitudes as `lora_magnitude_vector`, but `LlavaForConditionalGeneration.from_pretrained` looks for
    `lora_magnitude_vector.weight` and else starts from new ones with no more than a report; PEFT reads both.
    """
    Path(folder, TRAINING_ARGS_NAME).unlink(missing_ok=True)
    adapter = Path(folder, SAFETENSORS_WEIGHTS_NAME)
    tensors = load_file(adapter) if adapter.is_file() else {}
    bare = [name for name in tensors if name.endswith("lora_magnitude_vector")]
    for name in bare:
        tensors[f"{name}.weight"] = tensors.pop(name)
    if bare:
        save_file(tensors, adapter, metadata={"format": "pt"})
