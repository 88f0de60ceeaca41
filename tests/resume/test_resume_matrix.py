"""A run that is killed in every pass and resumed equals the run that was left alone, bit for bit on the CPU."""

from dataclasses import replace
from pathlib import Path
from signal import SIGINT, SIGTERM

import pytest
from oracle import Rows, assert_nothing_seen_was_decoded, assert_read_in_order, assert_same_run, journal, surviving
from runs import Zygote, attempts
from training_run import Kill, Run

# Steps at which all ranks are killed: some right after a checkpoint, some later, one at the seam of two passes.
KILLED_IN = {1: (7, 10, 17, 25), 2: (4, 7, 9, 11, 13)}
STEPS = {1: 26, 2: 14}  # three passes
SAVE_STEPS = {1: 3, 2: 2}


@pytest.mark.parametrize("accumulation", [1, 2], ids=["", "accumulation 2"])
@pytest.mark.parametrize("processes", [1, 2], ids=["1 process", "ddp"])
@pytest.mark.parametrize("workers", [0, 2], ids=["no workers", "2 workers"])
@pytest.mark.parametrize("streaming", [False, True], ids=["map-style", "stream"])
def test_killed_and_resumed_equals_uninterrupted(
    *,
    zygote: Zygote,
    tmp_path: Path,
    tiny_llava: Path,
    data: Path,
    streaming: bool,
    workers: int,
    processes: int,
    accumulation: int,
) -> None:
    straight = Run(
        folder=str(tmp_path / "straight"),
        model=str(tiny_llava),
        data=str(data),
        streaming=streaming,
        workers=workers,
        accumulation=accumulation,
        rows=2 // processes,
        max_steps=STEPS[accumulation],
        save_steps=SAVE_STEPS[accumulation],
    )
    killed = replace(straight, folder=str(tmp_path / "killed"), save_total_limit=2)
    attempts(zygote, straight, processes, ())
    attempts(zygote, killed, processes, tuple(map(Kill, KILLED_IN[accumulation])))

    rows = Rows.of(data)
    saved = [step // SAVE_STEPS[accumulation] * SAVE_STEPS[accumulation] for step in KILLED_IN[accumulation]]
    assert [start["step"] for start in journal(killed, "started", 0)] == [0, *saved]
    assert_same_run(killed, straight, processes)
    assert_read_in_order(straight, rows, processes)
    assert_nothing_seen_was_decoded(killed, rows, processes)


@pytest.mark.parametrize("processes", [1, 2], ids=["1 process", "ddp"])
def test_with_evaluation_and_the_best_checkpoint(
    zygote: Zygote, tmp_path: Path, tiny_llava: Path, data: Path, processes: int
) -> None:
    straight = Run(
        folder=str(tmp_path / "straight"),
        model=str(tiny_llava),
        data=str(data),
        streaming=True,
        rows=2 // processes,
        max_steps=14,
        evaluating=True,
    )
    killed = replace(straight, folder=str(tmp_path / "killed"), save_total_limit=1)
    attempts(zygote, straight, processes, ())
    in_evaluation = Kill(6, "training_run:JournallingTrainer.compute_loss", within="transformers:Trainer.evaluate")
    attempts(zygote, killed, processes, (in_evaluation, Kill(10)))
    assert [start["step"] for start in journal(killed, "started", 0)] == [0, 3, 9]
    assert_same_run(killed, straight, processes)


@pytest.mark.parametrize("number", [SIGTERM, SIGINT])
@pytest.mark.parametrize("processes", [1, 2], ids=["1 process", "ddp"])
@pytest.mark.parametrize("streaming", [False, True], ids=["map-style", "stream"])
def test_stopped_by_a_signal_and_resumed(
    *, zygote: Zygote, tmp_path: Path, tiny_llava: Path, data: Path, streaming: bool, processes: int, number: int
) -> None:
    """One rank is told; all stop after the step with its checkpoint, and no step is done twice."""
    straight = Run(
        folder=str(tmp_path / "straight"),
        model=str(tiny_llava),
        data=str(data),
        streaming=streaming,
        accumulation=2,
        rows=2 // processes,
        max_steps=12,
        save_steps=1,
    )
    stopped = replace(straight, folder=str(tmp_path / "stopped"), save_steps=100)
    attempts(zygote, straight, processes, ())
    attempts(zygote, stopped, processes, tuple(Kill(step, signal=number, rank=processes - 1) for step in (2, 6)))
    assert [start["step"] for start in journal(stopped, "started", 0)] == [0, 3, 7]
    assert len(journal(stopped, "consumed", 0)) == len(surviving(straight, 0))
    assert_same_run(stopped, straight, processes)
