"""The first stage in real processes: captions in, a projector out, and the second stage begins with it."""

import json
import sys
from pathlib import Path

import pytest
import torch
from parts import save_language_model, save_vision_tower
from PIL import Image
from recipe_runs import REPOSITORY, launch, run
from safetensors.torch import load_file

from hf_llava_vqa.models import load_model
from hf_llava_vqa.models.assembling import AssemblyConfig
from hf_llava_vqa.models.loading import training_model
from hf_llava_vqa.training.checkpoints import newest_whole

PRETRAIN = REPOSITORY / "recipes" / "pretrain_projector.py"
COLOURS = ("red", "green", "blue")
PREFIX = "base_model.model.model.multi_modal_projector."


@pytest.fixture(scope="module")
def captions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plain colours and their names, in the form of LLaVA's 558k captions."""
    root = tmp_path_factory.mktemp("captions")
    (root / "images").mkdir()
    rows = []
    for number in range(24):
        colour = COLOURS[number % 3]
        Image.new("RGB", (40, 60), colour).save(root / "images" / f"{number}.jpg")
        asked, told = "Render a summary of the photo.\n<image>", f"a {colour} box"
        turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": told}]
        rows.append({"id": str(number), "image": f"{number}.jpg", "conversations": turns})
    (root / "train.json").write_text(json.dumps(rows))
    return root


def flags(parts: Path, captions: Path, output: Path, **changes: object) -> list[str]:
    settings = {
        "language_model": parts / "language",
        "vision_tower": parts / "tower",
        "projector": "prototype",
        "num_prototypes": 3,
        "source": "llava_json",
        "data_dir": captions,
        "template": "plain",
        "image_aspect": "crop",
        "learning_rate": 1e-2,
        "num_train_epochs": 4,
        "per_device_train_batch_size": 4,
        "dtype": "float32",
        "use_cpu": True,
        "logging_steps": 1,
        "save_strategy": "epoch",
        "report_to": "none",
        "output_dir": output,
        **changes,
    }
    return [item for name, value in settings.items() if value is not None for item in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    save_language_model(folder / "language")
    save_vision_tower(folder / "tower")
    return folder


@pytest.fixture(scope="module")
def trained(parts: Path, captions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("run") / "projector"
    done = launch(*flags(parts, captions, output), recipe=PRETRAIN)
    assert done.returncode == 0, done.stderr
    return output


@pytest.mark.e2e
def test_loss_falls_and_nothing_but_the_projector_is_trained(trained: Path) -> None:
    history = json.loads((trained / "trainer_state.json").read_text())["log_history"]
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert losses[-1] < losses[0] - 0.5
    counts = json.loads((trained / "training_recipe.json").read_text())["trained_parameters"]
    assert {part for part, count in counts.items() if count} == {"multi_modal_projector"}


@pytest.mark.e2e
def test_folder_and_checkpoint_hold_the_projector_with_what_it_lies_between(trained: Path) -> None:
    checkpoint, skipped = newest_whole(trained)
    assert not skipped
    for folder in (trained, checkpoint):
        assert all(name.startswith(PREFIX) for name in load_file(folder / "adapter_model.safetensors"))
        names = {path.name for path in folder.iterdir()}
        assert {"adapter_config.json", "assembly.json", "processor_config.json", "README.md"} <= names
    assert "optimizer.pt" in {path.name for path in checkpoint.iterdir()}


@pytest.mark.e2e
def test_the_projector_is_read_back_bit_for_bit(trained: Path, parts: Path) -> None:
    saved = load_file(trained / "adapter_model.safetensors")
    args = AssemblyConfig(
        language_model=str(parts / "language"),
        vision_tower=str(parts / "tower"),
        projector="prototype",
        num_prototypes=3,
        pretrained_projector=str(trained),
        dtype="float32",
    )
    for model in (training_model(args), load_model(str(trained), merge=True)[0]):
        projector = model.model.multi_modal_projector.state_dict()
        assert {PREFIX + name for name in projector} == saved.keys()
        assert all(torch.equal(value, saved[PREFIX + name]) for name, value in projector.items())


@pytest.mark.e2e
def test_the_second_stage_begins_with_it_and_its_adapter_is_evaluated(
    trained: Path, parts: Path, vizwiz_folder: Path, tmp_path: Path
) -> None:
    second = {"source": "vizwiz", "template": "v1", "image_aspect": "pad", "pretrained_projector": trained}
    second |= {"use_peft": True, "lora_r": 4, "num_train_epochs": 1, "save_strategy": "no"}
    done = launch(*flags(parts, vizwiz_folder, tmp_path / "adapter", **second))
    assert done.returncode == 0, done.stderr
    done = run(
        *(sys.executable, "scripts/evaluate.py", "--model", tmp_path / "adapter", "--data", vizwiz_folder),
        *("--split", "val", "--max_new_tokens", 4, "--out", tmp_path / "scores"),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "scores" / "scores.json").read_text())["role"] == "adapter"
