"""SIGTERM and Ctrl-C: one checkpoint, then the end; on all ranks alike."""

import os
import signal
import threading
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from toy_trainer import AtStep, ToyTrainer
from transformers import TrainerControl, TrainerState

from hf_llava_vqa.training.guards import StopOnSignal


def send(*numbers: signal.Signals) -> Any:
    return lambda: [os.kill(os.getpid(), number) for number in numbers]


def train(folder, hook: str, step: int, *numbers: signal.Signals, **changes: Any) -> tuple[ToyTrainer, StopOnSignal]:
    """Train the toy; the signals come when `hook` is called after `step` steps."""
    trainer = ToyTrainer(folder, [AtStep(hook, step, send(*numbers))], **changes)
    guard = StopOnSignal(trainer.accelerator)
    trainer.add_callback(guard)
    with guard:
        trainer.train()
    return trainer, guard


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("strategy", [{}, {"save_strategy": "steps", "save_steps": 3}, {"save_strategy": "epoch"}])
def test_one_checkpoint_of_the_step_then_the_end(tmp_path, capsys, number, strategy) -> None:
    trainer, guard = train(tmp_path, "on_step_begin", 2, number, **strategy)
    assert (trainer.state.global_step, trainer.saved, guard.received) == (3, [3], number.name)
    assert f"{number.name}: saving a checkpoint after step 3, then stopping\n" in capsys.readouterr().out


def test_a_run_without_signals_is_as_without_the_guard(tmp_path) -> None:
    trainer, guard = train(tmp_path, "on_step_begin", 99, save_strategy="epoch", eval_strategy="epoch")
    assert (trainer.state.global_step, trainer.saved, trainer.evaluated, guard.received) == (6, [4, 6], [4, 6], None)


@pytest.mark.parametrize("save_strategy", ["steps", "best"])
def test_an_evaluation_that_is_due_is_left_out(tmp_path, capsys, save_strategy) -> None:
    best = {"metric_for_best_model": "eval_loss"} if save_strategy == "best" else {}
    trainer, _ = train(
        *(tmp_path, "on_step_begin", 2, signal.SIGTERM),
        **{"save_strategy": save_strategy, "save_steps": 3, "eval_strategy": "steps", "eval_steps": 3, **best},
    )
    assert (trainer.saved, trainer.evaluated) == ([3], [])
    assert "its evaluation is left out" in capsys.readouterr().out


def test_stopping_within_an_epoch_is_no_reason_to_evaluate(tmp_path) -> None:
    trainer, _ = train(tmp_path, "on_step_begin", 1, signal.SIGTERM, eval_strategy="epoch")
    assert (trainer.saved, trainer.evaluated) == ([2], [])


def test_a_signal_during_an_evaluation_takes_effect_after_it(tmp_path) -> None:
    trainer, _ = train(tmp_path, "on_prediction_step", 2, signal.SIGTERM, eval_strategy="steps", eval_steps=2)
    assert (trainer.state.global_step, trainer.saved, trainer.evaluated) == (2, [2], [2])


def test_a_signal_during_an_evaluation_that_decides_about_the_save(tmp_path) -> None:
    trainer, _ = train(
        *(tmp_path, "on_prediction_step", 4, signal.SIGTERM),
        **{"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "best", "learning_rate": 0.0},
        **{"metric_for_best_model": "eval_loss"},
    )
    assert (trainer.state.global_step, trainer.saved, trainer.evaluated) == (5, [2, 5], [2, 4])


def test_a_signal_during_a_save_saves_no_second_time(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(ToyTrainer, "_save_checkpoint", lambda self, *_: (self.saved.append(2), send(signal.SIGTERM)()))
    trainer, guard = train(tmp_path, "on_step_begin", 99, save_strategy="steps", save_steps=2)
    assert (trainer.state.global_step, trainer.saved, guard.received) == (2, [2], "SIGTERM")
    assert "SIGTERM: stopping with the checkpoint of step 2\n" in capsys.readouterr().out


def test_the_second_ctrl_c_interrupts_at_once(tmp_path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, "on_step_begin", 2, signal.SIGINT, signal.SIGINT)


def test_the_first_signal_gives_the_reason(tmp_path) -> None:
    _, guard = train(tmp_path, "on_step_begin", 2, signal.SIGTERM, signal.SIGTERM, signal.SIGINT)
    assert guard.received == "SIGTERM"


def test_handlers_are_put_back(tmp_path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, "on_step_begin", 2, signal.SIGINT, signal.SIGINT)
    train(tmp_path, "on_step_begin", 2, signal.SIGTERM)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_ignored_signals_stay_ignored(tmp_path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell starts jobs in the background
    try:
        trainer, guard = train(tmp_path, "on_step_begin", 2, signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (trainer.state.global_step, guard.received) == (6, None)


def test_training_in_a_thread_is_left_alone(tmp_path) -> None:
    steps = []
    run = threading.Thread(target=lambda: steps.append(train(tmp_path, "on_step_begin", 99)[0].state.global_step))
    run.start()
    run.join()
    assert steps == [6]


def test_a_guard_can_be_used_again(tmp_path) -> None:
    trainer, guard = train(tmp_path, "on_step_begin", 2, signal.SIGTERM)
    with guard:
        trainer.train()
    assert (trainer.state.global_step, trainer.saved, guard.received) == (3, [3, 3], "SIGTERM")
    trainer.evaluate()  # outside `train`, nothing stops
    assert not trainer.control.should_save


@pytest.mark.parametrize(
    ("told", "received"), [([0, 0], None), ([0, 15], "SIGTERM"), ([2, 0], "SIGINT"), ([2, 15], "SIGTERM")]
)
def test_all_ranks_stop_when_one_is_told(told, received) -> None:
    for rank in range(2):
        ranks = SimpleNamespace(num_processes=2, device="cpu", gather=lambda mine, r=rank: gathered(mine, told, r))
        guard = StopOnSignal(ranks)
        with guard:
            send(*[told[rank]] if told[rank] else [])()
            control, state = TrainerControl(), TrainerState(global_step=12, is_world_process_zero=rank == 0)
            guard.on_step_end(None, state, control)
        assert guard.received == received
        assert control.should_save == control.should_training_stop == (received is not None)


def gathered(mine: torch.Tensor, told: list[int], rank: int) -> torch.Tensor:
    assert mine.tolist() == [told[rank]]
    return torch.tensor(told)
