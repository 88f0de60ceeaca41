"""`training_recipe.json` in every saved folder: what is needed to run the training again, or to go on with it."""

import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from hf_llava_vqa.data.streams import fingerprint
from hf_llava_vqa.models.adapters import trained_by_part

RECIPE_FILE = "training_recipe.json"
PACKAGES = ("hf-llava-vqa", "torch", "transformers", "trl", "peft", "datasets", "accelerate")

# Settings that decide what the model sees; the data, the model and the batch are compared by what they are.
_SETTINGS = (
    *("seed", "data_seed", "template", "answer_target", "answer_confidence_weights"),
    *("self_question_ratio", "self_question_weight", "max_questions_per_row"),
    *("image_aspect", "image_augmentation", "on_bad_image"),
)
_SAMPLE = 16  # values of each frozen tensor that stand for it


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide the numbers."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def save_training_recipe(trainer: Trainer, folder: str | Path, **progress: Any) -> None:
    """Write `training_recipe.json`: settings (tokens masked), trained parameters, identity, steps done and versions.

    Args:
        trainer: a `VqaTrainer`.
        folder: where the file goes.
        **progress: how far the run is, beyond its step.
    """
    recipe: dict[str, Any] = {
        "settings": trainer.args.to_dict(),  # the Trainer masks every *_token
        "trained_parameters": {part: count for part, (count, _) in trained_by_part(trainer.model).items()},
        "processes": trainer.args.world_size,
        "identity": trainer.identity,
        "global_step": trainer.state.global_step,
        "versions": versions(),
        **progress,
    }
    for name in ("output_dir", "logging_dir"):  # paths of one machine mean nothing on another
        recipe["settings"].pop(name, None)
    Path(folder, RECIPE_FILE).write_text(json.dumps(recipe, indent=2, sort_keys=True, default=str) + "\n")


def read_training_recipe(folder: str | Path) -> dict[str, Any]:
    """The recipe saved in a folder whose manifest was checked."""
    return json.loads(Path(folder, RECIPE_FILE).read_text())


def run_identity(trainer: Trainer) -> dict[str, str | int | float | None]:
    """What must stay the same for a checkpoint to be continued; None where it cannot be known.

    Taken before the first step, when the frozen weights are those of the base and nothing is sharded yet.
    """
    args = trainer.args
    return {
        "data": fingerprint(trainer.train_dataset),
        "global batch": global_batch(args),
        **_model_identity(trainer.model),
        **{name: getattr(args, name) for name in _SETTINGS},
    }


def global_batch(args: TrainingArguments) -> int:
    """Rows of one optimizer step, over micro-batches and ranks."""
    return args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size


def differences(saved: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """Name what differs between the identities of two runs, for people."""
    differing = [
        name for name, now in current.items() if None not in (now, saved.get(name)) and str(now) != str(saved[name])
    ]
    return [f"{name} {_short(saved[name])} became {_short(current[name])}" for name in differing]


def _model_identity(model: torch.nn.Module) -> dict[str, str | None]:
    """Hashes of the trained parameters' names and shapes, and of the frozen ones with a few of their values."""
    trained, frozen = hashlib.sha256(), hashlib.sha256()
    for name, parameter in model.named_parameters():
        shape = tuple(getattr(parameter, "ds_shape", parameter.shape))  # DeepSpeed keeps a sharded tensor's shape
        values = [] if parameter.requires_grad else parameter.detach().flatten()[:_SAMPLE].float().tolist()
        (trained if parameter.requires_grad else frozen).update(repr((name, shape, values)).encode())
    sharded = any(hasattr(parameter, "ds_shape") for parameter in model.parameters())
    return {"trained parameters": trained.hexdigest(), "base model": None if sharded else frozen.hexdigest()}


def _short(value: Any) -> str:
    """A hash by its first characters, anything else as it is."""
    return f"{value[:8]}…" if isinstance(value, str) and len(value) == 64 else str(value)
