"""The recipe configurations: every key is a flag, and the numbers are those the opening comment claims."""

import re
from pathlib import Path

import pytest
import yaml

from hf_llava_vqa.training.config import parse_recipe_args

FOLDER = Path(__file__).parents[1] / "recipes" / "configs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))

# name -> (images an optimizer step, learning rate, projector's, rank, DoRA, 4 bits, answers trained on)
PUBLISHED = {
    "vizwiz_lora_7b": (128, 2e-4, 2e-5, 128, False, False, "votes"),
    "vizwiz_dora_7b": (128, 2e-4, 2e-5, 128, True, False, "votes"),
    "vizwiz_qlora_7b": (128, 2e-4, 2e-5, 128, False, True, "votes"),
    "vizwiz_lora_13b": (128, 2e-4, 2e-5, 128, False, False, "votes"),
    "vizwiz_competition_lora": (32, 2e-4, 2e-5, 128, False, False, "majority"),
}

# name -> (language model, projector); the first stage is the same for all
PRETRAINED = {
    "pretrain_llava15_7b": ("lmsys/vicuna-7b-v1.5", "mlp"),
    "pretrain_llava15_13b": ("lmsys/vicuna-13b-v1.5", "mlp"),
    "pretrain_sq_prototype_7b": ("lmsys/vicuna-7b-v1.5", "prototype"),
}
IMAGES = {name: images for name, (images, *_) in PUBLISHED.items()} | dict.fromkeys(PRETRAINED, 256)


def comment_of(name: str) -> str:
    lines = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    return "\n".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))


def launches_of(name: str) -> list[tuple[str, str, str]]:
    """(launch file, configuration, flags) of every launch command in the opening comment."""
    command = r"accelerate launch --config_file (\S+) \\?\s*recipes/\w+\.py --config (\S+)(.*)"
    return re.findall(command, comment_of(name))


@pytest.mark.parametrize("name", NAMES)
def test_every_key_is_a_flag(name: str, tmp_path: Path) -> None:
    data, config, model = parse_recipe_args(["--config", str(FOLDER / f"{name}.yaml"), "--data_dir", str(tmp_path)])
    assert data.source in ("vizwiz", "vizwiz_competition", "parquet")
    assert config.max_length is None
    assert config.ddp_find_unused_parameters is False
    assert model.use_peft != (name in PRETRAINED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_settings_are_the_published_ones(name: str, tmp_path: Path) -> None:
    images, rate, projector_rate, rank, dora, four_bit, target = PUBLISHED[name]
    _, config, model = parse_recipe_args(["--config", str(FOLDER / f"{name}.yaml"), "--data_dir", str(tmp_path)])
    launch_file, _, flags = launches_of(name)[0]
    processes = yaml.safe_load((FOLDER.parents[1] / launch_file).read_text(encoding="utf-8"))["num_processes"]
    assert flags == ""
    assert processes * config.per_device_train_batch_size * config.gradient_accumulation_steps == images
    assert (config.learning_rate, config.projector_learning_rate) == (rate, projector_rate)
    assert (model.lora_r, model.lora_alpha, model.lora_dropout) == (rank, 2 * rank, 0.05)
    assert (model.use_dora, model.load_in_4bit) == (dora, four_bit)
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


@pytest.mark.parametrize("name", IMAGES)
def test_every_launch_in_the_comment_keeps_the_batch(name: str, tmp_path: Path) -> None:
    """More GPUs with a smaller accumulation: the same number of images an optimizer step."""
    for launch_file, config_file, flags in launches_of(name):
        assert config_file == f"recipes/configs/{name}.yaml"
        args = ["--config", str(FOLDER.parents[1] / config_file), "--data_dir", str(tmp_path), *flags.split()]
        _, config, _ = parse_recipe_args(args)
        processes = yaml.safe_load((FOLDER.parents[1] / launch_file).read_text(encoding="utf-8"))["num_processes"]
        images = processes * config.per_device_train_batch_size * config.gradient_accumulation_steps
        assert images == IMAGES[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_opens_with_what_how_and_how_long(name: str) -> None:
    comment = comment_of(name)
    assert re.match(r"\d{4}-\d{2}-\d{2}\. ", comment)
    for heading in ("Reproduces", "Launch", "Hardware", "Time"):
        assert re.search(rf"^{heading}\b", comment, flags=re.MULTILINE), heading
    assert launches_of(name)
    for launch_file, _, _ in launches_of(name):
        assert (FOLDER.parents[1] / launch_file).is_file()
