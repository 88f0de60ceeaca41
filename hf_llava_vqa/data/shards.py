"""Prepared sets: records in Parquet shards with the images inside, and the manifest that says what is there.

    FOLDER/manifest.json
    FOLDER/data/train-00000-of-00041.parquet ...

A shard gets its name when it is complete, and a split enters the manifest last: what is listed is whole. Rows are
put in an order of their own, by the SHA-256 of seed and image id: neighbours are unrelated, and the order depends
neither on the order of the source nor on the version of a random generator.
"""

import glob
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, IterableDataset, load_dataset
from tqdm import tqdm

from hf_llava_vqa.data.fingerprints import combined_fingerprint
from hf_llava_vqa.data.folders import Folder, LocalFolder, open_folder
from hf_llava_vqa.data.row_groups import ROW_GROUP_SIZE, VIRTUAL_READERS, ParquetGroups, Shard
from hf_llava_vqa.errors import ConfigError, ImageError, RecordError
from hf_llava_vqa.images import open_image, read_image_bytes
from hf_llava_vqa.records import FEATURES, SCHEMA_VERSION, UNDECODED_FEATURES, validate_record

MANIFEST = "manifest.json"
_MANIFEST_KEYS = ("schema_version", "source", "splits", "virtual_readers", "row_group_size", "seed")
_AGAIN = "copy the folder again, or prepare it again with scripts/prepare_data.py"

Record = dict[str, Any]


def write_shards(
    records: Dataset | Iterable[Record],
    folder: str | Path,
    *,
    split: str,
    rows_per_shard: int = 512,
    row_group_size: int = ROW_GROUP_SIZE,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, Any]:
    """Write one split of a prepared set. Other splits that the folder holds stay as they are.

    Every image is decoded once to know that it can be, and stored as the bytes of its file. Memory holds one row
    group of images at a time, besides what `records` holds itself.

    Args:
        records: of one source; a `Dataset` is read row by row.
        split: names the shards; letters, digits and underscores.
        row_group_size: rows that are read together; one for all splits of a folder.
        seed: of the order of the rows; one for all splits of a folder.
        progress: show a bar, if stderr is a terminal.

    Returns:
        The manifest.

    Raises:
        RecordError: a record that breaks the format, an image id or dialogue id that occurs twice, several sources.
        ImageError: an image that cannot be opened; names the record and the file.
        ConfigError: a split that cannot be named so or is there already, or another seed or row group size
            than the folder's.
    """
    folder = Path(folder)
    rows = _undecoded(records) if isinstance(records, Dataset) else list(records)
    order = _shuffled(rows, seed)
    manifest = _open_folder(folder, split, seed, row_group_size)
    tally = _Tally(source=manifest["source"])
    bar = tqdm(order, desc=f"writing {split}", unit="image", disable=None if progress else True)
    embedded = (_embed(rows[index], tally) for index in bar)
    shards = []
    count = -(-len(order) // rows_per_shard)
    for number in range(count):
        file = f"data/{split}-{number:05d}-of-{count:05d}.parquet"
        written = _write_shard(folder / file, islice(embedded, rows_per_shard), row_group_size)
        shards.append({"file": file, **written})

    totals = {"rows": len(order), "dialogues": len(tally.dialogue_ids), "answers": tally.answers}
    manifest["source"] = tally.source
    manifest["splits"][split] = {**totals, "shards": shards}
    _write_manifest(folder, manifest)
    return manifest


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
    manifest = _read_manifest(place)
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


class _Tally:
    """What the manifest says about a split, and what must be unique or the same in all of it."""

    def __init__(self, source: str | None) -> None:
        self.source = source
        self.dialogue_ids: set[str] = set()
        self.answers = 0

    def add(self, record: Record) -> None:
        where = f"record {record['image_id']!r}"
        if self.source is None:
            self.source = record["source"]
        if record["source"] != self.source:
            raise RecordError(f"{where}: source is {record['source']!r} in a set of {self.source!r}; use two folders")
        for dialogue in record["dialogues"]:
            if dialogue["id"] in self.dialogue_ids:
                raise RecordError(f"{where}: dialogue id {dialogue['id']!r} is taken by another image; rename one")
            self.dialogue_ids.add(dialogue["id"])
            self.answers += len(dialogue["answers"])


def _undecoded(records: Dataset) -> Dataset:
    images = UNDECODED_FEATURES["images"]
    return records if records.features["images"] == images else records.cast_column("images", images)


def _shuffled(records: Dataset | Sequence[Record], seed: int) -> list[int]:
    """Order the rows by the hash of seed and image id."""
    ids = records["image_id"] if isinstance(records, Dataset) else [record.get("image_id") for record in records]
    keys: dict[bytes, int] = {}
    for index, image_id in enumerate(ids):
        key = hashlib.sha256(f"{seed}/{image_id}".encode()).digest()
        if key in keys:
            raise RecordError(f"rows {keys[key]} and {index} have the image id {image_id!r}; put them in one record")
        keys[key] = index
    if not keys:
        raise RecordError("there are no records to write")
    return [keys[key] for key in sorted(keys)]


def _embed(record: Record, tally: _Tally) -> Record:
    """Check a record and return it with the bytes and hashes of its image files."""
    validate_record(record)
    tally.add(record)
    images, hashes = [], []
    for image in record["images"]:
        try:
            data = read_image_bytes(image)
            open_image({"bytes": data, "path": image["path"]})
        except ImageError as error:
            raise ImageError(f"record {record['image_id']!r}: {error}") from error
        images.append({"bytes": data, "path": _file_name(image["path"])})
        hashes.append(hashlib.sha256(data).hexdigest())
    return {**record, "images": images, "image_sha256": hashes}


def _file_name(path: str | None) -> str | None:
    """Reduce a path to the name of the image file: a published set must not tell where it was made."""
    return PurePosixPath(path.removeprefix("zip://").split("::")[0]).name if path else None


def _write_shard(path: Path, rows: Iterator[Record], row_group_size: int) -> dict[str, Any]:
    unfinished = path.with_name(path.name + ".incomplete")
    schema = FEATURES.arrow_schema
    count = 0
    # No dictionary, since no two photos are the same, and no statistics, which skip nothing in a shuffled set but would
    # be most of the footer that a stream reads; the page index lets readers skip to a row.
    options = {"use_dictionary": False, "write_statistics": False, "write_page_index": True}
    with pq.ParquetWriter(unfinished, schema, **options) as writer:
        while group := list(islice(rows, row_group_size)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
            count += len(group)
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = unfinished.stat().st_size
    os.replace(unfinished, path)
    return {"rows": count, "bytes": size, "sha256": digest}


def _open_folder(folder: Path, split: str, seed: int, row_group_size: int) -> dict[str, Any]:
    """Make the folder ready for a new split: check what it holds and remove what an interrupted run left."""
    if not re.fullmatch(r"\w+", split, re.ASCII):
        raise ConfigError(f"split {split!r}: use letters, digits and underscores, as in train")
    present = sorted((folder / "data").glob(f"{split}-*.parquet*"))
    if (folder / MANIFEST).exists():
        manifest = _read_manifest(LocalFolder(folder))
    elif present:
        raise ConfigError(f"{present[0]} is there already, without a {MANIFEST}; choose an empty folder")
    else:
        manifest = {"schema_version": SCHEMA_VERSION, "source": None, "splits": {}}
        manifest |= {"virtual_readers": VIRTUAL_READERS, "row_group_size": row_group_size, "seed": seed}
    if split in manifest["splits"]:
        raise ConfigError(f"{folder} holds the split {split} already; delete the folder or choose another")
    if manifest["seed"] != seed:
        raise ConfigError(f"{folder} was prepared with seed {manifest['seed']}, not {seed}; use the same seed")
    if manifest["row_group_size"] != row_group_size:
        sizes = f"{manifest['row_group_size']}, not {row_group_size}"
        raise ConfigError(f"{folder} was prepared with row groups of {sizes}; use the same row group size")
    for leftover in present:
        leftover.unlink()
    (folder / "data").mkdir(parents=True, exist_ok=True)
    _write_manifest(folder, manifest)
    return manifest


def _read_manifest(folder: Folder) -> dict[str, Any]:
    if folder.find(MANIFEST) is None:
        raise RecordError(
            f"{folder}: no {MANIFEST}, so this is no prepared set; prepare it with scripts/prepare_data.py"
        )
    manifest = folder.read_json(MANIFEST)
    missing = [key for key in _MANIFEST_KEYS if not isinstance(manifest, dict) or key not in manifest]
    if missing:
        raise RecordError(f"{folder}/{MANIFEST}: not the manifest of a prepared set (no {missing[0]}); {_AGAIN}")
    for key in ("virtual_readers", "row_group_size"):
        if type(manifest[key]) is not int or manifest[key] < 1:
            raise RecordError(f"{folder}/{MANIFEST}: {key} is {manifest[key]!r}, not a positive number; {_AGAIN}")
    version = manifest["schema_version"]
    if version != SCHEMA_VERSION:
        remedy = "upgrade hf-llava-vqa" if version > SCHEMA_VERSION else "prepare the data again"
        found = f"schema_version is {version}, this version reads {SCHEMA_VERSION}"
        raise RecordError(f"{folder}/{MANIFEST}: {found}: {remedy}")
    return manifest


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    unfinished = folder / f"{MANIFEST}.incomplete"
    with unfinished.open("w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, folder / MANIFEST)


def _checked_shard(folder: Folder, shard: dict[str, Any]) -> str:
    try:
        found = folder.find(shard["file"])  # the manifest may be somebody else's
    except ImageError as error:
        raise RecordError(f"{folder}/{MANIFEST}: {error}") from error
    if found is None:
        raise RecordError(f"{folder}/{shard['file']}: the manifest lists it, but it is missing; {_AGAIN}")
    file, size = found
    if size != shard["bytes"]:
        raise RecordError(f"{file}: {size:,} bytes where the manifest says {shard['bytes']:,}; {_AGAIN}")
    return file
