"""`make test-kill`: `kill -9` of a whole process group at random moments, twenty times; every run goes on as if not.

The moments come from a seed as far as a moment can: which run, in which step or in the save of which step, and how
long after that began. Where the signal hit is read from what the run had written down by then.
"""

import os
import random
import signal
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle, product
from pathlib import Path
from statistics import median
from time import sleep
from typing import Any

import pytest
from oracle import Rows, assert_same_run, checkpoint_hashes, journal, row_names
from runs import Zygote, attempts
from training_run import Run

KILLS = 20
IN_SAVES = 8  # after so many the other kills are aimed at steps; some of them hit a save all the same
A_STEP = 0.05  # seconds


@pytest.mark.kill
def test_twenty_random_kills(
    zygote: Zygote, tmp_path: Path, tiny_llava: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(0)
    rows = len(Rows.of(data).names)
    straight: dict[str, tuple[Run, int]] = {}
    for name, run, processes in configurations(tmp_path, tiny_llava, data):
        attempts(zygote, run, processes, ())
        straight[name] = run, processes
    table: list[dict[str, Any]] = []
    for number, name in zip(range(KILLS), cycle(straight), strict=False):
        run, processes = straight[name]
        killed = replace(run, folder=str(tmp_path / f"killed-{number}"), save_total_limit=2)
        event = "saves" if sum(row["in"] == "save" for row in table) < IN_SAVES else "consumed"
        step = chance.randrange(1, run.max_steps // run.save_steps) * run.save_steps + (event == "consumed")
        longest = usual_save(run) if event == "saves" else A_STEP
        kill_at(zygote, killed, processes, event, step, chance.uniform(0, longest))
        hit = where_it_hit(killed, rows, processes)
        whole = newest_equal(killed, run)
        attempts(zygote, killed, processes, (), first=1)
        assert journal(killed, "started", 0)[-1]["step"] == whole
        assert_same_run(killed, run, processes)
        table.append({"": number + 1, "run": name, **hit, "resumed from": whole, "equal": "yes"})
    with capsys.disabled():
        print("\n" + as_text(table))
    assert sum(row["in"] == "save" for row in table) >= 6
    assert sum(row["pass"] >= 2 for row in table) >= 4


def configurations(folder: Path, model: Path, data: Path) -> Iterator[tuple[str, Run, int]]:
    """Name, run and number of processes of everything that the matrix of the resume tests has."""
    for source, workers, processes, accumulation in product(("map-style", "stream"), (0, 2), (1, 2), (1, 2)):
        name = f"{source}, {workers} workers, {processes} ranks, accumulation {accumulation}"
        run = Run(
            folder=str(folder / name),
            model=str(model),
            data=str(data),
            source=source,
            workers=workers,
            accumulation=accumulation,
            rows=2 // processes,
            max_steps=26 // accumulation,
            save_steps=2,
        )
        yield name, run, processes


def kill_at(zygote: Zygote, run: Run, processes: int, event: str, step: int, delay: float) -> None:
    """Start the run and kill all its processes `delay` seconds after the first event of `step` is written down."""
    Path(run.folder).mkdir()
    group = zygote.start(run, processes)
    while not any(line["step"] == step for line in journal(run, event, 0)):
        assert not zygote.has_ended(within=0.001), run.log(0).read_text()[-2000:]
    sleep(delay)
    os.killpg(group, signal.SIGKILL)
    assert zygote.wait() == [-9] * processes


def usual_save(run: Run) -> float:
    """How long a save of the run takes, in seconds."""
    clocks = [line["clock"] for line in journal(run, "saves", 0)]
    return median(end - begin for begin, end in zip(clocks[::2], clocks[1::2], strict=True))


def where_it_hit(run: Run, rows: int, processes: int) -> dict[str, Any]:
    saves, consumed = journal(run, "saves", 0), journal(run, "consumed", 0)
    read = sum(map(len, row_names(consumed))) * processes
    saving = bool(saves) and saves[-1]["moment"] == "begins"
    return {"in": "save" if saving else "step", "step": consumed[-1]["step"] + 1, "pass": 1 + (read - 1) // rows}


def newest_equal(killed: Run, straight: Run) -> int:
    """The step of the newest checkpoint whose files are those of the run that was left alone, 0 without one."""
    theirs = checkpoint_hashes(straight)
    equal = [name for name, files in checkpoint_hashes(killed).items() if files == theirs[name]]
    return max((int(name.rpartition("-")[2]) for name in equal), default=0)


def as_text(table: list[dict[str, Any]]) -> str:
    widths = {name: max(len(str(row[name])) for row in [*table, {name: name}]) for name in table[0]}
    lines = [dict(zip(widths, widths, strict=True)), *table]
    return "\n".join("  ".join(str(line[name]).ljust(width) for name, width in widths.items()) for line in lines)
