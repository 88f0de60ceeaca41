"""Folding an adapter into its base."""

import shutil
from pathlib import Path

import torch

from hf_llava_vqa.errors import ConfigError, ModelError
from hf_llava_vqa.models.loading import adapter_base, load_model

_KEPT = "training_recipe.json"  # how the adapter was trained is how the merged model was


def merge_adapter(adapter: str, folder: str | Path, *, dtype: str = "bfloat16") -> None:
    """Write a whole LLaVA with its processor: the adapter's base with the adapter in its weights.

    Args:
        adapter: a folder or a Hub repository.
        folder: where the model goes; must not exist, or be empty.
        dtype: of the merged weights, which are added up in float32.

    Raises:
        ModelError: `adapter` is none, or its base cannot be found.
        ConfigError: there is something in `folder` already.
    """
    folder = Path(folder)
    check_new_folder(folder, "the merged model")
    if adapter_base(adapter) is None:
        raise ModelError(f"{adapter!r} is no adapter, so there is nothing to merge; it is used as it is")
    model, processor = load_model(adapter, merge=True, dtype=torch.float32)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    processor.save_pretrained(folder)
    if Path(adapter, _KEPT).is_file():
        shutil.copy(Path(adapter, _KEPT), folder)


def check_new_folder(folder: Path, content: str) -> None:
    """Raise `ConfigError` if there is something at `folder` that `content` would be mixed with."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists already; choose another folder for {content}")
