"""Where questions come from: benchmarks as they are published, and prepared sets."""

import importlib
import inspect
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, IterableDataset, NamedSplit

from hf_llava_vqa.data.benchmark import Benchmark
from hf_llava_vqa.data.prepared.folders import is_on_hub
from hf_llava_vqa.data.prepared.manifest import MANIFEST
from hf_llava_vqa.data.prepared.row_groups import TableGroups
from hf_llava_vqa.data.prepared.shards import read_shards
from hf_llava_vqa.data.trl_rows import read_trl_rows
from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.records import UNDECODED_FEATURES

BENCHMARKS = {
    "vizwiz": "hf_llava_vqa.data.benchmarks.vizwiz",
    "vizwiz_competition": "hf_llava_vqa.data.benchmarks.vizwiz_competition",
    "easy_vqa": "hf_llava_vqa.data.benchmarks.easy_vqa",
    "dacon": "hf_llava_vqa.data.benchmarks.dacon",
    "ubiai": "hf_llava_vqa.data.benchmarks.ubiai",
    "llava_json": "hf_llava_vqa.data.benchmarks.llava_json",
    "vqav2": "hf_llava_vqa.data.benchmarks.vqav2",
    "gqa": "hf_llava_vqa.data.benchmarks.gqa",
    "textvqa": "hf_llava_vqa.data.benchmarks.textvqa",
    "scienceqa": "hf_llava_vqa.data.benchmarks.scienceqa",
    "pope": "hf_llava_vqa.data.benchmarks.pope",
    "mmbench": "hf_llava_vqa.data.benchmarks.mmbench",
    "mmbench_cn": "hf_llava_vqa.data.benchmarks.mmbench_cn",
    "mme": "hf_llava_vqa.data.benchmarks.mme",
    "seed": "hf_llava_vqa.data.benchmarks.seed",
    "mmvet": "hf_llava_vqa.data.benchmarks.mmvet",
    "llava_bench": "hf_llava_vqa.data.benchmarks.llava_bench",
    "coco_captions": "hf_llava_vqa.data.benchmarks.coco_captions",
    "flickr30k": "hf_llava_vqa.data.benchmarks.flickr30k",
    "nocaps": "hf_llava_vqa.data.benchmarks.nocaps",
    "conceptual": "hf_llava_vqa.data.benchmarks.conceptual",
    "concadia": "hf_llava_vqa.data.benchmarks.concadia",
}
"""The module of each benchmark; it is imported when the benchmark is asked for."""

_FOLDERS = {
    "parquet": (read_shards, "the folder written by scripts/prepare_data.py"),
    "trl": (read_trl_rows, "a folder or a data set of the Hub with TRL's columns"),
}


def get_benchmark(name: str) -> Benchmark:
    """Return a benchmark by its name.

    Raises:
        ConfigError: there is no such benchmark.
    """
    if name not in BENCHMARKS:
        raise ConfigError(f"unknown benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    return importlib.import_module(BENCHMARKS[name]).BENCHMARK


def load_records(
    source: str, *, split: str | None = None, streaming: bool = False, **paths: Any
) -> Dataset | IterableDataset:
    """Load the records of a benchmark, or of a folder written by `scripts/prepare_data.py`.

    Images are left undecoded, as `{"bytes", "path"}` for `images.open_image`. Everything but the pixels is checked
    before the first row is returned, streamed or not.

    Args:
        source: a key of `BENCHMARKS`, "parquet" for a prepared set, or "trl" for rows with TRL's columns, which are
            returned as they are.
        split: may be left out of a set that has one split only, but for benchmarks.
        streaming: return a `RecordStream` with the same rows in the same order; training reads it in its own order.
        paths: where the files are: `root`, or `annotations` and `images`; `path` for "parquet" and "trl", a folder or
            `hf://datasets/USER/NAME[@REVISION]`.

    Raises:
        ConfigError: an unknown source or split, a missing or unexpected path.
        RecordError: files, rows or images that are missing or of another shape.
    """
    if source in _FOLDERS:
        read, what = _FOLDERS[source]
        _check_paths(source, paths, allowed=("path",))
        if "path" not in paths:
            raise ConfigError(f"{source} needs path: {what}")
        return read(paths["path"], split=split, streaming=streaming)
    if source not in BENCHMARKS:
        raise ConfigError(f"unknown source {source!r}; there are {', '.join([*BENCHMARKS, *_FOLDERS])}")
    benchmark = get_benchmark(source)
    _, *allowed = inspect.signature(benchmark.read).parameters
    _check_paths(source, paths, allowed)
    if split not in benchmark.splits:
        raise ConfigError(f"{source}: split must be one of {', '.join(benchmark.splits)}, not {split!r}")
    table = _table(benchmark.read(split, **paths))
    if streaming:
        from hf_llava_vqa.data.streams import RecordStream  # imports torch, which a data set does without

        return RecordStream([TableGroups(table)], split=split)
    return Dataset(table, split=NamedSplit(split))


def _table(records: Iterator[dict[str, Any]]) -> pa.Table:
    """Records as a table, made batch by batch: Python's objects take several times the memory of Arrow's."""
    schema = UNDECODED_FEATURES.arrow_schema
    batches = []
    while batch := list(islice(records, 1000)):
        batches.append(pa.RecordBatch.from_pylist(batch, schema=schema))
    return pa.Table.from_batches(batches, schema=schema)


def load_folder(
    source: str, folder: str | Path | None, *, split: str | None, streaming: bool = False, follow_symlinks: bool = False
) -> Dataset | IterableDataset:
    """Load a split from one folder, be it the source's files as published or a prepared set; recipes and scripts do.

    A prepared set may lie on the Hub, `hf://datasets/USER/NAME[@REVISION]`. For files as published, `follow_symlinks`
    allows links in folders of images that lead out of them. Raises as `load_records`.
    """
    if folder is None:
        return load_records(source, split=split, streaming=streaming)
    if source in _FOLDERS:
        return load_records(source, split=split, streaming=streaming, path=folder)
    if is_on_hub(folder) or (Path(folder) / MANIFEST).is_file():
        return load_records("parquet", split=split, streaming=streaming, path=folder)
    links = {"follow_symlinks": True} if follow_symlinks else {}
    return load_records(source, split=split, streaming=streaming, root=folder, **links)


def load_folders(
    source: str,
    folders: Sequence[str | Path] | None,
    *,
    split: str | None,
    streaming: bool = False,
    weights: Sequence[float] | None = None,
    follow_symlinks: bool = False,
) -> Dataset | IterableDataset:
    """Load a split from one folder, or the weighted mixture of several, which is a stream.

    Args:
        source: as in `load_records`; folders that hold prepared sets need not be of it.
        folders: one or more; None for a source that needs none.
        split: the same of all folders.
        streaming: needed for more than one folder.
        weights: one a folder; by default as many as it has rows, so that all rows come equally often.
        follow_symlinks: as in `load_folder`.

    Raises:
        ConfigError: several folders without streaming, weights that do not fit; and as `load_folder`.
    """
    if folders is None or len(folders) == 1:
        if weights is not None:
            raise ConfigError("weights are for a mixture of several folders; leave them out")
        folder = folders[0] if folders else None
        return load_folder(source, folder, split=split, streaming=streaming, follow_symlinks=follow_symlinks)
    if not streaming:
        raise ConfigError("several folders are read as a mixture, and a mixture is a stream: add --streaming True")
    from hf_llava_vqa.data.streams import mix_streams  # imports torch, which a data set does without

    streams = [
        load_folder(source, folder, split=split, streaming=True, follow_symlinks=follow_symlinks) for folder in folders
    ]
    return mix_streams(streams, weights or [stream.num_rows for stream in streams])


def _check_paths(source: str, given: Iterable[str], allowed: Sequence[str]) -> None:
    for name in given:
        if name not in allowed:
            takes = f"it takes {', '.join(allowed)}" if allowed else "it takes no paths"
            raise ConfigError(f"{source} does not take {name!r}; {takes}")
