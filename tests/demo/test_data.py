"""The demo's data: VizWiz's format, disjoint splits, the same bytes for a seed, and little to gain without looking."""

import hashlib
import json
from pathlib import Path

import pytest
from PIL import Image

from hf_llava_vqa.data import get_benchmark, load_records
from hf_llava_vqa.demo import data
from hf_llava_vqa.demo.data import DemoData, write_vizwiz_demo
from hf_llava_vqa.demo.pictures import BASE_IMAGES
from hf_llava_vqa.errors import ConfigError, RecordError
from hf_llava_vqa.generation import questions
from hf_llava_vqa.reports.evaluation import benchmark_scores, question_only_predictions

SIZES = DemoData(train_images=300, held_out_images=150)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo")
    write_vizwiz_demo(path, SIZES, seed=0)
    return path


def test_records_are_vizwiz(folder: Path):
    for split, images in (("train", 300), ("val", 150)):
        records = load_records("vizwiz", split=split, root=folder)
        assert len(records) == images
        assert records[0]["image_id"] == f"VizWiz_{split}_00000000.jpg"
        assert all(len(record["dialogues"]) == 4 for record in records)
        assert all(len(dialogue["answers"]) == 10 for _, dialogue in questions(records))


def test_types_and_shares(folder: Path):
    rows = json.loads((folder / "train.json").read_text())
    assert {row["answer_type"] for row in rows} == {"yes/no", "other", "unanswerable"}
    assert all((row["answer_type"] == "unanswerable") == (row["answerable"] == 0) for row in rows)
    blurred = sum(row["answerable"] == 0 for row in rows) / len(rows)
    assert blurred == pytest.approx(SIZES.blurred_share, abs=0.05)


def test_pictures_are_jpegs_with_full_colour(folder: Path):
    for path in sorted((folder / "val").iterdir())[:20]:
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 64))
            assert {layer[1:3] for layer in image.layer} == {(1, 1)}  # no chroma subsampling


def test_splits_share_no_picture(folder: Path):
    train, held_out = (_hashes(folder / split) for split in ("train", "val"))
    assert len(train) == 300
    assert len(held_out) == 150
    assert not train & held_out


def test_the_same_picture_in_both_splits_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train_scenes):
    unseen = [scene for scene in train_scenes if scene.image_id not in BASE_IMAGES]
    monkeypatch.setattr(data, "read_scenes", lambda split: unseen[:5])
    with pytest.raises(RecordError, match="5 pictures are in both splits"):
        write_vizwiz_demo(tmp_path, DemoData(5, 5, blurred_share=0), seed=0)


def test_training_pictures_are_none_of_the_bases(folder: Path, train_scenes, monkeypatch: pytest.MonkeyPatch):
    drawn = []
    monkeypatch.setattr(data, "_write_split", lambda folder, split, scenes, *rest: drawn.append(scenes) or ([], set()))
    write_vizwiz_demo(folder, SIZES, seed=0)
    assert not {scene.image_id for scene in drawn[0]} & set(BASE_IMAGES)


def test_seed_decides_every_byte(tmp_path: Path):
    small = DemoData(train_images=8, held_out_images=4)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_vizwiz_demo(tmp_path / name, small, seed=seed)
    a, b, c = (_files(tmp_path / name) for name in "abc")
    assert a == b
    assert a["train.json"] != c["train.json"]


def test_too_many_pictures_is_one_line(tmp_path: Path):
    with pytest.raises(ConfigError, match="5000 train images asked for, there are"):
        write_vizwiz_demo(tmp_path, DemoData(train_images=5000), seed=0)


def test_questions_alone_score_little(folder: Path):
    train, held_out = (load_records("vizwiz", split=split, root=folder) for split in ("train", "val"))
    guessed = list(question_only_predictions(train, held_out))
    scores = benchmark_scores(get_benchmark("vizwiz"), list(questions(held_out)), guessed)
    assert scores["score"] <= 0.6
    assert scores["ceiling"] > 0.98


def _hashes(folder: Path) -> set[str]:
    return {hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
