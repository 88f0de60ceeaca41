"""Image-once training gives the loss and the gradients of separate sequences, and TRL's own results where both can."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from examples import chain, colour, dataset, question, record, records
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional
from transformers import LlavaForConditionalGeneration, LlavaProcessor
from trl import ModelConfig, SFTConfig, SFTTrainer

from hf_llava_vqa import prompts
from hf_llava_vqa.answers import weighted_answers
from hf_llava_vqa.collate import VqaCollator, pixel_values
from hf_llava_vqa.models import load_model
from hf_llava_vqa.models.adapters import lora_config
from hf_llava_vqa.training import VqaConfig, VqaTrainer

Llava = LlavaForConditionalGeneration
Load = Callable[[], tuple[Llava, LlavaProcessor]]
WIDTH = 4  # tokens of one image in the tiny model
COMMON = {
    "per_device_train_batch_size": 2,
    "learning_rate": 1e-2,
    "adam_epsilon": 1e-4,  # else a gradient that is all rounding makes a step as large as any other
    "max_steps": 4,
    "logging_steps": 1,
    "max_length": None,
    "gradient_checkpointing": False,
    "use_cpu": True,
    "bf16": False,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
}


@pytest.fixture(scope="module")
def load(tiny_llava: Path) -> Load:
    """A fresh tiny model, float32, its tower frozen as in training."""

    def fresh() -> tuple[Llava, LlavaProcessor]:
        model, processor = load_model(str(tiny_llava))
        model.model.vision_tower.requires_grad_(False)
        return model, processor

    return fresh


# One batch: the loss and every gradient

Sequence = tuple[list[int], list[bool], float, dict[str, Any]]  # ids with images widened, flags, weight, record


def sequences(rows: list[dict[str, Any]], processor: LlavaProcessor) -> Iterator[Sequence]:
    """Every path of every record by itself, answers weighted by their votes."""
    for row in rows:
        for dialogue in row["dialogues"]:
            turns = prompts.question_turns(dialogue["turns"], images=len(row["images"]))
            endings: list[tuple[list[prompts.Turn], float]] = [([], 1.0)]
            if turns[-1]["role"] == "user":
                weighted = weighted_answers([answer["answer"] for answer in dialogue["answers"]], "votes")
                endings = [([{"role": "assistant", "content": text}], weight) for text, weight in weighted]
            for ending, weight in endings:
                ids, flags = prompts.encode([*turns, *ending], processor.tokenizer)
                copies = [WIDTH if token == processor.image_token_id else 1 for token in ids]
                yield np.repeat(ids, copies).tolist(), np.repeat(flags, copies).tolist(), weight, row


def asked_sequences(rows: list[dict[str, Any]], processor: LlavaProcessor) -> Iterator[Sequence]:
    """As `sequences`, of records with a picture whose questions are all the model's own."""
    for row in rows:
        for dialogue in row["dialogues"]:
            own = [{**turn, "role": "vuser"} if n and not n % 2 else turn for n, turn in enumerate(dialogue["turns"])]
            answers = [answer["answer"] for answer in dialogue["answers"]]
            told = [
                ({"role": "assistant", "content": text}, weight) for text, weight in weighted_answers(answers, "votes")
            ]
            paths = [([*own, answer], weight) for answer, weight in told]
            if len(own) == 1:
                paths.append(([{"role": "user", "content": ""}, {**own[0], "role": "vuser"}], 1.0))
            for turns, weight in paths:
                prepared = prompts.question_turns(turns, images=1)
                ids, flags = prompts.encode(prepared, processor.tokenizer, "v1_sq")
                copies = [WIDTH if token == processor.image_token_id else 1 for token in ids]
                yield np.repeat(ids, copies).tolist(), np.repeat(flags, copies).tolist(), weight, row


def separate_loss(
    model: Llava, processor: LlavaProcessor, rows: list[dict[str, Any]], separate: Callable[..., Any] = sequences
) -> torch.Tensor:
    """The loss the usual way: a sequence for each path, padded on the right, 2-D mask, each with its own pictures."""
    paths = list(separate(rows, processor))
    length = max(len(ids) for ids, *_ in paths)
    input_ids = torch.full((len(paths), length), processor.tokenizer.pad_token_id)
    attention_mask, weights = torch.zeros_like(input_ids), torch.zeros(input_ids.shape)
    for number, (ids, flags, weight, _) in enumerate(paths):
        input_ids[number, : len(ids)] = torch.tensor(ids)
        attention_mask[number, : len(ids)] = 1
        weights[number, : len(ids)] = (torch.tensor(flags) > 0) * weight
    pixels = torch.cat([pixel_values(row, processor) for *_, row in paths])
    inputs = {"pixel_values": pixels} if len(pixels) else {}
    logits = model(input_ids=input_ids, attention_mask=attention_mask, **inputs).logits[:, :-1]
    nll = functional.cross_entropy(logits.transpose(1, 2), input_ids[:, 1:], reduction="none")
    return (weights[:, 1:] * nll).sum() / weights.sum()


def tree_loss(model: Llava, processor: LlavaProcessor, rows: list[dict[str, Any]], **options: Any) -> torch.Tensor:
    """The loss of a collated batch through the stock model."""
    batch = VqaCollator(processor, answer_target="votes", **options)(rows)
    weights, labels = batch.pop("weights")[:, 1:], batch.pop("labels")[:, 1:]
    logits = model(**batch).logits[:, :-1]
    return (weights * functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")).sum() / weights.sum()


def assert_equal_gradients(model: Llava, ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Losses, and the gradients of every trained tensor, to 1e-5 of the tensor's largest entry."""
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    pairs = (torch.autograd.grad(loss, list(named.values()), materialize_grads=True) for loss in (ours, theirs))
    for name, our, their in zip(named, *pairs, strict=True):
        assert (our - their).abs().max() <= 1e-5 * their.abs().max(), name


@pytest.fixture(scope="module")
def full(load: Load) -> tuple[Llava, LlavaProcessor]:
    """Everything but the tower is trained."""
    return load()


@settings(max_examples=20, derandomize=True)
@given(rows=records(max_records=2), most=st.sampled_from([3, 16]))
def test_full_training_equals_separate_sequences(
    full: tuple[Llava, LlavaProcessor], rows: list[dict[str, Any]], most: int
) -> None:
    ours = tree_loss(*full, rows, max_questions_per_row=most)
    assert_equal_gradients(full[0], ours, separate_loss(*full, rows))


def test_self_questions_equal_separate_sequences(full: tuple[Llava, LlavaProcessor]) -> None:
    rows = [
        record("a", [question("a.0", "Why?", ["yes", "no", "no"]), question("a.1")], colours=[colour(1)]),
        record("b", [chain("b.0", "Hello?", "Hi.", "Why?", answers=["so", "so", "no"])], colours=[colour(2)]),
    ]
    ours = tree_loss(*full, rows, template="v1_sq", self_question_ratio=1.0)
    assert_equal_gradients(full[0], ours, separate_loss(*full, rows, asked_sequences))


@pytest.fixture(scope="module", params=[False, True], ids=["lora", "dora"])
def adapted(load: Load, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> VqaTrainer:
    """A trainer whose adapters are past their first step, where half of their gradients are zero."""
    trainer = build(VqaTrainer, load(), ROWS, tmp_path_factory.mktemp("run"), peft={"use_dora": request.param})
    generator = torch.Generator().manual_seed(0)
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1, generator=generator)
    trainer.model.eval()
    return trainer


@settings(max_examples=8, derandomize=True)
@given(rows=records(max_records=2, max_questions=6))
def test_the_trainers_loss_equals_separate_sequences(adapted: VqaTrainer, rows: list[dict[str, Any]]) -> None:
    processor = adapted.processing_class
    ours = adapted.compute_loss(adapted.model, VqaCollator(processor, mask="compact", answer_target="votes")(rows))
    assert_equal_gradients(adapted.model, ours, separate_loss(adapted.model, processor, rows))


# Several steps: the same trainings as TRL's own

ROWS = [
    record(
        str(number),
        [question(f"{number}.{k}", f"Question {k}?", ["yes", "no", "no"]) for k in range(1 + number % 3)]
        + [chain(f"{number}.c", "Hello?", "Hi there.", "Why?", "so")] * (number % 2),
        colours=[colour(number + 1)] * (number % 3 > 0),
    )
    for number in range(10)
]
TRL_ROWS = [
    {
        "images": [Image.new("RGB", (28, 28), colour(number + 1))],
        "prompt": [{"role": "user", "content": f"Question {number}?"}],
        "completion": [{"role": "assistant", "content": ("yes", "no", "a red can")[number % 3]}],
    }
    for number in range(8)
]


def build(
    trainer: type[SFTTrainer],
    loaded: tuple[Llava, LlavaProcessor],
    rows: list[dict[str, Any]],
    folder: Path,
    *,
    peft: dict[str, Any] | None = None,
    collator: VqaCollator | None = None,
    **options: Any,
) -> SFTTrainer:
    """A trainer with LoRA and the projector, the same for the same arguments."""
    model, processor = loaded
    config, target = (VqaConfig, {"answer_target": "votes"}) if trainer is VqaTrainer else (SFTConfig, {})
    torch.manual_seed(0)
    return trainer(
        model,
        config(output_dir=str(folder), **{**COMMON, **target, **options}),
        train_dataset=dataset(rows) if "dialogues" in rows[0] else Dataset.from_list(rows),
        processing_class=processor,
        peft_config=lora_config(ModelConfig(use_peft=True, lora_r=4, lora_dropout=0.0, **(peft or {}))),
        data_collator=collator,
    )


def assert_same_training(ours: SFTTrainer, theirs: SFTTrainer) -> None:
    """Both train; the losses and gradient norms of every step and the trained tensors agree."""
    start = {name: p.detach().clone() for name, p in ours.model.named_parameters() if p.requires_grad}
    for trainer in (ours, theirs):
        trainer.train()
    our_log, their_log = (
        [(entry["loss"], entry["grad_norm"]) for entry in trainer.state.log_history if "loss" in entry]
        for trainer in (ours, theirs)
    )
    assert len(our_log) == COMMON["max_steps"]
    np.testing.assert_allclose(our_log, their_log, rtol=1e-5)
    their_parameters = dict(theirs.model.named_parameters())
    assert start.keys() == {name for name, p in their_parameters.items() if p.requires_grad}
    for name, parameter in ours.model.named_parameters():
        if name in start:
            torch.testing.assert_close(parameter, their_parameters[name], rtol=1e-4, atol=1e-6)
            assert not parameter.equal(start[name]), name


@pytest.mark.parametrize("accumulation", [1, 2])
def test_plain_sft_trainer_with_our_collator(load: Load, tmp_path: Path, accumulation: int) -> None:
    steps = {"gradient_accumulation_steps": accumulation}
    ours = build(VqaTrainer, load(), ROWS, tmp_path, answer_target="majority", **steps)
    model, processor = load()
    collator = VqaCollator(processor, answer_target="majority")
    plain = build(
        SFTTrainer, (model, processor), ROWS, tmp_path, collator=collator, remove_unused_columns=False, **steps
    )
    assert_same_training(ours, plain)


def test_stock_trl_on_trl_rows(load: Load, tmp_path: Path) -> None:
    stock = build(SFTTrainer, load(), TRL_ROWS, tmp_path)
    assert_same_training(build(VqaTrainer, load(), TRL_ROWS, tmp_path), stock)


def test_accumulated_rows_weigh_as_in_one_batch(load: Load, tmp_path: Path) -> None:
    """Weights are summed over the micro-batches of a step, so cutting a batch in two changes nothing."""
    halves = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
    assert_same_training(build(VqaTrainer, load(), ROWS, tmp_path), build(VqaTrainer, load(), ROWS, tmp_path, **halves))


@pytest.mark.parametrize("use_dora", [False, True], ids=["lora", "dora"])
def test_gradient_checkpointing_changes_nothing_and_leaves_the_tower_alone(
    load: Load, tmp_path: Path, use_dora: bool
) -> None:
    ours, checkpointed = (
        build(VqaTrainer, load(), ROWS, tmp_path, peft={"use_dora": use_dora}, gradient_checkpointing=on)
        for on in (False, True)
    )
    features: list[torch.Tensor] = []
    tower = checkpointed.model.get_base_model().model.vision_tower
    tower.register_forward_hook(
        lambda _module, _args, output: features.extend(filter(torch.is_tensor, output.hidden_states))
    )
    assert_same_training(ours, checkpointed)
    assert features
    assert not any(feature.requires_grad for feature in features)


def test_a_text_only_step_trains_the_rest_and_leaves_the_projector(load: Load, tmp_path: Path) -> None:
    rows = [record("t", [question("q", answers=["yes", "no"])]), record("u", [chain("c", "Hello?", "Hi.")])]
    trainer = build(VqaTrainer, load(), rows, tmp_path, max_steps=1)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert np.isfinite(trainer.train().training_loss)
    changed = {name for name, p in trainer.model.named_parameters() if p.requires_grad and not p.equal(before[name])}
    assert changed == {name for name in before if "lora_B" in name}


def test_a_step_of_text_is_the_same_with_and_without_the_padding_picture(load: Load, tmp_path: Path) -> None:
    """As ranks have it, and as a process by itself: also the projector's momentum goes on alike."""
    rows = [record("p", [question("p.0")], colours=[colour(7)]), record("t", [question("t.0", "Why?")])]
    options = {"per_device_train_batch_size": 1, "train_sampling_strategy": "sequential"}
    alone, as_a_rank = (build(VqaTrainer, load(), rows, tmp_path, **options) for _ in range(2))
    assert not alone.data_collator.collate.picture_in_every_batch
    as_a_rank.data_collator.collate.picture_in_every_batch = True
    assert_same_training(alone, as_a_rank)


def test_the_language_model_attends_to_the_first_chain_causally(load: Load, tmp_path: Path) -> None:
    trainer = build(VqaTrainer, load(), ROWS, tmp_path)
    seen: list[tuple[int, int]] = []
    layer = trainer.model.get_base_model().model.language_model.layers[0].self_attn
    layer.register_forward_pre_hook(
        lambda _module, _args, inputs: seen.append((inputs["chain"], inputs["attention_mask"].shape[2])),
        with_kwargs=True,
    )
    batch = trainer.data_collator([ROWS[2]])
    trainer.compute_loss(trainer.model, batch)
    assert seen == [(batch["chain"], batch["input_ids"].shape[1] - batch["chain"])]
    assert 0 < batch["chain"] < batch["input_ids"].shape[1]
