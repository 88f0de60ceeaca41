"""Weights written a tensor at a time, so that a model larger than the memory can be."""

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from hf_llava_vqa.models.conversion.layout import write_json


def write_shards(
    folder: Path, tensors: Iterable[tuple[str, Tensor]], *, total: int, shard_bytes: int = 5_000_000_000
) -> None:
    """Write a model's safetensors, and their index if they are several; one shard at a time is in memory.

    Args:
        folder: made if it is not there. Until all is written no file has a name that is taken for a model's.
        total: how many tensors there are, for the bar.
        shard_bytes: a shard has no more, but for one larger tensor.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, int]] = []
    shard: dict[str, Tensor] = {}

    def flush() -> None:
        save_file(shard, folder / f"shard-{len(shards)}", metadata={"format": "pt"})
        shards.append({name: value.nbytes for name, value in shard.items()})
        shard.clear()

    for name, value in tqdm(tensors, desc="converting", unit="tensor", total=total, disable=None):
        if shard and sum(held.nbytes for held in shard.values()) + value.nbytes > shard_bytes:
            flush()
        shard[name] = value.clone(memory_format=torch.contiguous_format)  # parts of one storage cannot be saved
    flush()
    _name_shards(folder, shards)


def _name_shards(folder: Path, shards: list[dict[str, int]]) -> None:
    """Give shards the names that transformers looks for."""
    stem, dot, suffix = SAFE_WEIGHTS_NAME.partition(".")
    names = [f"{stem}-{number:05d}-of-{len(shards):05d}{dot}{suffix}" for number in range(1, len(shards) + 1)]
    if len(shards) == 1:
        names = [SAFE_WEIGHTS_NAME]
    for number, name in enumerate(names):
        (folder / f"shard-{number}").rename(folder / name)
    if len(shards) > 1:
        size = sum(sum(shard.values()) for shard in shards)
        places = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        write_json(folder / SAFE_WEIGHTS_INDEX_NAME, {"metadata": {"total_size": size}, "weight_map": places})
