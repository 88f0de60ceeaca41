"""A rank that stops answering: found by the others, named in one line, and the run ended instead of hanging."""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_llava_vqa.training.guards.pulses import Pulse, diagnose, pulse_file, read_pulse, write_pulse

FOLDER = ".heartbeat"
EXIT_CODE = 3


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
            folder, rank = Path(args.output_dir, FOLDER), args.process_index
            folder.mkdir(parents=True, exist_ok=True)
            write_pulse(pulse_file(folder, rank), self._pulse(rank))  # the thread writes only after a while
            self._over.clear()
            where = (folder, rank, args.world_size)
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
        file = pulse_file(folder, rank)
        quiet, beats, last = 0.0, -1, time.monotonic()
        while not self._over.wait(self.interval):
            pulse = self._pulse(rank)
            with contextlib.suppress(OSError):  # a full disk is for the main thread to find; the others see no beat
                write_pulse(file, pulse)
            now = time.monotonic()
            # A run that was suspended for hours has not waited so long: a pause counts as two intervals at most.
            quiet = quiet + min(now - last, 2 * self.interval) if pulse.beats == beats else 0.0
            beats, last = pulse.beats, now
            if quiet >= self.timeout:
                others = (pulse_file(folder, other) for other in range(world_size) if other != rank)
                self._end_if_stuck([pulse, *filter(None, map(read_pulse, others))])
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
