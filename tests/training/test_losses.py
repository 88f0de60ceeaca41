"""Losses of answers and of the model's own questions: apart in the logs, and together the loss that is trained on."""

from pathlib import Path

import pytest
import torch
from examples import chain, colour, dataset, question, record
from hypothesis import given
from hypothesis import strategies as st
from trl import ModelConfig

from hf_llava_vqa import VqaConfig, VqaTrainer
from hf_llava_vqa.models.adapters import lora_config
from hf_llava_vqa.models.loading import training_model, training_processor
from hf_llava_vqa.training.losses import LossesApart, sums_apart

ROWS = [
    record(
        str(number),
        [question(f"{number}.0", "Why?", ["yes", "no", "no"]), chain(f"{number}.c", "Hello?", "Hi.", "Why?", "so")],
        colours=[colour(number + 1)],
    )
    for number in range(4)
]


@given(st.lists(st.tuples(st.floats(0, 9), st.sampled_from([0.0, 0.25, 1.0]), st.booleans()), min_size=1, max_size=12))
def test_the_parts_add_up_to_the_whole(tokens: list[tuple[float, float, bool]]) -> None:
    losses, weights, asked = (torch.tensor(column)[None] for column in zip(*tokens, strict=True))
    sums = sums_apart(losses * weights, weights, asked)
    torch.testing.assert_close(sums[:2] + sums[2:], torch.stack([(losses * weights).sum(), weights.sum()]))
    torch.testing.assert_close(sums[3], weights[asked].sum())


def test_means_are_over_tokens_and_begin_anew_after_a_log() -> None:
    apart, metrics = LossesApart(), {}
    apart.add([6.0, 2.0, 0.0, 0.0], metrics)
    assert metrics == {"answer_loss": [3.0]}  # no question so far
    apart.add([0.0, 4.0, 5.0, 1.0], metrics)
    assert metrics == {"answer_loss": [1.0], "question_loss": [5.0]}
    metrics.clear()
    apart.add([4.0, 1.0, 0.0, 0.0], metrics)
    assert metrics == {"answer_loss": [4.0]}


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_both_losses_are_logged_and_make_up_the_loss(tmp_path: Path, tiny_llava: Path, ratio: float) -> None:
    model_args = ModelConfig(model_name_or_path=str(tiny_llava), dtype="float32", use_peft=True, lora_r=4)
    told = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4, "max_steps": 2, "logging_steps": 1}
    told |= {"use_cpu": True, "save_strategy": "no", "report_to": "none", "activation_checkpointing": False}
    trainer = VqaTrainer(
        training_model(model_args),
        VqaConfig(output_dir=str(tmp_path), template="v1_sq", self_question_ratio=ratio, **told),
        train_dataset=dataset(ROWS),
        eval_dataset=dataset(ROWS),
        processing_class=training_processor(model_args, template="v1_sq"),
        peft_config=lora_config(model_args),
    )
    trainer.train()
    evaluated = trainer.evaluate()
    assert evaluated["eval_answer_loss"] == pytest.approx(evaluated["eval_loss"], rel=1e-4)
    assert "eval_question_loss" not in evaluated  # what is measured is answers, in every epoch the same
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(entries) == 2
    batch = trainer.data_collator(ROWS)
    asked = (batch["weights"] * batch["own_questions"]).sum() / batch["weights"].sum()
    for entry in entries:
        if ratio:
            mean = (1 - asked) * entry["answer_loss"] + asked * entry["question_loss"]
            assert entry["loss"] == pytest.approx(mean.item(), rel=1e-4)
        else:
            assert "question_loss" not in entry
            assert entry["loss"] == pytest.approx(entry["answer_loss"], rel=1e-4)
