"""`ResumableTrainer` in one process: what its checkpoints hold, which it keeps, what it publishes, what it refuses."""

import json
from pathlib import Path
from typing import Any

import examples
import pytest
from datasets import Dataset
from huggingface_hub.utils import filter_repo_objects
from peft import LoraConfig
from transformers import TrainerCallback
from transformers.utils.hub import PushInProgress

from hf_llava_vqa import VqaConfig, VqaTrainer
from hf_llava_vqa.data import load_records
from hf_llava_vqa.data.prepared.preparation import write_shards
from hf_llava_vqa.data.streams import RecordStream
from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.models.adapters import language_model_targets
from hf_llava_vqa.models.loading import load_model
from hf_llava_vqa.training.checkpoints import defect
from hf_llava_vqa.training.training_recipe import run_identity


@pytest.fixture(scope="module")
def records() -> Dataset:
    """Five pictures with a question each."""
    return examples.dataset(
        [examples.record(str(n), [examples.question(f"{n}")], colours=[examples.colour(n)]) for n in range(5)]
    )


def make_trainer(folder: Path, tiny_llava: Path, records: Any, **changes: Any) -> VqaTrainer:
    model, processor = load_model(str(tiny_llava))
    settings = {
        "output_dir": str(folder),
        "use_cpu": True,
        "max_steps": 3,
        "per_device_train_batch_size": 2,
        "save_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "activation_checkpointing": False,
        "max_length": None,
    }
    return VqaTrainer(
        model,
        VqaConfig(**(settings | changes)),
        train_dataset=records,
        eval_dataset=records,
        processing_class=processor,
        peft_config=LoraConfig(r=2, target_modules=language_model_targets()),
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("checkpoint-*"))


def test_every_checkpoint_is_whole_and_names_no_staging_folder(tmp_path, tiny_llava, records) -> None:
    make_trainer(tmp_path, tiny_llava, records).train()
    assert names(tmp_path) == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]
    for checkpoint in tmp_path.glob("checkpoint-*"):
        assert defect(checkpoint) is None
        assert all(b".incomplete" not in file.read_bytes() for file in checkpoint.rglob("*") if file.is_file())
    assert not (tmp_path / ".incomplete").exists()


def test_the_best_checkpoint_is_named_by_its_place_and_outlives_rotation(tmp_path, tiny_llava, records) -> None:
    trainer = make_trainer(
        *(tmp_path, tiny_llava, records),
        **{"learning_rate": 0.0, "eval_strategy": "steps", "eval_steps": 1, "save_total_limit": 2},
        **{"metric_for_best_model": "eval_loss", "load_best_model_at_end": True, "eval_max_new_tokens": 1},
    )
    trainer.train()
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-1")  # rate 0: nothing is ever better
    assert names(tmp_path) == ["checkpoint-1", "checkpoint-3"]
    state = json.loads((tmp_path / "checkpoint-1" / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(tmp_path / "checkpoint-1")


def test_what_is_published_comes_from_a_whole_checkpoint_without_pickles(
    tmp_path, tiny_llava, records, monkeypatch
) -> None:
    trainer = make_trainer(tmp_path, tiny_llava, records, max_steps=1, hub_strategy="checkpoint", hub_token="hf_x")
    uploads: list[dict[str, Any]] = []
    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", lambda self, **options: uploads.append(options))
    trainer.args.push_to_hub, trainer.hub_model_id, trainer.push_in_progress = True, "me/adapter", PushInProgress()
    monkeypatch.setattr(trainer, "_finish_current_push", lambda: None)
    trainer.train()
    published, resumable = uploads
    assert published["folder_path"] == resumable["folder_path"] == tmp_path / "checkpoint-1"
    assert resumable["path_in_repo"] == "last-checkpoint"
    for file in (tmp_path / "checkpoint-1").iterdir():
        if any(file.match(pattern) for pattern in published["allow_patterns"]):
            assert file.suffix in (".safetensors", ".json", ".jinja", ".md", ".model")
        assert b"hf_x" not in file.read_bytes()
    assert (tmp_path / "checkpoint-1" / "adapter_model.safetensors").match(published["allow_patterns"][0])


def test_the_final_push_leaves_out_what_names_this_machine(tmp_path, tiny_llava, records, monkeypatch) -> None:
    trainer = make_trainer(tmp_path, tiny_llava, records, max_steps=1, save_strategy="no", hub_token="hf_x")
    uploads: list[dict[str, Any]] = []
    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", lambda self, **options: uploads.append(options))
    trainer.hub_model_id = "me/adapter"
    trainer.train()
    for name in ("bad_images.jsonl", "nonfinite.jsonl", "checkpoint-1/optimizer.pt", "eval/predictions.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("/home/me")
    trainer.push_to_hub(dataset_name="vizwiz")
    (upload,) = uploads
    files = [file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file()]
    patterns = {name: upload[name] for name in ("allow_patterns", "ignore_patterns")}
    sent = set(filter_repo_objects(files, **patterns))
    assert {"adapter_model.safetensors", "README.md", "chat_template.jinja"} <= sent
    assert all("/home/me" not in (tmp_path / name).read_text(errors="replace") for name in sent)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"seed": 7}, "seed 42 became 7"),
        ({"per_device_train_batch_size": 1}, "global batch 2 became 1"),
        ({"answer_target": "votes"}, "answer_target majority became votes"),
        (
            {"template": "v1_sq", "self_question_ratio": 0.5},
            r"template v1 became v1_sq; self_question_ratio 0.0 became 0.5",
        ),
        (
            {"answer_confidence_weights": [1.0, 0.5, 0.0]},
            r"answer_confidence_weights \[1.0, 1.0, 1.0\] became \[1.0, 0.5, 0.0\]",
        ),
    ],
)
def test_a_changed_run_does_not_resume(tmp_path, tiny_llava, records, change, difference) -> None:
    make_trainer(tmp_path, tiny_llava, records, max_steps=1).train()
    changed = make_trainer(tmp_path, tiny_llava, records, **change)
    with pytest.raises(ConfigError, match=f"checkpoint-1 is of another run: {difference}; .*--force_resume"):
        changed.train("auto")
    forced = make_trainer(tmp_path, tiny_llava, records, **change, force_resume=True, max_steps=2)
    forced.train("auto")
    assert forced.state.global_step == 2


def test_other_data_or_another_base_do_not_resume(tmp_path, tiny_llava, records) -> None:
    make_trainer(tmp_path, tiny_llava, records, max_steps=1).train()
    with pytest.raises(ConfigError, match=r"data .*… became .*…"):
        make_trainer(tmp_path, tiny_llava, records.select(range(4))).train("auto")
    other = make_trainer(tmp_path, tiny_llava, records)
    other.model.get_base_model().lm_head.weight.data.add_(1)
    other.identity = run_identity(other)
    with pytest.raises(ConfigError, match=r"base model .*… became .*…"):
        other.train("auto")


def test_a_checkpoint_without_optimizer_state_is_refused(tmp_path, tiny_llava, records) -> None:
    make_trainer(tmp_path, tiny_llava, records, max_steps=1, save_only_model=True).train()
    with pytest.raises(ConfigError, match=r"checkpoint-1 holds no optimizer state.*--force_resume"):
        make_trainer(tmp_path, tiny_llava, records).train("auto")
    forced = make_trainer(tmp_path, tiny_llava, records, force_resume=True)
    forced.train("auto")
    assert forced.state.global_step == 3


def test_a_new_run_in_the_folder_of_an_earlier_one_is_refused(tmp_path, tiny_llava, records) -> None:
    make_trainer(tmp_path, tiny_llava, records, max_steps=1).train()
    with pytest.raises(ConfigError, match="checkpoint-1 is there already"):
        make_trainer(tmp_path, tiny_llava, records).train()


def test_a_finished_run_that_is_resumed_makes_no_further_step(tmp_path, tiny_llava, records) -> None:
    make_trainer(tmp_path, tiny_llava, records).train()
    again = make_trainer(tmp_path, tiny_llava, records)
    again.train("auto")
    assert again.state.global_step == 3
    assert names(tmp_path) == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]


def stream(tmp_path: Path, records: Dataset) -> RecordStream:
    write_shards(records, tmp_path / "prepared", split="train", rows_per_shard=3, row_group_size=2)
    return load_records("parquet", path=tmp_path / "prepared", streaming=True)


def test_a_stream_of_known_length_is_walked_for_epochs(tmp_path, tiny_llava, records) -> None:
    trainer = make_trainer(
        *(tmp_path / "out", tiny_llava, stream(tmp_path, records)),
        **{"max_steps": -1, "num_train_epochs": 2, "save_strategy": "epoch", "logging_steps": 1},
    )
    trainer.train()
    assert trainer.state.global_step == 5  # 2 passes over 5 rows in steps of 2
    assert [entry["epoch"] for entry in trainer.state.log_history][:5] == [0.4, 0.8, 1.2, 1.6, 2.0]
    assert names(tmp_path / "out") == ["checkpoint-3", "checkpoint-5"]  # the first steps that end in a new pass
    again = make_trainer(
        *(tmp_path / "out", tiny_llava, load_records("parquet", path=tmp_path / "prepared", streaming=True)),
        **{"max_steps": -1, "num_train_epochs": 2},
    )
    again.train("auto")
    assert again.state.global_step == 5


def test_a_stream_of_unknown_length_needs_steps(tmp_path, tiny_llava, records) -> None:
    mapped = stream(tmp_path, records).map(lambda row: row)
    with pytest.raises(ConfigError, match="--max_steps is missing"):
        make_trainer(tmp_path / "out", tiny_llava, mapped, max_steps=-1)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_batch_changed_by_force_reads_on_from_its_next_multiple(tmp_path, tiny_llava, records, batch) -> None:
    make_trainer(tmp_path / "out", tiny_llava, stream(tmp_path, records), max_steps=3).train()
    changed = make_trainer(
        *(tmp_path / "out", tiny_llava, load_records("parquet", path=tmp_path / "prepared", streaming=True)),
        **{"per_device_train_batch_size": batch, "force_resume": True, "max_steps": 6},
    )
    changed.train("auto")
    assert changed.state.global_step == 6
    recipe = json.loads((tmp_path / "out" / "checkpoint-6" / "training_recipe.json").read_text())
    assert recipe["rows"] == {1: 6 + 3, 4: 8 + 12}[batch]


class Watch(TrainerCallback):
    """What each step of a run read, and with which learning rate the optimizer made it."""

    def __init__(self, trainer: VqaTrainer) -> None:
        self.rows: list[list[str]] = []
        self.rates: list[float] = []
        collate = trainer.data_collator
        trainer.data_collator = lambda rows: self.rows.append([row["image_id"] for row in rows]) or collate(rows)
        trainer.add_callback(self)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any, **_: Any) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])


def test_a_longer_run_goes_on_with_its_own_schedule(tmp_path, tiny_llava, records) -> None:
    """One epoch, then a second: order, weights and moments go on; the learning rate is that of two epochs."""
    settings = {"max_steps": -1, "save_strategy": "epoch", "learning_rate": 1e-2, "lr_scheduler_type": "cosine"}
    make_trainer(tmp_path / "run", tiny_llava, records, num_train_epochs=1, **settings).train()
    longer = make_trainer(tmp_path / "run", tiny_llava, records, num_train_epochs=2, **settings)
    whole = make_trainer(tmp_path / "whole", tiny_llava, records, num_train_epochs=2, **settings)
    continued, uninterrupted = Watch(longer), Watch(whole)
    longer.train(resume_from_checkpoint="auto")
    whole.train()
    assert len(uninterrupted.rows) == 6
    assert continued.rows == uninterrupted.rows[3:]  # nothing of the first epoch is read again
    assert continued.rates == uninterrupted.rates[3:]
    assert continued.rates[0] == pytest.approx(5e-3)  # the cosine's middle, not the 0 at which the first run ended
    assert {int(state["step"]) for state in longer.optimizer.state_dict()["state"].values()} == {6}


def test_another_learning_rate_is_used_from_the_first_step(tmp_path, tiny_llava, records) -> None:
    settings = {"max_steps": -1, "save_strategy": "epoch", "lr_scheduler_type": "cosine"}
    make_trainer(tmp_path, tiny_llava, records, num_train_epochs=1, learning_rate=1e-2, **settings).train()
    lower = make_trainer(tmp_path, tiny_llava, records, num_train_epochs=2, learning_rate=1e-3, **settings)
    watch = Watch(lower)
    lower.train(resume_from_checkpoint="auto")
    assert watch.rates[0] == pytest.approx(5e-4)
