"""What is published of a run: safetensors and JSON only, under names that every loader finds, from whole folders."""

from concurrent.futures import Future
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file, save_file
from transformers import Trainer
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import HubStrategy

PUBLISHED = ("*.safetensors", "*.json", "*.jinja", "*.model", "README.md")
"""What a checkpoint publishes; the rest (optimizer, random state) is for going on with the run."""


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


def upload_model(trainer: Trainer, folder: str | Path, message: str | None, **options: Any) -> Any:
    """Upload the model that was saved in a folder, with its card and recipe, and nothing of what lies beside or below.

    Args:
        trainer: says which repository, with which token.
        message: of the commit.
        **options: for `HfApi.upload_folder`.
    """
    return _upload(trainer, folder, message, allow_patterns=PUBLISHED, ignore_patterns="*/*", **options)


def upload_checkpoint(trainer: Trainer, checkpoint: Path, message: str) -> list[Future[Any]]:
    """Begin to upload a checkpoint's model, and all of it as well where `hub_strategy` says so."""
    jobs = [upload_model(trainer, checkpoint, message, run_as_future=True)]
    strategy = trainer.args.hub_strategy
    if strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
        name = "last-checkpoint" if strategy == HubStrategy.CHECKPOINT else checkpoint.name
        jobs.append(_upload(trainer, checkpoint, f"{message}, checkpoint", path_in_repo=name, run_as_future=True))
    return jobs


def _upload(trainer: Trainer, folder: str | Path, message: str | None, **options: Any) -> Any:
    args = trainer.args
    where = {"repo_id": trainer.hub_model_id, "token": args.hub_token, "revision": args.hub_revision}
    return HfApi().upload_folder(folder_path=folder, commit_message=message, **(where | options))
