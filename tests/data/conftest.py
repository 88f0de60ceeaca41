"""VizWiz as it is published, made up on the fly: a folder with annotation files and photos."""

import json

import datasets
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def answers(*texts):
    return [{"answer": text, "answer_confidence": "yes"} for text in texts]


def write_photo(path, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (colour, 50, 60)).save(path)


def vizwiz_rows(split, count):
    rows = []
    for number in range(count):
        row = {"image": f"VizWiz_{split}_{number:08d}.jpg", "question": f"What is number {number}?"}
        if split != "test":
            row |= {"answers": answers(*["cup"] * 9, "mug"), "answer_type": "other", "answerable": 1}
        rows.append(row)
    return rows


@pytest.fixture
def vizwiz_root(tmp_path):
    root = tmp_path / "vizwiz"
    root.mkdir()
    for split, count in (("train", 5), ("val", 3), ("test", 2)):
        rows = vizwiz_rows(split, count)
        (root / f"{split}.json").write_text(json.dumps(rows))
        for number, row in enumerate(rows):
            write_photo(root / split / row["image"], number)
    return root


@pytest.fixture
def competition_root(tmp_path):
    root = tmp_path / "competition"
    root.mkdir()
    for split, count in (("train", 4), ("valid", 3)):
        labels = [str(number) for number in range(count)]
        columns = {
            "image": {label: f"{split}_{int(label):05d}.jpg" for label in labels},
            "question": {label: f"What is number {label}?" for label in labels},
        }
        if split == "train":
            columns["answers"] = {label: answers(*["cup"] * 10) for label in labels}
        (root / f"{split}.json").write_text(json.dumps(columns))
        for number, image in enumerate(columns["image"].values()):
            write_photo(root / split / image, number)
    return root
