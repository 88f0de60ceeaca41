import sys

import pytest
from reader_checks import evaluate

from hf_llava_vqa.data import load_records
from hf_llava_vqa.data.benchmarks.easy_vqa import read
from hf_llava_vqa.errors import ConfigError, RecordError
from hf_llava_vqa.images import open_image
from hf_llava_vqa.records import validate_record

easy_vqa = pytest.importorskip("easy_vqa")


@pytest.mark.parametrize(("split", "images", "questions"), [("train", 4000, 38575), ("test", 1000, 9673)])
def test_every_question_of_the_package_arrives_under_its_image(split, images, questions):
    records = list(read(split))
    assert len(records) == images
    arrived = [
        (dialogue["turns"][0]["content"], dialogue["answers"][0]["answer"], int(record["image_id"].split("_")[1]))
        for record in records
        for dialogue in record["dialogues"]
    ]
    expected = zip(*getattr(easy_vqa, f"get_{split}_questions")(), strict=True)
    assert len(arrived) == questions
    assert sorted(arrived) == sorted(expected)


def test_a_record():
    record = next(read("train"))
    validate_record(record)
    assert record["image_id"] == "train_00000"
    assert open_image(record["images"][0]).size == (64, 64)
    first, _, yes_no = record["dialogues"][:3]
    assert first["id"] == "train_00000#0"
    assert first["answers"] == [{"answer": "rectangle", "answer_confidence": ""}]
    assert (first["answer_type"], yes_no["answer_type"], first["answerable"]) == ("other", "yes/no", 1)


def test_splits_share_no_id():
    ids = [{d["id"] for r in read(split) for d in r["dialogues"]} for split in ("train", "test")]
    assert not ids[0] & ids[1]


def test_the_package_may_be_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "easy_vqa", None)
    with pytest.raises(ConfigError, match=r'needs the package easy-vqa: pip install "hf-llava-vqa\[demo\]"'):
        load_records("easy_vqa", split="train")


def test_an_image_may_be_missing(monkeypatch):
    paths = easy_vqa.get_test_image_paths()
    del paths[3]
    monkeypatch.setattr(easy_vqa, "get_test_image_paths", lambda: paths)
    with pytest.raises(RecordError, match="easy_vqa test: image 3 is missing; reinstall the package"):
        list(read("test"))


def test_from_the_package_to_the_score(tmp_path):
    records = load_records("easy_vqa", split="test").select(range(20))
    right = {d["id"]: d["answers"][0]["answer"] for record in records for d in record["dialogues"]}
    kinds = [d["answer_type"] for record in records for d in record["dialogues"]]
    entry = evaluate("easy_vqa", records, right, tmp_path)
    assert (entry["score"], entry["n"], entry["by"]) == (1, len(right), dict.fromkeys(sorted(set(kinds)), 1))
    colours_only = {id: answer if answer not in ("yes", "no") else "maybe" for id, answer in right.items()}
    entry = evaluate("easy_vqa", records, colours_only, tmp_path)
    assert (entry["score"], entry["by"]["yes/no"]) == (pytest.approx(1 - kinds.count("yes/no") / len(kinds)), 0)
