"""Writing one shard of a prepared set: what a worker process does with a few hundred records.

A shard depends on its records and on the choices in its task only, so any worker may write it, at any time.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from hf_llava_vqa.bad_images import BadImage
from hf_llava_vqa.data.prepared.scaling import scaled_down
from hf_llava_vqa.errors import ImageError
from hf_llava_vqa.images import check_image, open_image, read_image_bytes
from hf_llava_vqa.records import FEATURES, Record, validate_record


@dataclass(frozen=True)
class WrittenShard:
    """A complete shard, as the journal keeps it.

    Attributes:
        records: fingerprint of the records it was made from.
        left_out: those of them whose pictures cannot be opened.
    """

    file: str
    rows: int
    bytes: int
    sha256: str
    records: str
    left_out: list[BadImage] = field(default_factory=list)


@dataclass(frozen=True)
class Choices:
    """How records become rows, the same for all shards of a split.

    Attributes:
        row_group_size: rows that are read together.
        max_side: pixels of a picture's longer side; larger ones are scaled down.
        on_bad_image: "error", or "skip" to leave out records whose pictures cannot be opened.
        check: "decode", or "header" to find out about damaged pictures later.
    """

    row_group_size: int
    max_side: int | None = None
    on_bad_image: str = "error"
    check: str = "decode"


@dataclass(frozen=True)
class ShardTask:
    """A shard that is to be there.

    Attributes:
        file: its name in the folder.
        records: its rows, with images as paths or bytes.
        known: what an earlier run wrote under this name.
    """

    folder: Path
    file: str
    records: Sequence[Record]
    choices: Choices
    known: WrittenShard | None


class RowFacts(NamedTuple):
    """What must be unique or the same in a whole split, and what is counted."""

    image_id: str
    source: str
    dialogue_ids: list[str]
    answers: int


def complete_shard(task: ShardTask) -> tuple[WrittenShard, list[RowFacts]]:
    """Write a shard, unless an earlier run wrote it from the same records and it is whole.

    Returns:
        The shard and the facts about its rows.

    Raises:
        RecordError: a record that breaks the format.
        ImageError: an image that cannot be opened, unless such records are left out.
    """
    for record in task.records:
        validate_record(record)
    fingerprint = _fingerprint(task.records)
    known = task.known
    shard = known if known and known.records == fingerprint and _is_whole(task, known) else _write(task, fingerprint)
    left_out = {bad.image_id for bad in shard.left_out}
    return shard, [_facts(record) for record in task.records if record["image_id"] not in left_out]


def _fingerprint(records: Sequence[Record]) -> str:
    """SHA-256 over everything but the pictures, of which the names of the files count."""
    digest = hashlib.sha256()
    for record in records:
        values = {key: record[key] for key in FEATURES}
        values["images"] = [_file_name(image["path"]) for image in record["images"]]
        digest.update(json.dumps(values).encode())
    return digest.hexdigest()


def _is_whole(task: ShardTask, known: WrittenShard) -> bool:
    path = task.folder / known.file
    return path.is_file() and path.stat().st_size == known.bytes and _sha256(path) == known.sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _facts(record: Record) -> RowFacts:
    dialogues = record["dialogues"]
    answers = sum(len(dialogue["answers"]) for dialogue in dialogues)
    return RowFacts(record["image_id"], record["source"], [dialogue["id"] for dialogue in dialogues], answers)


def _write(task: ShardTask, fingerprint: str) -> WrittenShard:
    path = task.folder / task.file
    unfinished = path.with_name(path.name + ".incomplete")
    schema = FEATURES.arrow_schema
    left_out: list[BadImage] = []
    # No dictionary, since no two photos are the same, and no statistics, which skip nothing in a shuffled set but would
    # be most of the footer that a stream reads; the page index lets readers skip to a row.
    options: dict[str, Any] = {"use_dictionary": False, "write_statistics": False, "write_page_index": True}
    count = 0
    with pq.ParquetWriter(unfinished, schema, **options) as writer:
        for group in _groups(_embedded(task, left_out), task.choices.row_group_size):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
            count += len(group)
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    size, sha256 = unfinished.stat().st_size, _sha256(unfinished)
    os.replace(unfinished, path)
    return WrittenShard(task.file, count, size, sha256, fingerprint, left_out)


def _groups(rows: Iterator[Record], size: int) -> Iterator[list[Record]]:
    group: list[Record] = []
    for row in rows:
        group.append(row)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _embedded(task: ShardTask, left_out: list[BadImage]) -> Iterator[Record]:
    """Yield the records with the bytes and hashes of their pictures; those with bad ones go to `left_out` instead."""
    for record in task.records:
        stored = _stored_images(record, task.choices)
        if not isinstance(stored, BadImage):
            hashes = [hashlib.sha256(image["bytes"]).hexdigest() for image in stored]
            yield {**record, "images": stored, "image_sha256": hashes}
        elif task.choices.on_bad_image == "skip":
            left_out.append(stored)
        else:
            raise stored.error()


def _stored_images(record: Record, choices: Choices) -> list[dict[str, Any]] | BadImage:
    stored = []
    for image in record["images"]:
        try:
            data = read_image_bytes(image)
            file = {"bytes": data, "path": image["path"]}
            size = check_image(file, decode=choices.check == "decode")
            if choices.max_side is not None and max(size) > choices.max_side:
                data = scaled_down(data, open_image(file), choices.max_side)
        except ImageError as error:
            return BadImage(record["image_id"], image["path"] or "", str(error))
        stored.append({"bytes": data, "path": _file_name(image["path"])})
    return stored


def _file_name(path: str | None) -> str | None:
    """Reduce a path to the name of the image file: a published set must not tell where it was made."""
    if not path:
        return None
    member = path.rpartition("::")[0] if path.startswith(("zip://", "tar://")) else path
    return PurePosixPath(member).name
