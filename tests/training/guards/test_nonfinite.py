"""NaN and infinity: found before the optimizer sees them, named on disk, skipped without a trace in the weights."""

import copy
import json
import math
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.utils import DistributedType
from toy_trainer import AtStep, ToyTrainer
from transformers import TrainerControl, TrainerState

from hf_llava_vqa.errors import ConfigError, TrainingError
from hf_llava_vqa.training.guards import NonFiniteGuard


class GuardedTrainer(ToyTrainer):
    """Notes each micro-batch under the name "m0", "m1", ...; the losses or gradients of some are not finite."""

    def __init__(self, folder: Path, action: str, *, bad_losses=(), bad_gradients=(), **changes: Any) -> None:
        super().__init__(folder, **changes)
        self.guard = NonFiniteGuard(action, self.accelerator)
        self.add_callback(self.guard)
        self.bad_losses, self.bad_gradients, self.noted = bad_losses, bad_gradients, 0

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if self.noted in self.bad_losses:
            loss = loss * math.nan
        if self.noted in self.bad_gradients:
            loss.register_hook(lambda gradient: gradient * math.inf)
        self.guard.note(loss, [[f"m{self.noted}"]])
        self.noted += 1
        return loss

    def states(self) -> list[torch.Tensor]:
        """Copies of all weights and of everything the optimizer remembers."""
        remembered = [value for state in self.optimizer.state.values() for value in state.values()]
        return copy.deepcopy([*self.model.parameters(), *filter(torch.is_tensor, remembered)])


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(map(torch.equal, a, b))


def entries(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "nonfinite.jsonl").read_text().splitlines()]


def test_a_loss_that_is_not_finite_stops_the_run_and_is_named(tmp_path) -> None:
    trainer = GuardedTrainer(tmp_path, "stop", bad_losses=[5], gradient_accumulation_steps=2)
    with pytest.raises(TrainingError, match=r"step 3: the loss is not finite.*nonfinite\.jsonl.*--on_nan skip") as told:
        trainer.train()
    assert "\n" not in str(told.value)
    expected = {"step": 3, "rank": 0, "what": "loss", "micro_batch": 1, "loss": "nan", "dialogue_ids": ["m5"]}
    assert entries(tmp_path) == [expected | {"action": "stop"}]


def test_a_gradient_that_is_not_finite_names_all_of_the_step(tmp_path) -> None:
    trainer = GuardedTrainer(tmp_path, "stop", bad_gradients=[3], gradient_accumulation_steps=2)
    with pytest.raises(TrainingError, match="step 2: the gradient is not finite"):
        trainer.train()
    told = [(entry["what"], entry["micro_batch"], entry["dialogue_ids"]) for entry in entries(tmp_path)]
    assert told == [("gradient", 0, ["m2"]), ("gradient", 1, ["m3"])]


@pytest.mark.parametrize("optimizer", ["adamw_torch", "adamw_torch_fused", "sgd"])
@pytest.mark.parametrize("fault", ["bad_losses", "bad_gradients"])
def test_a_skipped_step_leaves_weights_and_optimizer_bit_equal(tmp_path, capsys, optimizer, fault) -> None:
    momentum = {"optim_args": "momentum=0.9"} if optimizer == "sgd" else {}
    settings = {"optim": optimizer, "weight_decay": 0.1, "learning_rate": 0.1, **momentum}
    trainer = GuardedTrainer(tmp_path, "skip", **{fault: [3]}, **settings)
    snapshots: list[list[torch.Tensor]] = []
    for step in range(1, 7):
        trainer.add_callback(AtStep("on_step_end", step, lambda: snapshots.append(trainer.states())))
    trainer.train()
    assert [same(a, b) for a, b in pairwise(snapshots)] == [False, False, True, False, False]
    assert (trainer.guard.skipped, trainer.state.global_step) == (1, 6)
    assert [(entry["step"], entry["action"]) for entry in entries(tmp_path)] == [(4, "skip")]
    assert "step 4 is skipped" in capsys.readouterr().out


def test_finite_runs_are_as_without_the_guard(tmp_path) -> None:
    trainer = GuardedTrainer(tmp_path, "stop")
    trainer.train()
    plain = ToyTrainer(tmp_path)
    plain.train()
    assert all(map(torch.equal, trainer.model.parameters(), plain.model.parameters()))
    assert not (tmp_path / "nonfinite.jsonl").exists()


def test_large_gradients_are_finite(tmp_path) -> None:
    """The sum of their squares is not: a norm of 2 would stop such a run."""
    guard, model = NonFiniteGuard("stop", ranks()), one_weight(gradient=1e30)
    guard.note(torch.tensor(1.0), [["a"]])
    guard.on_pre_optimizer_step(SimpleNamespace(output_dir=tmp_path), TrainerState(), TrainerControl(), model=model)


@pytest.mark.parametrize(
    ("loss", "gradient", "other", "told"),
    [
        (1.0, 1.0, [[0, 0]], None),
        (math.nan, math.nan, [[0, 1]], ["loss"]),  # gradients are averaged: bad on all ranks if bad on one
        (1.0, math.nan, [[1, 1]], []),  # the other rank has the loss to tell about
        (1.0, math.nan, [[0, 1]], ["gradient"]),
        (1.0, 1.0, [[1, 0]], []),
    ],
)
def test_all_ranks_act_alike(tmp_path, loss, gradient, other, told) -> None:
    guard, model = NonFiniteGuard("skip", ranks(other)), one_weight(gradient)
    guard.note(torch.tensor(loss), [["a"], ["b", "c"]])
    guard.on_pre_optimizer_step(SimpleNamespace(output_dir=tmp_path), TrainerState(), TrainerControl(), model=model)
    assert guard.skipped == (told is not None)
    assert (model.weight.grad is None) == (told is not None)
    lines = entries(tmp_path) if told else []
    assert [entry["what"] for entry in lines] == (told or [])
    assert all(entry["dialogue_ids"] == ["a", "b", "c"] and entry["rank"] == 1 for entry in lines)


def test_gradients_of_a_loss_scaler_are_left_to_it(tmp_path) -> None:
    guard, model = NonFiniteGuard("skip", ranks(scaler=object())), one_weight(gradient=math.inf)
    guard.note(torch.tensor(1.0), [["a"]])
    guard.on_pre_optimizer_step(SimpleNamespace(output_dir=tmp_path), TrainerState(), TrainerControl(), model=model)
    assert guard.skipped == 0


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ConfigError, match="--on_nan ignore; use stop or skip"):
        NonFiniteGuard("ignore", ranks())
    with pytest.raises(ConfigError, match="use --on_nan stop"):
        NonFiniteGuard("skip", ranks(distributed_type=DistributedType.DEEPSPEED))
    NonFiniteGuard("stop", ranks(distributed_type=DistributedType.DEEPSPEED))


def ranks(other: Any = ((0, 0),), **changes: Any) -> SimpleNamespace:
    """An accelerator of two ranks; `other` is what the other one gathers."""
    gathered = torch.tensor(other, dtype=torch.int32)
    settings = {"distributed_type": DistributedType.MULTI_CPU, "scaler": None, "process_index": 1}
    return SimpleNamespace(**(settings | changes), gather=lambda mine: torch.cat([gathered, mine]))


def one_weight(gradient: float) -> torch.nn.Module:
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.grad = torch.full((1, 1), gradient)
    return model
