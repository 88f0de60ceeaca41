"""The recipe configurations: every key is a flag, and the numbers are those the opening comment claims."""

import re
from pathlib import Path

import pytest
import yaml

from hf_llava_vqa.training.config import parse_recipe_args

FOLDER = Path(__file__).parents[1] / "recipes" / "configs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))

# name -> (rows an optimizer step, learning rate, projector's, what is trained, 4 bits, answers trained on)
PUBLISHED = {
    "vizwiz_lora_7b": (128, 2e-4, 2e-5, "lora", False, "votes"),
    "vizwiz_dora_7b": (128, 2e-4, 2e-5, "dora", False, "votes"),
    "vizwiz_qlora_7b": (128, 2e-4, 2e-5, "lora", True, "votes"),
    "vizwiz_lora_13b": (128, 2e-4, 2e-5, "lora", False, "votes"),
    "vizwiz_competition_lora": (32, 2e-4, 2e-5, "lora", False, "majority"),
    "instruct_lora_7b": (80, 2e-4, 2e-5, "lora", False, "majority"),
    "instruct_lora_13b": (80, 2e-4, 2e-5, "lora", False, "majority"),
    "instruct_dora_7b": (80, 2e-4, 2e-5, "dora", False, "majority"),
    "instruct_full_7b": (80, 2e-5, None, "full", False, "majority"),
    "instruct_full_13b": (80, 2e-5, None, "full", False, "majority"),
    "dacon_projector": (76, 2e-3, None, "projector", False, "majority"),
    "dacon_lora_7b": (38, 2e-4, 2e-5, "lora", False, "majority"),
    "ubiai_lora_7b": (16, 2e-4, 2e-5, "lora", False, "majority"),
    "ubiai_full_7b": (16, 2e-5, None, "full", False, "majority"),
}

# name -> (language model, projector); the first stage is the same for all
PRETRAINED = {
    "pretrain_llava15_7b": ("lmsys/vicuna-7b-v1.5", "mlp"),
    "pretrain_llava15_13b": ("lmsys/vicuna-13b-v1.5", "mlp"),
    "pretrain_sq_prototype_7b": ("lmsys/vicuna-7b-v1.5", "prototype"),
}
# name -> (language model, rank in the tower, epochs); 80 rows are the 128 samples of SQ-LLaVA's step
SELF_QUESTIONING = {
    "sq_llava_7b": ("lmsys/vicuna-7b-v1.5", 32, 1),
    "sq_llava_13b": ("lmsys/vicuna-13b-v1.5", 64, 1.2),
}
ROWS = {name: rows for name, (rows, *_) in PUBLISHED.items()} | dict.fromkeys(PRETRAINED, 256)
ROWS |= dict.fromkeys(SELF_QUESTIONING, 80) | {"dacon_retrain": 76}
SOURCES = ("vizwiz", "vizwiz_competition", "dacon", "ubiai", "parquet")


def comment_of(name: str) -> str:
    lines = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    return "\n".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))


def launches_of(name: str) -> list[tuple[str, str, str]]:
    """(launch file, configuration, flags) of every launch command in the opening comment."""
    command = r"accelerate launch --config_file (\S+) \\?\s*recipes/\w+\.py --config (\S+)(.*)"
    return re.findall(command, comment_of(name))


@pytest.mark.parametrize("name", NAMES)
def test_every_key_is_a_flag(name: str, tmp_path: Path) -> None:
    data, config, _ = parse_recipe_args(["--config", str(FOLDER / f"{name}.yaml"), "--data_dir", str(tmp_path)])
    assert data.source in SOURCES
    assert config.max_length is None
    assert config.ddp_find_unused_parameters is False


@pytest.mark.parametrize("name", PUBLISHED)
def test_settings_are_the_published_ones(name: str, tmp_path: Path) -> None:
    rows, rate, projector_rate, trainable, four_bit, target = PUBLISHED[name]
    _, config, model = parse_recipe_args(["--config", str(FOLDER / f"{name}.yaml"), "--data_dir", str(tmp_path)])
    launch_file, _, flags = launches_of(name)[0]
    processes = yaml.safe_load((FOLDER.parents[1] / launch_file).read_text(encoding="utf-8"))["num_processes"]
    assert flags == ""
    assert processes * config.per_device_train_batch_size * config.gradient_accumulation_steps == rows
    assert (config.learning_rate, config.projector_learning_rate) == (rate, projector_rate)
    assert (model.trainable, model.load_in_4bit) == (trainable, four_bit)
    if trainable in ("lora", "dora"):
        assert (model.lora_r, model.lora_alpha, model.lora_dropout) == (128, 256, 0.05)
    assert config.answer_target == target
    assert (config.num_train_epochs, config.lr_scheduler_type, config.weight_decay) == (1, "cosine", 0)
    assert config.get_warmup_steps(1000) == 30


@pytest.mark.parametrize("name", PRETRAINED)
def test_the_first_stage_has_the_published_settings(name: str, tmp_path: Path) -> None:
    _, config, model = parse_recipe_args(["--config", str(FOLDER / f"{name}.yaml"), "--data_dir", str(tmp_path)])
    assert (model.language_model, model.projector) == PRETRAINED[name]
    assert model.vision_tower == "openai/clip-vit-large-patch14-336"
    assert (model.num_prototypes, model.prototype_iterations) == (256, 2)
    assert (config.template, config.image_aspect, config.learning_rate) == ("plain", "crop", 1e-3)
    assert (config.num_train_epochs, config.lr_scheduler_type, config.weight_decay) == (1, "cosine", 0)
    assert config.get_warmup_steps(1000) == 30


@pytest.mark.parametrize("name", SELF_QUESTIONING)
def test_self_questioning_has_the_published_settings(name: str, tmp_path: Path) -> None:
    _, config, model = parse_recipe_args(["--config", str(FOLDER / f"{name}.yaml"), "--data_dir", str(tmp_path)])
    assert (model.language_model, model.vision_lora_r, config.num_train_epochs) == SELF_QUESTIONING[name]
    assert (model.trainable, model.projector, model.vision_lora_alpha) == (
        *("lora+vision", "prototype"),
        2 * model.vision_lora_r,
    )
    assert model.pretrained_projector == f"runs/pretrain_sq_prototype_{name.removeprefix('sq_llava_')}"
    assert (model.lora_r, model.lora_alpha, model.lora_dropout) == (128, 256, 0.05)
    rates = (config.learning_rate, config.projector_learning_rate, config.vision_learning_rate)
    assert rates == (2e-4, 2e-5, 2e-5)
    assert (config.template, config.self_question_ratio, config.image_aspect) == ("v1_sq", 0.5, "pad")
    assert (config.lr_scheduler_type, config.weight_decay) == ("cosine", 0)
    assert config.get_warmup_steps(1000) == 30


@pytest.mark.parametrize("name", ROWS)
def test_every_launch_in_the_comment_keeps_the_batch(name: str, tmp_path: Path) -> None:
    """More GPUs with a smaller accumulation: the same number of rows an optimizer step."""
    for launch_file, config_file, flags in launches_of(name):
        assert config_file == f"recipes/configs/{name}.yaml"
        args = ["--config", str(FOLDER.parents[1] / config_file), "--data_dir", str(tmp_path), *flags.split()]
        _, config, _ = parse_recipe_args(args)
        processes = yaml.safe_load((FOLDER.parents[1] / launch_file).read_text(encoding="utf-8"))["num_processes"]
        rows = processes * config.per_device_train_batch_size * config.gradient_accumulation_steps
        assert rows == ROWS[name]


def test_retraining_is_the_same_run_but_longer() -> None:
    first, second = (yaml.safe_load((FOLDER / f"dacon_{name}.yaml").read_text()) for name in ("projector", "retrain"))
    assert {name: second[name] for name in second if second[name] != first[name]} == {
        "num_train_epochs": 2,
        "warmup_steps": 0,
    }
    assert second["resume_from_checkpoint"] == "auto"


@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_opens_with_what_how_and_how_long(name: str) -> None:
    comment = comment_of(name)
    assert re.match(r"\d{4}-\d{2}-\d{2}\. ", comment)
    for heading in ("Reproduces", "Launch", "Hardware", "Time"):
        assert re.search(rf"^{heading}\b", comment, flags=re.MULTILINE), heading
    assert launches_of(name)
    for launch_file, _, _ in launches_of(name):
        assert (FOLDER.parents[1] / launch_file).is_file()
