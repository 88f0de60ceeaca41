"""What a checkpoint holds beyond the Trainer's own files: `training_recipe.json`, enough to run the training again."""

import importlib.metadata
import json
from pathlib import Path
from typing import Any

from transformers import Trainer

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
