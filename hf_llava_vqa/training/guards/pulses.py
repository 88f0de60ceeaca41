"""What each rank writes down about itself, and who keeps the others waiting."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Pulse:
    """What a rank tells about itself. Times are seconds since 1970.

    Args:
        rank: of the process.
        beats: how often its main thread has reported progress; all ranks report at the same points of the run.
        step: steps done.
        phase: what the main thread has been doing ...
        since: ... since then.
        seen: when this was written, by a thread that also runs while the main thread waits.
        process, host: to find it.
    """

    rank: int
    beats: int
    step: int
    phase: str
    since: float
    seen: float
    process: int
    host: str


def diagnose(pulses: Sequence[Pulse], now: float, silence: float) -> str | None:
    """Who keeps the others waiting, as half a sentence; None if nobody does.

    That is the rank that has written nothing for longer than `silence` seconds, because its process is stopped or
    dead, else the rank whose main thread is behind the others'. When all have come equally far, they are busy or wait
    in a collective that the backend itself will give up.
    """
    stopped = min(pulses, key=lambda pulse: pulse.seen)
    behind = min(pulses, key=lambda pulse: pulse.beats)
    if now - stopped.seen > silence:
        blamed, why = stopped, f"no sign of life for {now - stopped.seen:.0f} s"
    elif behind.beats < max(pulse.beats for pulse in pulses):
        blamed, why = behind, f"{behind.phase} for {now - behind.since:.0f} s"
    else:
        return None
    where = f"process {blamed.process} on {blamed.host}"
    return f"rank {blamed.rank} stopped answering at step {blamed.step} ({why}; {where})"


def pulse_file(folder: Path, rank: int) -> Path:
    """Where a rank writes its pulse."""
    return folder / f"rank-{rank}.json"


def write_pulse(file: Path, pulse: Pulse) -> None:
    """Write the file at once: a reader finds the old pulse or the new one."""
    whole = file.with_suffix(".tmp")
    whole.write_text(json.dumps(asdict(pulse)))
    os.replace(whole, file)


def read_pulse(file: Path) -> Pulse | None:
    """A rank's last pulse; None for one that has ended, or whose output folder is on another machine."""
    try:
        return Pulse(**json.loads(file.read_text()))
    except FileNotFoundError:
        return None
