"""Packed rows under FlexAttention and flash-attn train as one tree a row does under SDPA."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from examples import chain, colour, dataset, question, record
from torch.nn.attention import flex_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import flash_attention_mask
from trl import ModelConfig

from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.models import load_model
from hf_llava_vqa.models.adapters import lora_config
from hf_llava_vqa.training import VqaConfig, VqaTrainer

FLASH = "flash_reference"  # a name as kernels of the Hub have it: "flash" in it says what it reads
PATHS = {"max_questions_per_row": 1, "answer_target": "majority"}
ROWS = [
    record(
        str(number),
        [question(f"{number}.{k}", f"Question {k}?", ["yes", "no", "no"]) for k in range(1 + number % 3)]
        + [chain(f"{number}.c", "Hello?", "Hi there.", "Why?", "so")] * (number % 2),
        colours=[colour(number + 1)] * (number % 4),  # none: text only
    )
    for number in range(8)
]
BATCHES = {"mixed": ROWS, "text only": [ROWS[0], ROWS[4]], "one": ROWS[5:6]}


@pytest.fixture(scope="module", autouse=True)
def flex_on_the_cpu() -> Iterator[None]:
    """Torch computes FlexAttention's gradients on a CPU only unfused, and refuses that to everybody."""
    with pytest.MonkeyPatch.context() as patch, torch.compiler.set_stance("force_eager"):
        patch.setattr(flex_attention, "_validate_device", lambda *_: None)
        yield


@pytest.fixture(scope="module", autouse=True)
def flash_reference() -> None:
    AttentionInterface.register(FLASH, varlen_attention)
    AttentionMaskInterface.register(FLASH, flash_attention_mask)


def varlen_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    cu_seq_lens_q: torch.Tensor,
    cu_seq_lens_k: torch.Tensor,
    max_length_q: int,
    max_length_k: int,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """What flash-attn computes from the arguments that transformers hands to it: causal attention path by path."""
    assert attention_mask is None
    assert cu_seq_lens_q.equal(cu_seq_lens_k)
    assert (cu_seq_lens_q.dtype, cu_seq_lens_q[0], cu_seq_lens_q[-1]) == (torch.int32, 0, query.shape[2])
    lengths = cu_seq_lens_q.diff().tolist()
    assert max_length_q == max_length_k == max(lengths)
    split = zip(*(states.split(lengths, dim=2) for states in (query, key, value)), strict=True)
    return torch.cat([sdpa_attention_forward(module, *path, None, **kwargs)[0] for path in split], dim=1), None


@pytest.fixture
def build(tiny_llava: Path, tmp_path: Path) -> Callable[..., VqaTrainer]:
    """Trainers that differ in their attention only; LoRA is past its first step, where half of its gradients are 0."""

    def trainer(attention: str, **options: Any) -> VqaTrainer:
        model, processor = load_model(str(tiny_llava), attn_implementation="sdpa" if attention == FLASH else attention)
        model.model.vision_tower.requires_grad_(False)
        if attention == FLASH:
            model.set_attn_implementation({"text_config": FLASH})
        settings = {
            "per_device_train_batch_size": 4,
            "per_device_eval_batch_size": 4,
            "learning_rate": 1e-2,
            "adam_epsilon": 1e-4,
            "max_steps": 3,
            "logging_steps": 1,
            "gradient_checkpointing": False,
            "use_cpu": True,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
        }
        torch.manual_seed(0)
        made = VqaTrainer(
            model,
            VqaConfig(output_dir=str(tmp_path), **(settings | options)),
            train_dataset=dataset(ROWS),
            eval_dataset=dataset(ROWS[:6]),
            processing_class=processor,
            peft_config=lora_config(ModelConfig(use_peft=True, lora_r=4, lora_dropout=0.0)),
        )
        for name, parameter in made.model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.1)
        return made

    return trainer


def loss_and_gradients(trainer: VqaTrainer, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Of one batch, by name."""
    trainer.model.eval()
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
    named = {name: parameter for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    gradients = torch.autograd.grad(loss, list(named.values()), materialize_grads=True)
    return {"loss": loss.detach(), **dict(zip(named, gradients, strict=True))}


BACKENDS = pytest.mark.parametrize(("attention", "options"), [("flex_attention", {}), (FLASH, PATHS)])


@BACKENDS
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("multiple", [None, 64], ids=["", "padded"])
def test_loss_and_gradients_are_those_of_one_tree_a_row(
    build: Callable[..., VqaTrainer], attention: str, options: dict[str, Any], batch: str, multiple: int | None
) -> None:
    sdpa, packed = (build(name, pad_to_multiple_of=multiple, **options) for name in ("sdpa", attention))
    for trainer in (sdpa, packed):
        trainer.data_collator.collate.picture_in_every_batch = True
    expected, ours = (loss_and_gradients(trainer, BATCHES[batch]) for trainer in (sdpa, packed))
    assert len(packed.data_collator(BATCHES[batch])["input_ids"]) == 1
    for name, value in expected.items():
        assert (ours[name] - value).abs().max() <= 1e-5 * value.abs().max(), name


@BACKENDS
def test_steps_and_evaluation_are_those_of_sdpa(
    build: Callable[..., VqaTrainer], attention: str, options: dict[str, Any]
) -> None:
    options = {"gradient_checkpointing": True, "eval_strategy": "steps", "eval_steps": 2, **options}
    logs = []
    for name in ("sdpa", attention):
        trainer = build(name, **options)
        trainer.train()
        logs.append([entry for entry in trainer.state.log_history if "loss" in entry or "eval_loss" in entry])
        assert trainer.model.config.get_text_config()._attn_implementation == {"sdpa": "tree_sdpa"}.get(name, name)
    assert len(logs[0]) == 3 + 2
    watched = {"loss", "grad_norm", "num_tokens", "mean_token_accuracy", "eval_loss", "eval_vizwiz_accuracy"}
    for theirs, ours in zip(*logs, strict=True):
        assert theirs.keys() == ours.keys()
        for name in watched & theirs.keys():
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, err_msg=name)


def test_flex_attention_leaves_the_tower_to_sdpa(build: Callable[..., VqaTrainer]) -> None:
    trainer = build("flex_attention")
    assert trainer.model.config.vision_config._attn_implementation == "sdpa"


def test_flex_attention_refuses_attention_dropout(tiny_llava: Path, tmp_path: Path) -> None:
    model, processor = load_model(str(tiny_llava), attn_implementation="flex_attention")
    model.config.text_config.attention_dropout = 0.1
    with pytest.raises(ConfigError, match=r"no dropout, and the model's attention_dropout is 0\.1; set that to 0"):
        VqaTrainer(
            model,
            VqaConfig(output_dir=str(tmp_path), use_cpu=True),
            train_dataset=dataset(ROWS),
            processing_class=processor,
        )


@BACKENDS
def test_the_model_is_not_compiled_around_their_kernels(
    build: Callable[..., VqaTrainer], attention: str, options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=f"--torch_compile: leave it off with --attn_implementation {attention}"):
        build(attention, torch_compile=True, **options)


@pytest.mark.parametrize("options", [{"max_questions_per_row": 2}, {"answer_target": "votes"}], ids=str)
def test_flash_attention_refuses_branches(build: Callable[..., VqaTrainer], options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"flash_reference takes no mask to keep branches apart.*or use sdpa"):
        build(FLASH, **(PATHS | options))
