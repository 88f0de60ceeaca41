"""A rank that stops answering: found by the others, named in one line, and the run ended instead of hanging."""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

FOLDER = ".heartbeat"
EXIT_CODE = 3


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


class Heartbeat(TrainerCallback):
    """Write this rank's pulse to `OUTPUT_DIR/.heartbeat/rank-N.json`; end the process when another rank has stopped.

    The pulses are read when this rank's own main thread has come no further for `timeout` seconds. Does nothing in a
    run of one process; ranks whose output folder is another machine's are not seen.

    Args:
        timeout: seconds; less than the backend's own (`ddp_timeout`), whose errors name no rank.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.interval = min(5.0, timeout / 40)
        self._progress = (0, "starting", time.time())  # beats, phase, since; replaced as a whole: two threads use it
        self._step = 0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def beat(self, phase: str) -> None:
        """Report progress of the main thread, which now goes on to `phase`; on all ranks at the same points."""
        self._progress = (self._progress[0] + 1, phase, time.time())

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._step = state.global_step
        self.beat("reading data")
        if args.world_size > 1:
            folder = Path(args.output_dir, FOLDER)
            folder.mkdir(parents=True, exist_ok=True)
            _write(_file(folder, args.process_index), self._pulse(args.process_index))  # in case it stops at once
            self._over.clear()
            where = (folder, args.process_index, args.world_size)
            self._thread = threading.Thread(target=self._watch, args=where, name="heartbeat", daemon=True)
            self._thread.start()

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.beat("computing")

    def on_substep_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.beat("computing")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._step = state.global_step
        self.beat("reading data")

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.beat("evaluating")

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.beat("reading data")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.beat("reading data")

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching and remove this rank's file; to be called too when training ends with an exception."""
        if self._thread is not None:
            self._over.set()
            self._thread.join(2 * self.interval)  # a file system that hangs shall not keep the run from ending
            self._thread = None

    def _watch(self, folder: Path, rank: int, world_size: int) -> None:
        file = _file(folder, rank)
        quiet, beats, last = 0.0, -1, time.monotonic()
        while not self._over.wait(self.interval):
            pulse = self._pulse(rank)
            with contextlib.suppress(OSError):  # a full disk is for the main thread to find; the others see no beat
                _write(file, pulse)
            now = time.monotonic()
            # A run that was suspended for hours has not waited so long: a pause counts as two intervals at most.
            quiet = quiet + min(now - last, 2 * self.interval) if pulse.beats == beats else 0.0
            beats, last = pulse.beats, now
            if quiet >= self.timeout:
                others = (_file(folder, other) for other in range(world_size) if other != rank)
                self._end_if_stuck([pulse, *filter(None, map(_read, others))])
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)
            folder.rmdir()  # the last rank succeeds

    def _pulse(self, rank: int) -> Pulse:
        beats, phase, since = self._progress
        return Pulse(rank, beats, self._step, phase, since, time.time(), os.getpid(), socket.gethostname())

    def _end_if_stuck(self, pulses: Sequence[Pulse]) -> None:
        trouble = diagnose(pulses, time.time(), silence=self.timeout / 4)
        if trouble:
            print(
                f"error: {trouble}; the run ends, resume with --resume_from_checkpoint auto",
                file=sys.stderr,
                flush=True,
            )
            os._exit(EXIT_CODE)  # the main thread is inside a collective: no exception or signal handler reaches it


def _file(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank}.json"


def _write(file: Path, pulse: Pulse) -> None:
    whole = file.with_suffix(".tmp")
    whole.write_text(json.dumps(asdict(pulse)))
    os.replace(whole, file)


def _read(file: Path) -> Pulse | None:
    try:
        return Pulse(**json.loads(file.read_text()))
    except FileNotFoundError:  # a rank that has ended, or whose output folder is on another machine
        return None
