"""A run that is killed in every pass and resumed equals the run that was left alone, bit for bit on the CPU."""

from dataclasses import replace
from itertools import islice, product
from pathlib import Path
from signal import SIGINT, SIGTERM

import pytest
from oracle import (
    Rows,
    assert_nothing_seen_was_decoded,
    assert_read_in_order,
    assert_same_run,
    journal,
    micro_batches,
    row_names,
    surviving,
)
from runs import Zygote, attempts
from training_run import Kill, Run

# Steps at which all ranks are killed: some right after a checkpoint, some later, one at the seam of two passes.
KILLED_IN = {1: (7, 10, 17, 25), 2: (4, 7, 9, 11, 13)}
STEPS = {1: 26, 2: 14}  # three passes
SAVE_STEPS = {1: 3, 2: 2}


MATRIX = list(product(("map-style", "stream"), (0, 2), (1, 2), (1, 2)))
OTHERS = [
    ("grouped", 0, 1, 2),
    ("grouped", 2, 2, 1),
    ("mixture", 2, 2, 2),
    ("other stream", 2, 1, 2),
    ("other stream", 0, 2, 1),
]


@pytest.mark.parametrize(("source", "workers", "processes", "accumulation"), MATRIX + OTHERS)
def test_killed_and_resumed_equals_uninterrupted(
    *,
    zygote: Zygote,
    tmp_path: Path,
    tiny_llava: Path,
    data: Path,
    source: str,
    workers: int,
    processes: int,
    accumulation: int,
) -> None:
    straight = Run(
        folder=str(tmp_path / "straight"),
        model=str(tiny_llava),
        data=str(data),
        source=source,
        workers=workers,
        accumulation=accumulation,
        rows=2 // processes,
        max_steps=STEPS[accumulation],
        save_steps=SAVE_STEPS[accumulation],
    )
    killed = replace(straight, folder=str(tmp_path / "killed"), save_total_limit=2)
    attempts(zygote, straight, processes, ())
    attempts(zygote, killed, processes, tuple(map(Kill, KILLED_IN[accumulation])))

    saved = [step // SAVE_STEPS[accumulation] * SAVE_STEPS[accumulation] for step in KILLED_IN[accumulation]]
    assert [start["step"] for start in journal(killed, "started", 0)] == [0, *saved]
    assert_same_run(killed, straight, processes)
    if source not in ("grouped", "mixture"):  # their orders are tested beside the code that makes them
        rows = Rows.of(data)
        assert {step * 2 * accumulation // len(rows.names) for step in KILLED_IN[accumulation]} >= {0, 1, 2}
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
        source="stream",
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


@pytest.mark.parametrize(("source", "saved", "steps"), [("map-style", [9, 18], 27), ("stream", [9, 17], 26)])
def test_length_and_saves_given_in_epochs(
    *, zygote: Zygote, tmp_path: Path, tiny_llava: Path, data: Path, source: str, saved: list[int], steps: int
) -> None:
    """A pass over a stream ends within a step; the checkpoint of that step is the epoch's."""
    straight = Run(
        folder=str(tmp_path / "straight"),
        model=str(tiny_llava),
        data=str(data),
        source=source,
        max_steps=steps,
        by_epochs=True,
    )
    killed = replace(straight, folder=str(tmp_path / "killed"))
    attempts(zygote, straight, 1, ())
    attempts(zygote, killed, 1, tuple(map(Kill, (7, 12, 20))))
    assert [start["step"] for start in journal(killed, "started", 0)] == [0, 0, *saved]
    assert_same_run(killed, straight, 1)
    assert_read_in_order(straight, Rows.of(data), 1)


@pytest.mark.parametrize("number", [SIGTERM, SIGINT])
@pytest.mark.parametrize("processes", [1, 2], ids=["1 process", "ddp"])
@pytest.mark.parametrize("source", ["map-style", "stream"])
def test_stopped_by_a_signal_and_resumed(
    *, zygote: Zygote, tmp_path: Path, tiny_llava: Path, data: Path, source: str, processes: int, number: int
) -> None:
    """One rank is told; all stop after the step with its checkpoint, and no step is done twice."""
    straight = Run(
        folder=str(tmp_path / "straight"),
        model=str(tiny_llava),
        data=str(data),
        source=source,
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


@pytest.mark.parametrize("after", [1, 2], ids=["2 ranks, then 1", "1 rank, then 2"])
@pytest.mark.parametrize("source", ["map-style", "stream"])
def test_another_number_of_ranks_goes_on_in_the_same_order(
    *, zygote: Zygote, tmp_path: Path, tiny_llava: Path, data: Path, source: str, after: int
) -> None:
    """The rows go on where they were; the ranks' random states do not, so the weights differ from here on."""
    before = 3 - after
    run = Run(folder=str(tmp_path / "run"), model=str(tiny_llava), data=str(data), source=source, rows=2 // before)
    attempts(zygote, run, before, (Kill(10),), to_the_end=False)
    changed = replace(run, rows=2 // after)
    attempts(zygote, changed, after, (), first=1)
    for rank in range(after):
        assert journal(changed, "started", rank)[-1]["step"] == 9
        lines = [line for line in journal(changed, "consumed", rank) if line["attempt"] == 1]
        expected = micro_batches(Rows.of(data), changed, rank, after)
        assert row_names(lines) == list(islice(expected, 9, run.max_steps))


@pytest.mark.parametrize("source", ["map-style", "stream"])
def test_another_number_of_loader_workers_changes_nothing(
    zygote: Zygote, tmp_path: Path, tiny_llava: Path, data: Path, source: str
) -> None:
    straight = Run(folder=str(tmp_path / "straight"), model=str(tiny_llava), data=str(data), source=source)
    killed = replace(straight, folder=str(tmp_path / "killed"))
    attempts(zygote, straight, 1, ())
    attempts(zygote, replace(killed, workers=2), 1, (Kill(7),), to_the_end=False)
    attempts(zygote, replace(killed, workers=1), 1, (Kill(17),), first=1, to_the_end=False)
    attempts(zygote, killed, 1, (), first=2)
    assert [start["step"] for start in journal(killed, "started", 0)] == [0, 6, 15]
    assert_same_run(killed, straight, 1)
