"""Reading prepared sets: records in Parquet shards with the images inside, found by their manifest.

FOLDER/manifest.json
FOLDER/data/train-00000-of-00041.parquet ...
"""

import glob
from pathlib import Path
from typing import Any

from datasets import Dataset, IterableDataset, load_dataset

from hf_llava_vqa.data.prepared.fingerprints import combined_fingerprint
from hf_llava_vqa.data.prepared.folders import Folder, open_folder
from hf_llava_vqa.data.prepared.manifest import AGAIN, MANIFEST, read_manifest
from hf_llava_vqa.data.prepared.row_groups import ParquetGroups, Shard
from hf_llava_vqa.errors import ConfigError, ImageError, RecordError
from hf_llava_vqa.records import UNDECODED_FEATURES


def read_shards(folder: str | Path, *, split: str | None = None, streaming: bool = False) -> Dataset | IterableDataset:
    """Read a split of a prepared set, with its images undecoded. The split may be left out if there is only one.

    Shards are checked for presence and size. Map-style reading keeps an Arrow copy in the `datasets` cache; a stream
    reads one row group at a time.

    Args:
        folder: of this machine, or `hf://datasets/USER/NAME[@REVISION]` for one on the Hub.

    Raises:
        ConfigError: no such split, or no such place on the Hub.
        RecordError: no manifest, another schema version, or a shard that is missing or has another size.
    """
    place = open_folder(folder)
    manifest = read_manifest(place)
    split = _chosen_split(place, manifest, split)
    listed = manifest["splits"][split]["shards"]
    files = [_checked_shard(place, shard) for shard in listed]
    if not streaming:
        data_files = {split: [glob.escape(file) for file in files]}
        return load_dataset("parquet", data_files=data_files, split=split, features=UNDECODED_FEATURES)

    from hf_llava_vqa.data.streams import RecordStream  # imports torch, which the rest of this file does without

    order = [manifest["seed"], manifest["row_group_size"], *((shard["rows"], shard["sha256"]) for shard in listed)]
    groups = ParquetGroups(
        shards=tuple(Shard(file, shard["rows"], shard["bytes"]) for file, shard in zip(files, listed, strict=True)),
        row_group_size=manifest["row_group_size"],
        virtual_readers=manifest["virtual_readers"],
        fingerprint=combined_fingerprint(order),
    )
    return RecordStream([groups], split=split)


def _chosen_split(folder: Folder, manifest: dict[str, Any], split: str | None) -> str:
    splits = manifest["splits"]
    if split is None and len(splits) == 1:
        (split,) = splits
    if split is None or split not in splits:
        there = f"there are {', '.join(splits)}" if splits else "it is empty, as preparing it did not finish"
        raise ConfigError(f"{folder} has no split {split!r}; {there}")
    return split


def _checked_shard(folder: Folder, shard: dict[str, Any]) -> str:
    try:
        found = folder.find(shard["file"])  # the manifest may be somebody else's
    except ImageError as error:
        raise RecordError(f"{folder}/{MANIFEST}: {error}") from error
    if found is None:
        raise RecordError(f"{folder}/{shard['file']}: the manifest lists it, but it is missing; {AGAIN}")
    file, size = found
    if size != shard["bytes"]:
        raise RecordError(f"{file}: {size:,} bytes where the manifest says {shard['bytes']:,}; {AGAIN}")
    return file
