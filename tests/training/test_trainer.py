"""`VqaTrainer` around the loss: evaluation, learning rates, what it refuses, what it writes."""

import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from PIL import Image
from transformers import EarlyStoppingCallback
from trl import ModelConfig

from hf_llava_vqa import VqaConfig, VqaTrainer
from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.models.adapters import lora_config
from hf_llava_vqa.models.loading import training_model, training_processor
from hf_llava_vqa.records import UNDECODED_FEATURES, make_dialogue, make_record

COLOURS = ("red", "green", "blue", "yellow")


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Eight plain pictures with two questions each."""
    folder = tmp_path_factory.mktemp("pictures")
    rows = []
    for number in range(8):
        colour = COLOURS[number % len(COLOURS)]
        path = folder / f"{number}.png"
        Image.new("RGB", (30, 20), colour).save(path)
        answers = [{"answer": colour, "answer_confidence": "yes"}] * 10
        dialogues = [
            make_dialogue(id=f"{number}#{k}", question=question, answers=answers)
            for k, question in enumerate(("What color is it?", "Which color?"))
        ]
        images = [{"bytes": None, "path": str(path)}]
        rows.append(
            make_record(image_id=str(number), images=images, dialogues=dialogues, source="vizwiz", split="train")
        )
    return Dataset.from_list(rows, features=UNDECODED_FEATURES)


def make_trainer(folder: Path, tiny_llava: Path, records: Dataset, **changes: Any) -> VqaTrainer:
    peft = changes.pop("peft_config", "lora")
    callbacks = changes.pop("callbacks", None)
    dtype = changes.pop("dtype", "float32")
    model_args = ModelConfig(model_name_or_path=str(tiny_llava), dtype=dtype, use_peft=True, lora_r=4, lora_dropout=0)
    settings = {
        "output_dir": str(folder),
        "use_cpu": True,
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 3,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "save_strategy": "no",
        "activation_checkpointing": False,
        "eval_max_new_tokens": 4,
        "report_to": "none",
    }
    return VqaTrainer(
        training_model(model_args),
        VqaConfig(**(settings | changes)),
        train_dataset=records,
        eval_dataset=records,
        processing_class=training_processor(model_args),
        peft_config=lora_config(model_args) if peft == "lora" else peft,
        callbacks=callbacks,
    )


def test_the_metric_is_logged_with_the_loss_and_seen_by_callbacks(tmp_path, tiny_llava, records) -> None:
    stopping = EarlyStoppingCallback(early_stopping_patience=1)
    trainer = make_trainer(
        *(tmp_path, tiny_llava, records),
        **{"max_steps": 5, "callbacks": [stopping], "learning_rate": 0.0, "save_strategy": "steps", "save_steps": 1},
        **{"metric_for_best_model": "eval_vizwiz_accuracy", "load_best_model_at_end": True, "save_total_limit": 1},
    )
    trainer.train()
    evaluated = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert all("eval_vizwiz_accuracy" in entry and "eval_answering_seconds" in entry for entry in evaluated)
    assert trainer.state.global_step == 2  # nothing is learnt at rate 0, so early stopping ends the run
    assert trainer.state.best_metric == evaluated[0]["eval_vizwiz_accuracy"]


def test_evaluation_scores_what_the_model_answers(tmp_path, tiny_llava, records, monkeypatch) -> None:
    trainer = make_trainer(tmp_path, tiny_llava, records)
    truth = {d["id"]: d["answers"][0]["answer"] for row in records for d in row["dialogues"]}
    half = {name: answer if int(name[0]) % 2 else "no idea" for name, answer in truth.items()}
    monkeypatch.setattr(trainer, "_answer_on_all_ranks", lambda asked: half)
    assert trainer.evaluate()["eval_vizwiz_accuracy"] == 0.5
    assert trainer.evaluate(metric_key_prefix="test")["test_vizwiz_accuracy"] == 0.5


def test_answers_of_all_ranks_cover_every_question(tmp_path, tiny_llava, records) -> None:
    trainer = make_trainer(tmp_path, tiny_llava, records)
    asked = [(row, d) for row in records for d in row["dialogues"]]
    assert trainer._answer_on_all_ranks(asked).keys() == {d["id"] for _, d in asked}


@pytest.mark.parametrize("world", [2, 8])
def test_ranks_answer_whole_records(tmp_path, tiny_llava, records, monkeypatch, world) -> None:
    trainer = make_trainer(tmp_path, tiny_llava, records)
    asked = [(row, d) for row in records.select(range(3)) for d in row["dialogues"]][:5]
    answered: list[list[str]] = []
    monkeypatch.setattr("hf_llava_vqa.training.trainer.gather_object", lambda pairs: answered.append(pairs) or pairs)
    monkeypatch.setattr(type(trainer.accelerator), "num_processes", world)
    for rank in range(world):
        monkeypatch.setattr(type(trainer.accelerator), "process_index", rank)
        trainer._answer_on_all_ranks(asked)
    ids = [[name for name, _ in pairs] for pairs in answered]
    if world == 2:
        assert ids == [["0#0", "0#1", "2#0"], ["1#0", "1#1"]]
    else:
        assert ids == [["0#0", "0#1"], ["1#0", "1#1"], ["2#0"], *[[]] * 5]


def test_records_of_no_benchmark_are_scored_as_vizwiz(tmp_path, tiny_llava, records) -> None:
    plain = records.map(lambda row: {"source": ""})
    assert "eval_vizwiz_accuracy" in make_trainer(tmp_path, tiny_llava, plain).evaluate()


def test_bfloat16_trains_in_float32_and_evaluates(tmp_path, tiny_llava, records) -> None:
    trainer = make_trainer(tmp_path, tiny_llava, records, bf16=True, dtype="bfloat16")
    trained = {p.dtype for p in trainer.model.parameters() if p.requires_grad}
    frozen = {p.dtype for p in trainer.model.parameters() if not p.requires_grad}
    assert (trained, frozen) == ({torch.float32}, {torch.bfloat16})
    trainer.train()
    assert "eval_vizwiz_accuracy" in trainer.state.log_history[-2] | trainer.state.log_history[-3]


def test_the_projector_has_its_own_learning_rate(tmp_path, tiny_llava, records) -> None:
    trainer = make_trainer(tmp_path, tiny_llava, records, projector_learning_rate=1e-4)
    rates = {id(p): group["lr"] for group in trainer.create_optimizer().param_groups for p in group["params"]}
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad:
            assert rates.pop(id(parameter)) == (1e-4 if "multi_modal_projector" in name else 1e-3)
    assert not rates
    same = make_trainer(tmp_path, tiny_llava, records)
    assert {group["lr"] for group in same.create_optimizer().param_groups} == {1e-3}


def test_the_drawn_answer_changes_with_the_epoch(tmp_path, tiny_llava, records) -> None:
    epochs = []
    trainer = make_trainer(
        *(tmp_path, tiny_llava, records), max_steps=-1, num_train_epochs=3, answer_target="sample", eval_strategy="no"
    )
    collate = trainer.data_collator
    trainer.data_collator = lambda rows: epochs.append(collate.collate.epoch) or collate(rows)
    trainer.train()
    assert epochs == [0, 0, 1, 1, 2, 2]


def test_the_frozen_tower_computes_without_a_graph(tmp_path, tiny_llava, records) -> None:
    trainer = make_trainer(tmp_path, tiny_llava, records, activation_checkpointing=True, max_steps=1)
    seen = []
    base = trainer.model.get_base_model().model
    base.vision_tower.register_forward_hook(lambda _m, _i, out: seen.append(out.last_hidden_state.requires_grad))
    projector = []
    base.multi_modal_projector.register_forward_hook(lambda _m, _i, out: projector.append(out.requires_grad))
    trainer.train()
    assert seen
    assert not any(seen)
    assert projector[0]
    assert torch.is_grad_enabled()


def test_an_adapter_on_the_tower_is_refused(tmp_path, tiny_llava, records) -> None:
    with pytest.raises(ConfigError, match="landed on the vision tower"):
        make_trainer(tmp_path, tiny_llava, records, peft_config=LoraConfig(target_modules=["q_proj"]))


def test_eager_attention_is_refused(tmp_path, tiny_llava, records) -> None:
    model_args = ModelConfig(model_name_or_path=str(tiny_llava), attn_implementation="eager")
    with pytest.raises(ConfigError, match="eager does not honour the mask"):
        VqaTrainer(
            training_model(model_args),
            VqaConfig(output_dir=str(tmp_path), use_cpu=True),
            train_dataset=records,
            processing_class=training_processor(model_args),
        )


def test_card_and_recipe_tell_what_was_done_and_no_secret(tmp_path, tiny_llava, records) -> None:
    trainer = make_trainer(tmp_path, tiny_llava, records, hub_token="hf_secret", save_strategy="steps", save_steps=2)
    trainer.train()
    written = "".join(p.read_text() for p in tmp_path.rglob("*") if p.suffix in (".json", ".md"))
    assert "hf_secret" not in written
    assert str(tmp_path) not in (tmp_path / "checkpoint-2" / "training_recipe.json").read_text()
    recipe = json.loads((tmp_path / "checkpoint-2" / "training_recipe.json").read_text())
    assert recipe["global_step"] == 2
    assert recipe["settings"]["learning_rate"] == 1e-3
    card = (tmp_path / "checkpoint-2" / "README.md").read_text()
    assert "image-text-to-text" in card
    assert "| VizWiz accuracy |" in card


def test_rows_are_grouped_by_modality_anew_in_each_epoch(tmp_path, tiny_llava, records) -> None:
    text = [{**row, "image_id": f"t{row['image_id']}", "images": [], "image_sha256": []} for row in records]
    mixed = Dataset.from_list([*records, *text], features=UNDECODED_FEATURES)
    trainer = make_trainer(
        *(tmp_path, tiny_llava, mixed),
        **{"train_sampling_strategy": "group_by_length", "per_device_train_batch_size": 2, "eval_strategy": "no"},
        **{"max_steps": -1, "num_train_epochs": 2},
    )
    collate, batches = trainer.data_collator, []
    trainer.data_collator = lambda rows: batches.append([row["image_id"] for row in rows]) or collate(rows)
    trainer.train()
    first, second = batches[:8], batches[8:]
    assert sorted(chain(*first)) == sorted(chain(*second)) == sorted(mixed["image_id"])
    assert first != second
    kinds = [{name.startswith("t") for name in batch} for batch in first]
    assert [len(kind) for kind in kinds[:6]] == [1] * 6  # only the rest at the end may be mixed
    assert {frozenset(kind) for kind in kinds[:6]} == {frozenset({True}), frozenset({False})}


def test_a_stream_cannot_be_grouped(tmp_path, tiny_llava, records) -> None:
    with pytest.raises(ConfigError, match="--train_sampling_strategy group_by_length cannot"):
        make_trainer(tmp_path, tiny_llava, records.to_iterable_dataset(), train_sampling_strategy="group_by_length")


def test_a_step_whose_pictures_are_all_bad_changes_nothing(tmp_path, tiny_llava, records) -> None:
    gone = records.map(lambda row: {"images": [{"bytes": b"no picture", "path": None}]})
    trainer = make_trainer(tmp_path, tiny_llava, gone, on_bad_image="skip", eval_strategy="no", weight_decay=0.0)
    before = {name: value.clone() for name, value in trainer.model.named_parameters() if value.requires_grad}
    trainer.train()
    assert all(torch.equal(before[name], value) for name, value in trainer.model.named_parameters() if name in before)
    cases = [json.loads(line) for line in (tmp_path / "bad_images.jsonl").read_text().splitlines()]
    assert {case["image_id"] for case in cases} == set(records["image_id"])
