"""When two runs count as the same, and in which order a run has to read: judged by what the runs left on disk.

A run that was killed has a history of several attempts. What survives of it is, for each step, the last time the
step was done: that is what the final weights come from.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, count, cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from training_run import Run, without_clock

SEED = 42  # the Trainer's default
READERS = 8  # virtual readers of the prepared set


# Reading what a run left


def journal(run: Run, name: str, rank: int) -> list[dict[str, Any]]:
    file = Path(run.folder, f"{name}-{rank}.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def surviving(run: Run, rank: int) -> list[dict[str, Any]]:
    """The backward passes of the last time each step was done, in the order of the steps."""
    lines = journal(run, "consumed", rank)
    last = {line["step"]: line["attempt"] for line in lines}
    kept = [line for line in lines if line["attempt"] == last[line["step"]]]
    return [{**line, "attempt": None} for line in sorted(kept, key=lambda line: line["step"])]


def result(run: Run, rank: int) -> dict[str, Any]:
    found = json.loads(Path(run.folder, f"result-{rank}.json").read_text())
    log = {f"log entry {number}": entry for number, entry in enumerate(found.pop("log"))}
    return {**found, **log}


def row_names(lines: list[dict[str, Any]]) -> list[list[str]]:
    """Names of the rows of each backward pass; a dialogue's id begins with its row's."""
    return [[dialogues[0].partition(".")[0] for dialogues in line["ids"]] for line in lines]


def checkpoint_hashes(run: Run) -> dict[str, dict[str, str]]:
    """Checkpoint -> file -> SHA-256. Left out: what names the run's own settings."""
    folders = sorted(Path(run.folder, "output").glob("checkpoint-*"))
    return {folder.name: {file.name: sha256(_content(file)) for file in _state_files(folder)} for folder in folders}


def _content(file: Path) -> bytes:
    """What is in a file; of the Trainer's state without times, settings, and whether a signal had come."""
    if file.name != "trainer_state.json":
        return file.read_bytes()
    state = json.loads(file.read_text())
    for name in ("eval_steps", "save_steps"):
        del state[name]
    del state["stateful_callbacks"]["TrainerControl"]
    return json.dumps(state | {"log_history": without_clock(state["log_history"])}).encode()


def _state_files(checkpoint: Path) -> list[Path]:
    return sorted(
        file
        for file in checkpoint.rglob("*")
        if file.is_file() and file.name not in ("MANIFEST.json", "training_recipe.json", "README.md")
    )


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# Equality


def assert_same_run(killed: Run, straight: Run, processes: int) -> None:
    """Everything that was trained, everything that decides how it would go on, and what it was trained on."""
    for rank in range(processes):
        assert_same(result(killed, rank), result(straight, rank))
        assert_same(
            *({f"backward {n}": line for n, line in enumerate(surviving(run, rank))} for run in (killed, straight))
        )
    saved = checkpoint_hashes(straight)
    for name, files in checkpoint_hashes(killed).items():
        assert_same(files, saved[name])


def assert_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    missing = object()
    names = {**ours, **theirs}
    differing = [name for name in names if ours.get(name, missing) != theirs.get(name, missing)]
    assert not differing, f"{differing}; first {ours.get(differing[0])}, {theirs.get(differing[0])}"


# The order


@dataclass(frozen=True)
class Rows:
    """The rows of the prepared set: their names by row group, and the hashes of their pictures."""

    groups: list[list[str]]
    pictures: dict[str, str]

    @classmethod
    def of(cls, folder: Path) -> "Rows":
        manifest = json.loads((folder / "manifest.json").read_text())
        groups, pictures = [], {}
        for entry in manifest["splits"]["train"]["shards"]:
            with pq.ParquetFile(folder / entry["file"]) as shard:
                for number in range(shard.num_row_groups):
                    rows = shard.read_row_group(number).to_pylist()
                    groups.append([row["image_id"] for row in rows])
                    pictures |= {row["image_id"]: sha256(row["images"][0]["bytes"]) for row in rows}
        return cls(groups, pictures)

    @property
    def names(self) -> list[str]:
        return list(chain.from_iterable(self.groups))


def micro_batches(rows: Rows, run: Run, rank: int, processes: int) -> Iterator[list[str]]:
    """The endless sequence of micro-batches of a rank: whatever the number of ranks, it deals out one order."""
    if run.source != "map-style":
        order = stream_order(rows.groups) if run.source == "stream" else cycle(rows.names)
        yield from batched(islice(order, rank, None, processes), run.rows)
    for epoch in count():
        in_order = [rows.names[index] for index in sampler_order(len(rows.names), epoch)]
        dealt = list(batched(in_order, run.rows))
        dealt += dealt[: -len(dealt) % processes]  # accelerate completes the last round from the first
        yield from dealt[rank::processes]


def stream_order(groups: list[list[str]]) -> Iterator[str]:
    """Row groups by their hash in each pass, laid end to end, cut into a span for each reader, read in turns."""
    for epoch in count():
        order = sorted(range(len(groups)), key=lambda group: sha256(f"{SEED}/{epoch}/{group}".encode()))
        spans = np.array_split([name for group in order for name in groups[group]], READERS)
        for turn in range(len(spans[0])):
            yield from (str(span[turn]) for span in spans if turn < len(span))


def batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def sampler_order(rows: int, epoch: int) -> list[int]:
    """The Trainer's own order of a pass, as accelerate makes it from the seed."""
    return torch.randperm(rows, generator=torch.Generator().manual_seed(SEED + epoch)).tolist()


def micro_batches_of_steps(run: Run, rows: int, processes: int) -> list[int]:
    """How many micro-batches each optimizer step takes: the last one of a pass over a data set takes what is left."""
    if run.source != "map-style":
        return [run.accumulation] * run.max_steps
    in_pass = -(-rows // (run.rows * processes))
    of_pass = [len(step) for step in batched(range(in_pass), run.accumulation)]
    return [of_pass[step % len(of_pass)] for step in range(run.max_steps)]


def assert_read_in_order(run: Run, rows: Rows, processes: int) -> None:
    """Every rank did the backward passes it should, on the rows it should."""
    expected = sum(micro_batches_of_steps(run, len(rows.names), processes))
    for rank in range(processes):
        lines = surviving(run, rank)
        assert result(run, rank)["updates"] == [run.max_steps]
        assert len(lines) == expected
        assert row_names(lines) == list(islice(micro_batches(rows, run, rank, processes), expected))


def assert_nothing_seen_was_decoded(run: Run, rows: Rows, processes: int) -> None:
    """Each attempt opened the pictures from its checkpoint on, and no others; loader workers may be ahead."""
    ahead = 4 * run.rows * run.workers
    for rank in range(processes):
        for start in journal(run, "started", rank):
            done = sum(micro_batches_of_steps(run, len(rows.names), processes)[: start["step"]])
            attempt = [line for line in journal(run, "decoded", rank) if line["attempt"] == start["attempt"]]
            upcoming = islice(micro_batches(rows, run, rank, processes), done, None)
            pictures = (rows.pictures[name] for names in upcoming for name in names)
            assert Counter(line["picture"] for line in attempt) <= Counter(islice(pictures, len(attempt) + ahead))
