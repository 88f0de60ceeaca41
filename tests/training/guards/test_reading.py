"""Loader workers: the record a dead one was reading, and signals to the group that they outlive."""

import os
import signal
import time
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, get_worker_info

from hf_llava_vqa.errors import TrainingError
from hf_llava_vqa.training.guards import WatchedCollator


def rows(count: int) -> list[dict[str, Any]]:
    return [{"image_id": f"VizWiz_{number:03}.jpg"} for number in range(count)]


class Deadly:
    """A collator that ends its process at one record."""

    def __init__(self, record: str, end: Any) -> None:
        self.record = record
        self.end = end

    def __call__(self, batch: list[dict[str, Any]]) -> list[str]:
        if any(row["image_id"] == self.record for row in batch):
            self.end()
        return [row["image_id"] for row in batch]


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def exited() -> None:
    os._exit(1)


@pytest.mark.parametrize("end", [killed, exited])
def test_the_record_a_dead_worker_was_reading_is_named(end) -> None:
    collate = WatchedCollator(Deadly("VizWiz_006.jpg", end), workers=2)
    loader = DataLoader(rows(12), batch_size=2, collate_fn=collate, num_workers=2)
    with pytest.raises(RuntimeError, match="DataLoader worker") as died:
        list(loader)
    explained = collate.explain(died.value)
    assert isinstance(explained, TrainingError)
    assert "worker 1 was reading VizWiz_006.jpg, VizWiz_007.jpg" in str(explained)
    assert "--dataloader_num_workers" in str(explained)
    assert "--resume_from_checkpoint auto" in str(explained)
    assert "\n" not in str(explained)


@pytest.mark.parametrize(
    ("message", "what"),
    [
        ("DataLoader worker (pid(s) 77, 78) exited unexpectedly", "exited unexpectedly"),
        ("DataLoader worker (pid 77) is killed by signal: Killed. ", "is killed by signal: Killed"),
        (
            "DataLoader worker (pid 77) is killed by signal: Bus error. It is possible that dataloader's workers are "
            "out of shared memory. Please try to raise your shared memory limit.",
            "is killed by signal: Bus error",
        ),
        (
            "DataLoader worker (pid 77) exited unexpectedly with exit code 1. Details are lost due to "
            "multiprocessing. Rerunning with num_workers=0 may give better error trace.",
            "exited unexpectedly with exit code 1",
        ),
    ],
)
def test_every_report_of_torch_is_understood(message, what) -> None:
    explained = WatchedCollator(list, workers=2).explain(RuntimeError(message))
    assert str(explained).startswith(f"a loader worker {what}: it was between two batches. ")


def test_other_errors_are_none_of_ours() -> None:
    assert WatchedCollator(list, workers=2).explain(RuntimeError("CUDA error: out of memory")) is None


def test_batches_pass_unchanged_and_leave_nothing_behind() -> None:
    seen = []
    collate = WatchedCollator(lambda batch: seen.append(collate.in_progress()) or batch, workers=0)
    assert list(DataLoader(rows(3), batch_size=2, collate_fn=collate)) == [rows(3)[:2], rows(3)[2:]]
    assert seen == [{0: "VizWiz_000.jpg, VizWiz_001.jpg"}, {0: "VizWiz_002.jpg"}]
    assert collate.in_progress() == {}


def test_a_batch_that_is_refused_is_not_in_progress() -> None:
    def refuse(batch: Any) -> None:
        raise ValueError

    collate = WatchedCollator(refuse, workers=0)
    with pytest.raises(ValueError):  # noqa: PT011
        collate(rows(1))
    assert collate.in_progress() == {}


@pytest.mark.parametrize(
    ("batch", "text"),
    [
        ([{"id": 7, "messages": []}], "7"),
        ([{"messages": []}], "a row without id"),
        ([{"image_id": "é" * 600}], "é" * 500),
        ([{"image_id": "é" * 499 + "ab€"}], "é" * 499 + "ab"),
        ([{"image_id": "x" * 2000}], "x" * 1000),
    ],
)
def test_ids_as_they_come(batch, text) -> None:
    seen = []
    collate = WatchedCollator(lambda _: seen.append(collate.in_progress()[0]), workers=1)
    collate(batch)
    assert seen == [text]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_outlive_a_signal_to_the_trainers_group(number) -> None:
    """The test is a group of its own, as the process that a launcher starts, so that pytest's is left alone."""
    if (test := os.fork()) == 0:
        outlived = False
        try:
            outlived = workers_outlive(number)
        finally:
            os._exit(0 if outlived else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(test, 0)[1]) == 0


def workers_outlive(number: int) -> bool:
    os.setpgid(0, 0)
    loader = DataLoader(rows(20), batch_size=1, collate_fn=WatchedCollator(process_id, 2), num_workers=2)
    batches = iter(loader)
    first = [next(batches), next(batches)]
    signal.signal(number, lambda *_: None)
    os.killpg(0, number)
    return {*first, *batches} == {*first}


def process_id(batch: Any) -> int:
    return os.getpid()


def test_a_worker_that_torch_terminates_goes() -> None:
    loader = DataLoader(rows(4), batch_size=1, collate_fn=WatchedCollator(busy, 1), num_workers=1)
    batches = iter(loader)
    next(batches)
    (worker,) = batches._workers
    worker.terminate()
    worker.join(30)
    assert worker.exitcode == 0


def busy(batch: Any) -> torch.Tensor:
    if batch[0]["image_id"] != "VizWiz_000.jpg":
        time.sleep(600)
    assert get_worker_info() is not None
    return torch.zeros(1)
