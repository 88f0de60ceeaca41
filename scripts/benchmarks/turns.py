"""Trainings that take turns of half a second or more, and what each took in its turns.

A machine that is shared is slow for seconds or minutes at a time. Trainings that go on in turns, a few micro-batches
each, are slowed alike, so that what one took can be divided by what another took.
"""

import ctypes
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from transformers import TrainerCallback

SHORTEST = 1200  # tokens of a turn: two micro-batches of a picture and a question
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # of glibc's malloc.h


def seconds() -> float:
    """A clock for trainings in turns: on a GPU the wall's, when its work is done; on a CPU this process's own time.

    Processor time with one thread is what other processes of the machine disturb least.
    """
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def steady_processor() -> None:
    """One thread, which keeps the memory it has been given.

    By default glibc gives tensors back and asks for them anew, page by page: processor time that depends on where they
    happen to lie, and made the same training up to a quarter slower in one run than in another.
    """
    torch.set_num_threads(1)
    c_library = ctypes.CDLL(None)
    for parameter, value in {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_ARENA_MAX: 1}.items():
        c_library.mallopt(parameter, value)


class Meter(TrainerCallback):
    """How long a training took in its own turns, and how much went through the model.

    Args:
        warm_up: first tokens that are not timed.
        micro_batch: tokens of the largest micro-batch among the trainings that take turns: turns are at least as long,
            so that all go on equally fast.

    Attributes:
        places: tokens of all batches, padding included.
        images: pictures of all batches.
        hand_over: called at the end of a turn, and returns at the beginning of the next.
    """

    def __init__(self, warm_up: int, micro_batch: int) -> None:
        self.warm_up = warm_up
        self.turn = max(micro_batch, SHORTEST)
        self.places = self.images = 0
        self.hand_over: Callable[[], None] | None = None
        self._seconds = self._start = 0.0  # of the timed turns before this one, and when it began
        self._untimed = self._before = 0  # places before the clock ran, and before this turn
        self._warm = warm_up == 0

    @property
    def seconds_per_place(self) -> float:
        """Behind the warm-up."""
        return self._seconds / (self.places - self._untimed)

    def on_train_begin(self, *_: Any, model: torch.nn.Module, **__: Any) -> None:
        model.register_forward_pre_hook(self._count, with_kwargs=True)
        self._start = seconds()

    def on_substep_end(self, *_: Any, **__: Any) -> None:
        if not self._warm and self.places >= self.warm_up:
            self._warm, self._seconds, self._start, self._untimed = True, 0.0, seconds(), self.places
        if self.hand_over and self.places - self._before >= self.turn:
            self._stop_the_clock()
            self.hand_over()
            self._start, self._before = seconds(), self.places

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.on_substep_end()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self._stop_the_clock()

    def _stop_the_clock(self) -> None:
        self._seconds += seconds() - self._start

    def _count(self, _: torch.nn.Module, __: tuple[()], inputs: dict[str, Any]) -> None:
        self.places += inputs["input_ids"].numel()
        self.images += len(inputs["pixel_values"]) if "pixel_values" in inputs else 0


def take_turns(trainings: Sequence[tuple[Meter, Callable[[], None]]]) -> None:
    """Run trainings in threads of their own, of which one at a time goes on, until the last has ended.

    On a GPU they run one after the other: their models do not fit side by side.

    Args:
        trainings: what builds a trainer and trains, and the meter among the trainer's callbacks.

    Raises:
        the first error of a training, when the others have ended.
    """
    if torch.cuda.is_available():
        for _, train in trainings:
            train()
    else:
        _in_a_ring(trainings)


def _in_a_ring(trainings: Sequence[tuple[Meter, Callable[[], None]]]) -> None:
    ring = [threading.Semaphore(0) for _ in trainings]
    ended: set[int] = set()
    errors: list[BaseException] = []

    def start_next(number: int) -> None:
        ring[(number + 1) % len(ring)].release()

    def hand_over(number: int) -> None:
        start_next(number)
        ring[number].acquire()

    def run(number: int) -> None:
        meter, train = trainings[number]
        meter.hand_over = partial(hand_over, number)
        torch.set_num_threads(1)  # a thread has a number of its own
        ring[number].acquire()
        try:
            train()
        except BaseException as error:
            errors.append(error)
        ended.add(number)
        while len(ended) < len(ring):
            hand_over(number)
        start_next(number)

    # Daemons, so that Ctrl-C does not wait for trainings.
    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(len(ring))]
    for thread in threads:
        thread.start()
    ring[0].release()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
