"""What each `--trainable` trains, with which learning rates, and that a saved folder holds all of it."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from examples import MIXED, SIDE, build_outspoken_llava, dataset
from peft import PeftModel
from transformers import LlavaForConditionalGeneration

from hf_llava_vqa import VqaConfig, VqaTrainer
from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.models import load_model
from hf_llava_vqa.models.adapters import lora_config
from hf_llava_vqa.models.loading import training_model, training_processor
from hf_llava_vqa.models.trainable import TRAINABLE, VqaModelConfig
from hf_llava_vqa.training import parse_recipe_args

GOLDEN = Path(__file__).parents[1] / "golden" / "parity" / "lora_targets.jsonl"
UPSTREAM = {row["id"]: row for row in map(json.loads, GOLDEN.read_text().splitlines())}
PARTS = ("vision_tower", "multi_modal_projector", "language_model", "lm_head")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    build_outspoken_llava(folder)
    return folder


def make_trainer(base: Path, output: Path, trainable: str, model: dict[str, Any] | None = None, **changes: Any):
    flags = {"model_name_or_path": str(base), "dtype": "float32", "lora_r": 4, "lora_dropout": 0.0, "vision_lora_r": 2}
    args = VqaModelConfig(trainable=trainable, **(flags | (model or {})))
    settings = {
        "output_dir": str(output),
        "per_device_train_batch_size": 4,
        "learning_rate": 0.02,
        "max_steps": 2,
        "activation_checkpointing": False,
        "use_cpu": True,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    return VqaTrainer(
        training_model(args),
        VqaConfig(**(settings | changes)),
        train_dataset=dataset(MIXED),
        eval_dataset=dataset(MIXED[:2]),
        processing_class=training_processor(args),
        peft_config=lora_config(args),
    )


def trained(trainer: VqaTrainer) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}


def rates(trainer: VqaTrainer) -> dict[str, float]:
    groups = trainer.create_optimizer().param_groups
    by_id = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    return {name: by_id.pop(id(parameter)) for name, parameter in trained(trainer).items()} | by_id


def our_name(name: str) -> str:
    """A parameter's name in LLaVA's own code -> in transformers and PEFT, which trains a copy of the projector."""
    kept = "modules_to_save.default." if name.startswith("base_model.") else ""
    return (
        name.replace("model.mm_projector.0.", f"model.multi_modal_projector.{kept}linear_1.")
        .replace("model.mm_projector.2.", f"model.multi_modal_projector.{kept}linear_2.")
        .replace("model.layers.", "model.language_model.layers.")
        .replace("model.embed_tokens.", "model.language_model.embed_tokens.")
        .replace("model.norm.", "model.language_model.norm.")
    )


@pytest.mark.parametrize(
    ("row", "trainable", "projector_rate"),
    [
        ("full_vicuna", "full", None),
        ("full_mm_projector_lr", "full", 2e-5),
        ("lora_vicuna", "lora", None),
        ("lora_bias_all", "lora", None),  # Llama has no biases to add
    ],
)
def test_llava_trains_the_same_with_the_same_rates(
    base: Path, tmp_path: Path, row: str, trainable: str, projector_rate: float | None
) -> None:
    """Names, learning rates and weight decay as recorded from LLaVA's own code; docs/parity.md has what differs."""
    changes = {"learning_rate": 2e-4, "weight_decay": 0.1, "projector_learning_rate": projector_rate}
    trainer = make_trainer(base, tmp_path, trainable, **changes)
    assert set(trained(trainer)) == set(map(our_name, UPSTREAM[row]["trainable"]))
    names = {id(parameter): name for name, parameter in trained(trainer).items()}
    ours = {
        (group["lr"], group["weight_decay"]): {names[id(parameter)] for parameter in group["params"]}
        for group in trainer.create_optimizer().param_groups
    }
    theirs = {
        (group["lr"], group["weight_decay"]): set(map(our_name, group["names"]))
        for group in UPSTREAM[row]["param_groups"]
        if group["names"]
    }
    assert ours == theirs


@pytest.mark.parametrize(
    ("trainable", "parts"),
    [
        ("projector", {"multi_modal_projector"}),
        ("lora", {"multi_modal_projector", "language_model"}),
        ("dora", {"multi_modal_projector", "language_model"}),
        ("lora+vision", {"multi_modal_projector", "language_model", "vision_tower"}),
        ("full", {"multi_modal_projector", "language_model", "lm_head"}),
    ],
)
@pytest.mark.parametrize("recompute", [False, True], ids=["", "checkpointing"])
def test_every_trained_parameter_gets_a_gradient_and_no_other(
    base: Path, tmp_path: Path, trainable: str, parts: set[str], recompute: bool
) -> None:
    trainer = make_trainer(base, tmp_path, trainable, max_steps=2, activation_checkpointing=recompute)
    seen: dict[str, float] = {}

    def note(name: str, gradient: torch.Tensor) -> None:
        seen[name] = seen.get(name, 0) + gradient.abs().sum().item()

    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad:
            parameter.register_hook(partial(note, name))
    trainer.train()
    assert set(seen) == set(trained(trainer))
    assert all(seen.values()), [name for name, size in seen.items() if not size]
    assert {part for part in PARTS for name in seen if part in name} == parts
    if trainable == "lora+vision":  # LLaVA reads layer -2: the third and last is computed for nothing
        layers = {name.split("layers.")[1][0] for name in seen if "vision_tower" in name}
        assert layers == {"0", "1"}


def test_each_part_has_its_own_learning_rate(base: Path, tmp_path: Path) -> None:
    trainer = make_trainer(
        *(base, tmp_path, "lora+vision"), projector_learning_rate=1e-4, vision_learning_rate=1e-5, learning_rate=1e-3
    )
    expected = {"vision_tower": 1e-5, "multi_modal_projector": 1e-4, "language_model": 1e-3}
    for name, rate in rates(trainer).items():
        assert rate == next(value for part, value in expected.items() if part in name)


@pytest.mark.parametrize("trainable", TRAINABLE)
@torch.no_grad()
def test_a_saved_folder_holds_what_was_trained(base: Path, tmp_path: Path, trainable: str) -> None:
    trainer = make_trainer(base, tmp_path / "run", trainable)
    before = {name: parameter.clone() for name, parameter in trained(trainer).items()}
    with torch.enable_grad():
        trainer.train()
    after = trained(trainer)
    assert [name for name in before if torch.equal(before[name], after[name])] == []  # DoRA's magnitudes are among them
    assert any("lora_magnitude_vector" in name for name in after) == (trainable == "dora")
    trainer.save_model()
    expected = logits(trainer.model.eval())
    assert not torch.allclose(expected, logits(load_model(str(base))[0]), atol=1e-2)
    model, processor = load_model(str(tmp_path / "run"))
    assert isinstance(model, PeftModel) == (trainable != "full")
    torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=1e-5)
    stock = LlavaForConditionalGeneration.from_pretrained(tmp_path / "run").eval()
    torch.testing.assert_close(logits(stock), expected, atol=1e-5, rtol=1e-5)
    if trainable != "full":
        merged, _ = load_model(str(tmp_path / "run"), merge=True)
        merged.save_pretrained(tmp_path / "merged")
        again = LlavaForConditionalGeneration.from_pretrained(tmp_path / "merged").eval()
        torch.testing.assert_close(logits(again), expected, atol=1e-4, rtol=1e-4)
    assert processor.chat_template


@torch.no_grad()
def test_token_embeddings_trained_beside_an_adapter_survive(base: Path, tmp_path: Path) -> None:
    kept = {"lora_modules_to_save": ["multi_modal_projector", "embed_tokens"]}
    trainer = make_trainer(base, tmp_path, "lora", kept)
    with torch.enable_grad():
        trainer.train()
    trainer.save_model()
    loaded = load_model(str(tmp_path))[0].get_input_embeddings().weight
    original = load_model(str(base))[0].get_input_embeddings().weight
    assert torch.equal(loaded, trainer.model.get_input_embeddings().weight)
    assert not torch.equal(loaded, original)


@pytest.mark.parametrize("trainable", ["projector", "lora+vision", "full"])
def test_a_run_goes_on_from_a_checkpoint_as_if_it_had_not_ended(base: Path, tmp_path: Path, trainable: str) -> None:
    saving = {"save_strategy": "steps", "save_steps": 1}
    whole = make_trainer(base, tmp_path / "whole", trainable, **saving)
    whole.train()
    resumed = make_trainer(base, tmp_path / "resumed", trainable, **saving)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-1"))
    assert resumed.state.global_step == 2
    first, second = trained(whole), trained(resumed)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_the_best_of_a_full_run_is_loaded_at_the_end(base: Path, tmp_path: Path) -> None:
    """With steps as wide as these the last model is not the best."""
    trainer = make_trainer(
        *(base, tmp_path, "full"),
        **{"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1, "max_steps": 3},
        **{"load_best_model_at_end": True, "metric_for_best_model": "loss", "learning_rate": 1.0},
        **{"lr_scheduler_type": "constant"},
    )
    trainer.train()
    assert trainer.state.best_global_step < trainer.state.global_step == 3
    best = load_model(str(tmp_path / f"checkpoint-{trainer.state.best_global_step}"))[0]
    torch.testing.assert_close(logits(trainer.model.eval()), logits(best))


def test_a_rate_for_a_frozen_tower_is_refused(base: Path, tmp_path: Path) -> None:
    arguments = ["--model_name_or_path", str(base), "--data_dir", str(tmp_path), "--vision_learning_rate", "1e-5"]
    with pytest.raises(
        ConfigError, match="--vision_learning_rate has nothing to train with --trainable lora; use lora"
    ):
        parse_recipe_args([*arguments, "--use_cpu", "True", "--trainable", "lora"])


def logits(model: torch.nn.Module) -> torch.Tensor:
    """Of a picture and a few words, the same each time."""
    image = model.config.image_token_id
    ids = torch.tensor([[1, image, image, image, image, 40, 50, 60]])
    pixels = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    return model(input_ids=ids, pixel_values=pixels).logits
