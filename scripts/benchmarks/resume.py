"""Resuming a stream: time to the first batch at an early and a late step, beside skipping what was seen.

The set is made on the spot and walked many times: the late step lies in a pass far from the first. Skipping reads the
same set as a plain stream of `datasets`, which knows no places, up to the late step.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from datasets import IterableDataset

from hf_llava_vqa.data import load_records
from hf_llava_vqa.data.prepared.row_groups import ReadGroup, RowGroups
from hf_llava_vqa.data.streams import RecordStream, StreamLoader
from hf_llava_vqa.flags import positive
from hf_llava_vqa.images import open_image
from scripts.benchmarks.photos import prepare

PACKAGES = ("hf-llava-vqa", "datasets", "pyarrow", "pillow", "torch")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--records", type=positive, default=4096, help="of the set (default: 4096)")
    parser.add_argument("--width", type=positive, default=64, help="of the JPEGs, in pixels (default: 64)")
    parser.add_argument("--batch", type=positive, default=16, help="rows a step (default: 16)")
    parser.add_argument("--steps", type=int, nargs=2, default=[10, 10_000], metavar="N", help="early and late step")
    parser.add_argument("--rounds", type=positive, default=15, help="of each (default: 15)")


def measure(args: argparse.Namespace) -> tuple[list[list[str]], dict[str, float], dict[str, float]]:
    """Return a table, how much faster resuming is than at the early step and than skipping, and the figures."""
    early, late = args.steps
    seconds: dict[int, list[float]] = {early: [], late: []}
    opened = {}
    with tempfile.TemporaryDirectory() as folder:
        photos = prepare(Path(folder, "photos"), args.records, args.width)
        stream = load_records("parquet", path=photos, streaming=True)
        for _ in range(args.rounds):
            for step in args.steps:
                groups = CountedGroups(stream.sets[0])
                seconds[step].append(first_batch(RecordStream([groups]), step, args.batch))
                opened[step] = len(groups.opened)
        skipping = first_batch(stream.skip(0), late, args.batch)
    medians = {step: statistics.median(times) for step, times in seconds.items()}
    table = [["resume at step", "ms to the first batch", "row groups opened"]]
    table += [[f"{step:,}", f"{1000 * medians[step]:.1f}", str(opened[step])] for step in args.steps]
    table += [[f"{late:,}, skipping", f"{1000 * skipping:.1f}", ""]]
    ratios = {
        "late_over_early_seconds": round(medians[late] / medians[early], 3),
        "skipping_over_late_seconds": round(skipping / medians[late], 1),
    }
    figures = {f"step_{step}_ms": round(1000 * medians[step], 3) for step in args.steps}
    figures |= {f"step_{step}_row_groups": opened[step] for step in args.steps}
    return table, ratios, figures | {f"step_{late}_skipping_ms": round(1000 * skipping, 1)}


@dataclass
class CountedGroups:
    """A set that notes which of its row groups are read."""

    groups: RowGroups
    opened: list[int] = field(default_factory=list)

    @property
    def sizes(self) -> Sequence[int]:
        """Those of the set."""
        return self.groups.sizes

    @property
    def virtual_readers(self) -> int:
        """Those of the set."""
        return self.groups.virtual_readers

    @property
    def fingerprint(self) -> str:
        """That of the set."""
        return self.groups.fingerprint

    def reader(self) -> ReadGroup:
        """The set's own, with a note of what it reads."""
        read = self.groups.reader()

        def note(group: int) -> pa.Table:
            self.opened.append(group)
            return read(group)

        return note


def first_batch(stream: IterableDataset, step: int, batch: int) -> float:
    """Return the seconds until a run that goes on at a step has its first batch of pictures."""
    start = time.perf_counter()
    loader = StreamLoader(
        stream,
        collate_fn=lambda rows: [open_image(row["images"][0]) for row in rows],
        batch_size=batch,
        workers=0,
        rank=0,
        world_size=1,
        seed=0,
        start=step * batch,
        stop=(step + 1) * batch,
    )
    next(iter(loader))
    return time.perf_counter() - start
