"""Ranks that stop answering: who is blamed, and that the others end."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import TrainerControl, TrainerState

from hf_llava_vqa.training.guards.heartbeat import EXIT_CODE, Heartbeat


def begin(folder: Path, timeout: float, rank: int = 0, world_size: int = 2) -> Heartbeat:
    heartbeat = Heartbeat(timeout)
    args = SimpleNamespace(output_dir=str(folder), process_index=rank, world_size=world_size)
    heartbeat.on_train_begin(args, TrainerState(global_step=7), TrainerControl())
    return heartbeat


def test_the_pulse_is_on_disk_while_training_and_gone_afterwards(tmp_path) -> None:
    heartbeats = [begin(tmp_path, timeout=600, rank=rank) for rank in range(2)]
    for rank, heartbeat in enumerate(heartbeats):
        told = json.loads((tmp_path / ".heartbeat" / f"rank-{rank}.json").read_text())
        assert {name: told[name] for name in ("rank", "step", "phase", "process")} == {
            **{"rank": rank, "step": 7, "phase": "reading data", "process": os.getpid()}
        }
        heartbeat.on_train_end(None, TrainerState(), TrainerControl())
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_one_process_has_no_heartbeat(tmp_path) -> None:
    begin(tmp_path, timeout=0.1, world_size=1).close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("ticks", "asked"),
    [
        (range(40), 0),  # seconds at which the thread wakes
        (range(44), 3),
        ([0, 1, 2, 10_000, 10_001], 0),  # the whole process was suspended, not waiting
    ],
)
def test_waiting_is_counted_in_running_time(tmp_path, monkeypatch, ticks, asked) -> None:
    heartbeat, calls = Heartbeat(timeout=40), []
    clock = iter(ticks)
    wakes = iter([False] * (len(ticks) - 1) + [True])
    monkeypatch.setattr("hf_llava_vqa.training.guards.heartbeat.time.monotonic", lambda: next(clock))
    monkeypatch.setattr(heartbeat, "_over", SimpleNamespace(wait=lambda _: next(wakes)))
    monkeypatch.setattr(heartbeat, "_end_if_stuck", calls.append)
    heartbeat._watch(tmp_path / ".heartbeat", rank=0, world_size=2)
    assert len(calls) == asked


RANK = """
import os, signal, sys, time
from types import SimpleNamespace
import torch
import torch.distributed as dist
from transformers import TrainerControl, TrainerState
from hf_llava_vqa.training.guards.heartbeat import Heartbeat

folder, rank, fault, timeout = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
args, control = SimpleNamespace(output_dir=folder, process_index=rank, world_size=2), TrainerControl()
heartbeat = Heartbeat(timeout)
heartbeat.on_train_begin(args, TrainerState(), control)
for step in range(20):
    if rank == 1 and step == 12 and fault == "stopped":
        while '"step": 12' not in open(f"{folder}/.heartbeat/rank-1.json").read():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGSTOP)
    if rank == 1 and step == 12 and fault == "reading":
        time.sleep(600)
    heartbeat.on_step_begin(args, TrainerState(global_step=step), control)
    dist.all_reduce(torch.zeros(1))
    heartbeat.on_step_end(args, TrainerState(global_step=step + 1), control)
dist.barrier()
heartbeat.close()
dist.destroy_process_group()  # else gloo may abort a rank that sees the other one leave
"""


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("fault", "timeout", "codes", "told"),
    [
        ("none", 60, [0, 0], None),
        ("stopped", 2, [EXIT_CODE, -signal.SIGKILL], r"at step 12 \(no sign of life for \d+ s; process {pid} on .+\)"),
        ("reading", 8, [EXIT_CODE, EXIT_CODE], r"at step 12 \(reading data for \d+ s; process {pid} on .+\)"),
    ],
)
def test_the_others_end_when_a_rank_stops(tmp_path, fault, timeout, codes, told) -> None:
    commands = [[sys.executable, "-c", RANK, str(tmp_path), str(rank), fault, str(timeout)] for rank in range(2)]
    ranks = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    try:
        errors = [ranks[0].communicate(timeout=300)[1]]
        if fault == "stopped":
            ranks[1].kill()
        errors.append(ranks[1].communicate(timeout=300)[1])
    finally:
        for process in ranks:
            process.kill()
    assert [process.returncode for process in ranks] == codes, errors
    for error, code in zip(errors, codes, strict=True):
        lines = [line for line in error.splitlines() if line.startswith("error: ")]
        assert len(lines) == (code == EXIT_CODE)
        assert all(re.fullmatch(message(told, ranks[1].pid), line) for line in lines)
    assert (tmp_path / ".heartbeat").exists() == (told is not None)


def message(told: str, pid: int) -> str:
    told = told.replace("{pid}", str(pid))
    return f"error: rank 1 stopped answering {told}; the run ends, resume with --resume_from_checkpoint auto"
