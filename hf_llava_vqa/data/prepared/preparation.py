"""Writing prepared sets: records checked, put in an order of their own, and stored in shards with their images inside.

    FOLDER/manifest.json
    FOLDER/README.md                                the card
    FOLDER/data/train-00000-of-00041.parquet ...
    FOLDER/bad_images.jsonl                         what was left out, if that is allowed
    FOLDER/.train.progress                          while it is being written

A shard gets its name when it is complete, and a split enters the manifest last: what is listed is whole. Rows are
put in an order of their own, by the SHA-256 of seed and image id: neighbours are unrelated, and the order depends
neither on the order of the source nor on the version of a random generator.
"""

import hashlib
import multiprocessing
import os
import re
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from datasets import Dataset
from tqdm import tqdm

from hf_llava_vqa.bad_images import BAD_IMAGES_FILE, BadImage, BadImagePolicy
from hf_llava_vqa.data.prepared.card import CARD, card
from hf_llava_vqa.data.prepared.folders import LocalFolder
from hf_llava_vqa.data.prepared.journal import Journal
from hf_llava_vqa.data.prepared.manifest import MANIFEST, read_manifest, write_manifest, write_whole
from hf_llava_vqa.data.prepared.row_groups import ROW_GROUP_SIZE, VIRTUAL_READERS
from hf_llava_vqa.data.prepared.shard_writing import Choices, RowFacts, ShardTask, WrittenShard, complete_shard
from hf_llava_vqa.errors import ConfigError, RecordError
from hf_llava_vqa.records import SCHEMA_VERSION, Record

ON_BAD_IMAGE = ("error", "skip")
"""Choices of `bad_images` that preparation takes."""

CHECKS = ("decode", "header")
"""How thoroughly pictures are looked at."""

Completed = tuple[WrittenShard, list[RowFacts]]


def write_shards(
    records: Dataset | Iterable[Record],
    folder: str | Path,
    *,
    split: str,
    rows_per_shard: int = 512,
    row_group_size: int = ROW_GROUP_SIZE,
    seed: int = 0,
    max_side: int | None = None,
    on_bad_image: str = "error",
    check: str = "decode",
    workers: int = 1,
    source_files: Mapping[str, str] | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Write one split of a prepared set. Other splits that the folder holds stay as they are.

    Every image is checked once, and stored as the bytes of its file. The shards are the same for any number of
    workers. A run that was interrupted goes on, if it is repeated with the same choices: shards that are there, whole,
    and made from the same records are kept.

    A worker holds the records of a shard, with the images that come inside them, and a row group of images that it
    reads from files.

    Args:
        records: of one source; a `Dataset` is read shard by shard.
        split: names the shards; letters, digits and underscores.
        rows_per_shard: records a file. Those left out leave their file shorter.
        row_group_size: rows that are read together; one for all splits of a folder.
        seed: of the order of the rows; one for all splits of a folder.
        max_side: scale pictures down whose longer side has more pixels, see `scaling.scaled_down`.
        on_bad_image: "error", or "skip" to leave records out whose pictures cannot be opened, and to name each in
            `bad_images.jsonl`.
        check: "decode" every image, or look at its "header" only, which does not see what is damaged or cut off.
        workers: processes; 1 for none besides this one. With more, a script has to hold back what it does under
            `if __name__ == "__main__"`, as processes are not forked from this one.
        source_files: names and SHA-256 of the files that the records were read from, for the card.
        progress: show a bar, if stderr is a terminal.

    Returns:
        The manifest.

    Raises:
        RecordError: a record that breaks the format, an image id or dialogue id that occurs twice, several sources.
        ImageError: an image that cannot be opened; names the record and the file.
        ConfigError: a split that cannot be named so or is there already, another seed or row group size
            than the folder's, another choice than that of the interrupted run, a worker that was killed.
    """
    folder = Path(folder)
    for name, value, allowed in (("on_bad_image", on_bad_image, ON_BAD_IMAGE), ("check", check, CHECKS)):
        if value not in allowed:
            raise ConfigError(f"{name} {value!r}: preparation takes one of {', '.join(allowed)}")
    choices = Choices(row_group_size, max_side, on_bad_image, check)
    rows = records if isinstance(records, Dataset) else list(records)
    order = _shuffled(rows, seed)
    manifest = _open_folder(folder, split, seed, row_group_size)
    settings = {"rows": len(order), "rows_per_shard": rows_per_shard, **asdict(choices)}
    tally = _Tally(source=manifest["source"])
    with Journal(folder / f".{split}.progress", settings) as journal:
        _remove_leftovers(folder, split, journal)
        parts = [order[start : start + rows_per_shard] for start in range(0, len(order), rows_per_shard)]
        files = [f"data/{split}-{number:05d}-of-{len(parts):05d}.parquet" for number in range(len(parts))]
        tasks = (
            ShardTask(folder, file, _take(rows, part), choices, journal.known.get(file))
            for file, part in zip(files, parts, strict=True)
        )
        bar = tqdm(total=len(order), desc=f"writing {split}", unit="image", disable=None if progress else True)
        with bar, closing(_completed(tasks, min(workers, len(parts)))) as completed:
            for shard, facts in completed:
                journal.add(shard)
                tally.add(shard, facts)
                bar.update(len(facts) + len(shard.left_out))
    manifest["source"] = tally.source
    added = {"max_side": max_side, "source_files": dict(source_files or {}), "shards": tally.listed()}
    manifest["splits"][split] = {**tally.counts(split), **added}
    for bad in tally.left_out:
        BadImagePolicy(on_bad_image, file=folder / BAD_IMAGES_FILE).leave_out(bad)
    write_whole(folder / CARD, card(manifest))
    write_manifest(folder, manifest)
    journal.path.unlink()
    return manifest


class _Tally:
    """What the manifest says about a split, and what must be unique or the same in all of it."""

    def __init__(self, source: str | None) -> None:
        self.source = source
        self.shards: list[WrittenShard] = []
        self._dialogue_ids: set[str] = set()
        self._answers = 0

    def add(self, shard: WrittenShard, rows: Iterable[RowFacts]) -> None:
        self.shards.append(shard)
        for row in rows:
            self._add_row(row)

    def _add_row(self, row: RowFacts) -> None:
        where = f"record {row.image_id!r}"
        if self.source is None:
            self.source = row.source
        if row.source != self.source:
            raise RecordError(f"{where}: source is {row.source!r} in a set of {self.source!r}; use two folders")
        for name in row.dialogue_ids:
            if name in self._dialogue_ids:
                raise RecordError(f"{where}: dialogue id {name!r} is taken by another image; rename one")
            self._dialogue_ids.add(name)
        self._answers += row.answers

    @property
    def left_out(self) -> list[BadImage]:
        return [bad for shard in self.shards for bad in shard.left_out]

    def counts(self, split: str) -> dict[str, int]:
        rows = sum(shard.rows for shard in self.shards)
        if rows == 0:
            raise RecordError(f"no picture of the split {split} can be opened; the first: {self.left_out[0].error()}")
        counts = {"rows": rows, "dialogues": len(self._dialogue_ids), "answers": self._answers}
        return {**counts, "left_out": len(self.left_out)}

    def listed(self) -> list[dict[str, Any]]:
        names = ("file", "rows", "bytes", "sha256")
        return [{name: getattr(shard, name) for name in names} for shard in self.shards]


def _completed(tasks: Iterable[ShardTask], workers: int) -> Generator[Completed, None, None]:
    """Yield the shards in their order. At most one task more than there are workers waits or runs."""
    if workers == 1:
        yield from map(complete_shard, tasks)
        return
    pool = ProcessPoolExecutor(workers, mp_context=worker_context(), initializer=_start_worker)
    running: deque[Future[Completed]] = deque()
    try:
        for task in tasks:
            running.append(pool.submit(complete_shard, task))
            if len(running) > workers:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    except BrokenProcessPool as error:
        raise ConfigError(
            "a worker was killed, most likely for want of memory; to go on, run it again with fewer workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def worker_context() -> ForkServerContext:
    """How workers start: not forked from this process, whose threads and open archives are its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([complete_shard.__module__])  # imported once for all workers
    return context


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one stops the others
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A worker whose parent was killed would go on writing, beside those of the next run.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _take(records: Dataset | Sequence[Record], indices: list[int]) -> list[Record]:
    """Rows as they are stored: images undecoded."""
    if isinstance(records, Dataset):
        return records.select(indices).to_list()
    return [records[index] for index in indices]


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


def _open_folder(folder: Path, split: str, seed: int, row_group_size: int) -> dict[str, Any]:
    """Make the folder ready for a new split, and check what it holds."""
    if not re.fullmatch(r"\w+", split, re.ASCII):
        raise ConfigError(f"split {split!r}: use letters, digits and underscores, as in train")
    present = sorted((folder / "data").glob(f"{split}-*.parquet*"))
    if (folder / MANIFEST).exists():
        manifest = read_manifest(LocalFolder(folder))
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
    (folder / "data").mkdir(parents=True, exist_ok=True)
    write_manifest(folder, manifest)
    return manifest


def _remove_leftovers(folder: Path, split: str, journal: Journal) -> None:
    """Remove what earlier runs left that is not in the journal."""
    for path in (folder / "data").glob(f"{split}-*.parquet*"):
        if str(path.relative_to(folder)) not in journal.known:
            path.unlink()
