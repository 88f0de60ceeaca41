"""Loader workers that die: which record they were reading; and workers that must not die with a signal to the run."""

import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.data import get_worker_info

from hf_llava_vqa.errors import TrainingError

SLOT = 1000
"""Bytes kept of the ids of one batch."""


class WatchedCollator:
    """A collator that leaves, in memory shared with the trainer, the ids of the records it is working on.

    Each worker has a slot: its process id, and the image ids of its batch as text that ends at the first zero byte. In
    a worker, the first call also leaves the trainer's process group: a terminal's Ctrl-C and a launcher's SIGTERM go
    to the whole group, and a trainer whose workers are dead cannot finish its step. Workers end with the trainer
    all the same: torch has them watch it.

    Args:
        collate: the collator, called with rows.
        workers: number of loader workers; 0 if the trainer reads itself.
    """

    def __init__(self, collate: Callable[[Sequence[dict[str, Any]]], Any], workers: int) -> None:
        self.collate = collate
        self._slots = torch.zeros(max(workers, 1), SLOT + 1, dtype=torch.uint8).share_memory_()
        self._processes = torch.zeros(max(workers, 1), dtype=torch.int64).share_memory_()

    def __call__(self, rows: Sequence[dict[str, Any]]) -> Any:
        info = get_worker_info()
        worker = info.id if info else 0
        if info and os.getpgrp() != os.getpid():
            os.setpgid(0, 0)
        self._processes[worker] = os.getpid()
        slot = self._slots[worker].numpy()
        names = ", ".join(map(_name, rows)).encode()[:SLOT]
        slot[: len(names)] = list(names)
        slot[len(names) :] = 0
        try:
            return self.collate(rows)
        finally:
            slot[0] = 0

    def in_progress(self) -> dict[int, str]:
        """Worker -> image ids of the batch it is making, or was making when it died."""
        texts = (bytes(slot.numpy()).split(b"\0")[0].decode(errors="replace") for slot in self._slots)
        return {worker: text for worker, text in enumerate(texts) if text}

    def explain(self, error: RuntimeError) -> TrainingError | None:
        """The error to raise for torch's report of a dead worker; None for other errors."""
        found = re.search(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) ([^.]+)", str(error))
        if not found:
            return None
        dead = [int(pid) for pid in found[1].split(",")]
        reading = {worker: text for worker, text in self.in_progress().items() if int(self._processes[worker]) in dead}
        where = "; ".join(f"worker {worker} was reading {text}" for worker, text in reading.items())
        return TrainingError(
            f"a loader worker {found[2]}: {where or 'it was between two batches'}. Memory may have "
            "run out (fewer --dataloader_num_workers need less), or that file may be damaged; then go on with "
            "--resume_from_checkpoint auto"
        )


def _name(row: dict[str, Any]) -> str:
    """The row's image id, or the id of a row of TRL's."""
    return str(row.get("image_id", row.get("id", "a row without id")))
