"""Records whose picture cannot be opened: stopped at, left out or replaced as a whole, and always named."""

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from examples import SIDE, chain, colour, png, question, record
from transformers import LlavaProcessor

from hf_llava_vqa.bad_images import BadImage, BadImagePolicy, open_pictures
from hf_llava_vqa.collate import VqaCollator
from hf_llava_vqa.errors import ConfigError, ImageError
from hf_llava_vqa.models import load_model

BROKEN = png(colour(1))[:-30]


@pytest.fixture(scope="module")
def processor(tiny_llava: Path) -> LlavaProcessor:
    return load_model(str(tiny_llava))[1]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run" / "bad_images.jsonl"


@pytest.fixture
def collator(processor: LlavaProcessor, file: Path) -> Callable[..., VqaCollator]:
    def make(action: str, **options: Any) -> VqaCollator:
        return VqaCollator(processor, mask="compact", on_bad_image=action, bad_images_file=file, **options)

    return make


def good(name: str, number: int, split: str = "train") -> dict[str, Any]:
    return {
        **record(name, [question(f"{name}.0"), question(f"{name}.1", "Why?")], colours=[colour(number)]),
        "split": split,
    }


def bad(name: str, path: str | None = "photos/a.png") -> dict[str, Any]:
    row = record(name, [question(f"{name}.0", "Is there a dog?")], colours=[])
    return {**row, "images": [{"bytes": BROKEN, "path": path}], "split": "train"}


def cases(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def names(batch: dict[str, Any]) -> list[list[str]]:
    return batch["dialogue_ids"]


# Error


def test_by_default_a_bad_picture_is_an_error(collator: Callable[..., VqaCollator], file: Path) -> None:
    with pytest.raises(ImageError, match=r"^b: photos/a.png: cannot be decoded"):
        collator("error")([good("a", 1), bad("b")])
    assert not file.exists()


def test_choices_are_checked(processor: LlavaProcessor) -> None:
    with pytest.raises(ConfigError, match="unknown on_bad_image 'ignore'; use one of: error, skip, replace"):
        VqaCollator(processor, on_bad_image="ignore")
    with pytest.raises(ConfigError, match="on_bad_image 'skip' needs bad_images_file"):
        VqaCollator(processor, on_bad_image="skip")


# Skip


def test_a_skipped_record_is_named(collator: Callable[..., VqaCollator], file: Path) -> None:
    batch = collator("skip")([good("a", 1), bad("b"), good("c", 2)])
    assert names(batch) == [["a.0", "a.1"], ["c.0", "c.1"]]
    assert torch.equal(batch["pixel_values"], collator("error")([good("a", 1), good("c", 2)])["pixel_values"])
    (case,) = cases(file)
    assert case.pop("reason").startswith("photos/a.png: cannot be decoded: ")
    assert case == {"image_id": "b", "path": "photos/a.png", "action": "skip", "replaced_by": None}


def test_a_batch_of_bad_pictures_becomes_the_padding_tree(collator: Callable[..., VqaCollator], file: Path) -> None:
    batch = collator("skip")([bad("b"), bad("c", path=None)])
    assert names(batch) == [[]]
    assert (batch["labels"] == -100).all()
    assert not batch["weights"].any()
    assert batch["pixel_values"].shape == (1, 3, SIDE, SIDE)
    assert [(case["image_id"], case["path"]) for case in cases(file)] == [("b", "photos/a.png"), ("c", "")]


# Replace


def test_the_whole_record_is_replaced(collator: Callable[..., VqaCollator], file: Path) -> None:
    batch = collator("replace")([bad("b"), good("a", 1)])
    assert names(batch) == [["a.0", "a.1"], ["a.0", "a.1"]]
    first, second = batch["pixel_values"]
    assert torch.equal(first, second)
    assert [(case["image_id"], case["action"], case["replaced_by"]) for case in cases(file)] == [("b", "replace", "a")]


def test_the_choice_depends_on_seed_and_batch_only(collator: Callable[..., VqaCollator], file: Path) -> None:
    others = [good(str(number), number) for number in range(8)]

    def chosen(seed: int, rows: list[dict[str, Any]]) -> str:
        file.unlink(missing_ok=True)
        collator("replace", seed=seed)(rows)
        return cases(file)[0]["replaced_by"]

    assert chosen(0, [bad("b"), *others]) == chosen(0, [*reversed(others), bad("b")])
    assert len({chosen(seed, [bad("b"), *others]) for seed in range(30)}) > 4
    assert len({chosen(0, [bad(f"b{number}"), *others]) for number in range(30)}) > 4


def test_only_a_picture_of_the_same_split_stands_in(collator: Callable[..., VqaCollator], file: Path) -> None:
    text_only = {**record("t", [chain("t.0", "Hello?", "Hi.")]), "split": "train"}
    rows = [bad("b"), good("v", 1, split="val"), text_only]
    with pytest.raises(
        ImageError, match=r"^b: photos/a.png: .*; no other record of the batch can replace it: use larger"
    ):
        collator("replace")(rows)
    assert names(collator("replace")([*rows, good("a", 2)]))[0] == ["a.0", "a.1"]


# The file, and who asks


def append(arguments: tuple[str, int]) -> None:
    file, worker = arguments
    policy = BadImagePolicy("skip", file=file)
    for number in range(50):
        policy.leave_out(BadImage(f"{worker}/{number}", "p" * 200, "r" * 200))


def test_processes_share_the_file(tmp_path: Path) -> None:
    file = tmp_path / "bad_images.jsonl"
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.map(append, [(str(file), worker) for worker in range(4)], chunksize=1)
    assert {case["image_id"] for case in cases(file)} == {f"{worker}/{n}" for worker in range(4) for n in range(50)}


def test_pictures_open_in_order_or_the_first_bad_one_is_told() -> None:
    row = record("r", [question("q")], colours=[colour(1), colour(2)])
    opened = open_pictures(row)
    assert isinstance(opened, list)
    assert [image.getpixel((0, 0)) for image in opened] == [colour(1), colour(2)]
    missing = {"bytes": None, "path": "gone.png"}
    told = open_pictures({**row, "images": [*row["images"], missing, {"bytes": b"", "path": "empty.png"}]})
    assert told == BadImage("r", "gone.png", "gone.png: no such image file")
    assert open_pictures({**row, "images": ["gone.png"]}) == told


def test_evaluation_takes_pictures_as_they_are_and_all_of_them(collator: Callable[..., VqaCollator]) -> None:
    training = collator("skip", augmentation="randaugment")
    evaluating = training.for_evaluation()
    rows = [good("a", 1), good("b", 100)]
    assert torch.equal(evaluating(rows)["pixel_values"], collator("error")(rows)["pixel_values"])
    with pytest.raises(ImageError, match=r"^b: "):
        evaluating([bad("b")])
    assert training.augmentation == "randaugment"
    assert training.bad_images.action == "skip"
