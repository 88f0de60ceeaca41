"""A tiny LLaVA that LLaVA's own code ran, converted: its loss, logits, gradients and answers, through our batches."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from examples import chain, colour, record
from originals import GOLDEN, TOWER, original_model
from torch.nn import functional
from transformers import (
    AutoTokenizer,
    BatchFeature,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from hf_llava_vqa.collate import VqaCollator
from hf_llava_vqa.generation import answer_questions
from hf_llava_vqa.generation.choosing import Sampling
from hf_llava_vqa.generation.decoding import decode
from hf_llava_vqa.generation.questions import prompt_trees
from hf_llava_vqa.generation.reference import generate
from hf_llava_vqa.models import load_model
from hf_llava_vqa.models.conversion import to_ours
from hf_llava_vqa.prompts import V1

VOCABULARY, IMAGE = 2000, 2000  # ours adds `<image>`, `<pad>` and rows to spare behind the original vocabulary
# LLaVA cuts sequences at model_max_length and trains on what is left; we train on all of it, or refuse (max_length).
TRUNCATED = {"tiny-batch-10"}


def rows(name: str) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in map(json.loads, (GOLDEN / f"{name}.jsonl").read_text().splitlines())}


BATCHES, GENERATIONS = rows("tiny_batches"), rows("tiny_generations")


def new_name(name: str) -> str:
    """Where a parameter of LLaVA's own layout lives in transformers'."""
    for old, new in (
        ("model.vision_tower.vision_tower.vision_model.", "model.vision_tower."),
        ("model.mm_projector.0.", "model.multi_modal_projector.linear_1."),
        ("model.mm_projector.2.", "model.multi_modal_projector.linear_2."),
        ("model.", "model.language_model."),
    ):
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LlavaForConditionalGeneration:
    """The original checkpoint converted and loaded; rows of the vocabulary that were added give zero logits."""
    folder = tmp_path_factory.mktemp("converted")
    to_ours(original_model(folder / "original"), folder / "ours", vision_tower=str(TOWER))
    model, _ = load_model(str(folder / "ours"))
    model.lm_head.weight.data[VOCABULARY:] = 0
    return model


class RecordedPixels(LlavaImageProcessorPil):
    """Turns the picture of `colour(k)` into the k-th pixels the original code saw."""

    def __init__(self, pixels: np.ndarray) -> None:
        super().__init__(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
        self.recorded = pixels

    def __call__(self, images: list[Any], **_: Any) -> BatchFeature:
        colours = [colour(number) for number in range(len(self.recorded))]
        numbers = [colours.index(image.getpixel((0, 0))) for image in images]
        return BatchFeature({"pixel_values": torch.from_numpy(self.recorded[numbers])})


def processor(pixels: np.ndarray) -> LlavaProcessor:
    tokenizer = AutoTokenizer.from_pretrained(GOLDEN / "tokenizer" / "fast_legacy_false")
    return LlavaProcessor(
        RecordedPixels(pixels),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


def collated(batch: dict[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, np.ndarray]]:
    """A golden batch through our collator, rows that LLaVA masked left unlabelled; and what LLaVA made of it."""
    golden = dict(np.load(GOLDEN / "tiny_model" / batch["npz"]))
    records = []
    for number, sample in enumerate(batch["samples"]):
        contents = [turn["value"].removeprefix("<image>\n") for turn in sample["conversations"]]
        records.append(record(str(number), [chain("c", *contents)], colours=[colour(number)] * sample["image"]))
    ours = VqaCollator(processor(golden["pixel_values"]))(records)
    for number, masked in enumerate(batch["guard"]):
        if masked:
            ours["labels"][number] = -100
            ours["weights"][number] = 0
    return ours, golden


def logits_of(model: LlavaForConditionalGeneration, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    names = ("input_ids", "position_ids", "attention_mask", "pixel_values")
    return model(**{name: batch[name] for name in names}).logits


def weighted_loss(logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    labels, weights = batch["labels"][:, 1:], batch["weights"][:, 1:]
    nll = functional.cross_entropy(logits[:, :-1].transpose(1, 2), labels, reduction="none")
    return (weights * nll).sum() / weights.sum()


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(BATCHES))
def test_logits_and_log_probabilities(model: LlavaForConditionalGeneration, name: str) -> None:
    ours, golden = collated(BATCHES[name])
    row, position = torch.from_numpy(golden["sup_index"]).long().T
    logits = logits_of(model, ours)[row, position, :VOCABULARY]
    target = torch.from_numpy(golden["sup_target"]).long()
    log_probs = logits.log_softmax(-1).gather(-1, target[:, None])[:, 0]
    np.testing.assert_allclose(log_probs, golden["sup_logprob"], rtol=0, atol=2e-5)
    np.testing.assert_allclose(logits[golden["logits_keep"]], golden["logits"], rtol=0, atol=2e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(BATCHES.keys() - TRUNCATED))
def test_supervised_tokens_and_loss(model: LlavaForConditionalGeneration, name: str) -> None:
    ours, golden = collated(BATCHES[name])
    predicted = (ours["labels"][:, 1:] != -100).nonzero()
    assert predicted.tolist() == golden["sup_index"].tolist()
    assert ours["labels"][:, 1:][predicted.T.unbind()].tolist() == golden["sup_target"].tolist()
    logits = logits_of(model, ours)
    two_more = logits[..., : VOCABULARY + 2]
    assert weighted_loss(two_more, ours).item() == pytest.approx(float(golden["loss_two_extra_zero_logits"]), abs=1e-5)
    assert weighted_loss(logits[..., :VOCABULARY], ours).item() == pytest.approx(float(golden["loss"]), abs=1e-5)


@pytest.mark.parametrize("name", sorted(TRUNCATED))
def test_long_rows_are_trained_whole(name: str) -> None:
    ours, golden = collated(BATCHES[name])
    predicted = {tuple(place) for place in (ours["labels"][:, 1:] != -100).nonzero().tolist()}
    kept = {tuple(place) for place in golden["sup_index"].tolist()}
    limit = BATCHES[name]["model_max_length"]
    assert kept < predicted
    assert all(position + 1 >= limit for _, position in predicted - kept)
    for labels in ours["labels"]:
        assert labels[labels != -100][-1] == 2  # the closing </s>, which LLaVA cuts off


def test_gradients(model: LlavaForConditionalGeneration) -> None:
    (batch,) = (batch for batch in BATCHES.values() if batch["has_grads"])
    ours, golden = collated(batch)
    weighted_loss(logits_of(model, ours)[..., :VOCABULARY], ours).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    for name in (name for name in golden if name.startswith("grad.")):
        theirs = torch.from_numpy(golden[name])
        difference = gradients[new_name(name.removeprefix("grad."))] - theirs
        assert difference.norm() <= 1e-5 * theirs.norm(), name
    norms = [gradients[new_name(name)].norm().item() for name in golden["grad_names"]]
    np.testing.assert_allclose(norms, golden["grad_norms"], rtol=1e-5)


@pytest.mark.parametrize("engine", ["forest", "generate"])
@pytest.mark.parametrize("name", sorted(GENERATIONS))
def test_greedy_answers(model: LlavaForConditionalGeneration, name: str, engine: str) -> None:
    row = GENERATIONS[name]
    asked = record("r", [chain("q", *contents_of(row["prompt"]))], colours=map(colour, range(row["n_images"])))
    read = processor(np.load(GOLDEN / "tiny_model" / row["npz"])["pixel_values"])
    length = len(row["new_ids"])
    (tree,) = prompt_trees(read, [asked], template="v1", instruction=None, max_branches=1)
    assert tree.row.input_ids.tolist() == [
        token for id_ in row["input_ids"] for token in ([IMAGE] * 16 if id_ == -200 else [id_])
    ]
    if engine == "forest":
        (answer,) = decode(model, read, [tree], sampling=Sampling(), max_new_tokens=length)
    else:
        (answer,) = generate(model, read, [tree], max_new_tokens=length)
    assert answer.token_ids == row["new_ids"]
    (prediction,) = answer_questions(model, read, [asked], engine=engine, max_new_tokens=length)
    if "\N{REPLACEMENT CHARACTER}" not in row["text"]:  # slow and fast tokenizers spell broken UTF-8 differently
        assert prediction["answer"] == row["text"].strip()


def contents_of(prompt: str) -> list[str]:
    """The turns of a rendered generation prompt, without pictures."""
    text = prompt.removeprefix(f"{V1.system} ").replace("<image>\n", "").removesuffix(" ASSISTANT:")
    return [
        content for exchange in text.split("</s>") for content in exchange.removeprefix("USER: ").split(" ASSISTANT: ")
    ]
