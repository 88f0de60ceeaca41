import json

import pytest
from examples import FUZZ, damaged
from hypothesis import given
from hypothesis import strategies as st
from reader_checks import (
    evaluate,
    mark_byte_order,
    mutated,
    questions_of,
    read_all,
    read_or_refuse,
    refusal,
    refusal_after,
    write,
    write_photos,
    zip_up,
)

from hf_llava_vqa.collate import prompt_turns
from hf_llava_vqa.data import load_records
from hf_llava_vqa.data.benchmarks.textvqa import read
from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.images import open_image

FILE = "TextVQA_0.5.1_train.json"
OCR_FILE = "TextVQA_Rosetta_OCR_v0.2_train.json"


def row(id, image_id, question, *answers):
    return {
        "question": question,
        "image_id": image_id,
        "image_classes": ["Billboard"],
        "flickr_original_url": "https://example.org/1.jpg",
        "image_width": 1024,
        "image_height": 664,
        "answers": list(answers),
        "question_tokens": question.lower().rstrip("?").split(),
        "question_id": id,
        "set_name": "train",
    }


QUESTIONS = {
    "dataset_type": "train",
    "dataset_version": "0.5.1",
    "data": [
        row(0, "0054c91397f2fe05", "what is the brand of phone?", *["nokia"] * 9, "Nokia"),
        row(1, "005635e119b9f32f", "what does it say?", *["stop"] * 9, ""),
        row(2, "0054c91397f2fe05", "what time is it?", *["10:10"] * 10),
    ],
}
OCR = {
    "data": [
        {"image_id": "0054c91397f2fe05", "ocr_tokens": ["NOKIA", "10:10"], "ocr_info": []},
        {"image_id": "005635e119b9f32f", "ocr_tokens": [], "ocr_info": []},
    ]
}


def write_set(root):
    write(root / FILE, QUESTIONS)
    write(root / OCR_FILE, OCR)
    unanswered = [{key: value for key, value in row.items() if key != "answers"} for row in QUESTIONS["data"]]
    write(root / "TextVQA_0.5.1_test.json", {"data": unanswered})
    for folder in ("train_images", "test_images"):
        write_photos(root / folder, "0054c91397f2fe05.jpg", "005635e119b9f32f.jpg")


@pytest.fixture
def root(tmp_path):
    write_set(tmp_path / "textvqa")
    return tmp_path / "textvqa"


def test_questions_of_one_photo_are_one_record(root):
    records = read_all(read, "train", root=root)
    assert questions_of(records) == [
        ("0054c91397f2fe05", [("0", "what is the brand of phone?"), ("2", "what time is it?")]),
        ("005635e119b9f32f", [("1", "what does it say?")]),
    ]
    first = records[0]["dialogues"][0]
    assert [answer["answer"] for answer in first["answers"]] == ["nokia"] * 9 + ["Nokia"]
    assert first["context"] == ""
    assert set(json.loads(first["metadata"])) == {"image_classes", "flickr_original_url", "image_width", "image_height"}


def test_the_photo_s_ocr_tokens_follow_each_question_if_asked_for(root):
    records = load_records("textvqa", split="train", root=root, ocr_tokens=root / OCR_FILE)
    first, second = (record["dialogues"][0] for record in records)
    assert first["context"] == "Reference OCR token: NOKIA, 10:10"
    assert prompt_turns(records[0], first)[0]["content"] == (
        "<image>\nwhat is the brand of phone?\nReference OCR token: NOKIA, 10:10\n"
        "Answer the question using a single word or phrase."
    )
    assert second["turns"][0]["content"] == "what does it say?\nReference OCR token: "


def test_test_questions_have_no_answers(root):
    records = read_all(read, "test", root=root)
    assert [dialogue["answers"] for record in records for dialogue in record["dialogues"]] == [[]] * 3
    assert "test_images" in records[0]["images"][0]["path"]


def test_archives_as_downloaded(root):
    expected = questions_of(read_all(read, "train", root=root))
    zip_up(root / "train_val_images.zip", root / "train_images")
    records = read_all(read, "train", root=root)
    assert questions_of(records) == expected
    assert open_image(records[0]["images"][0]).mode == "RGB"


def test_files_named_one_by_one(root):
    paths = {"annotations": root / FILE, "images": root / "train_images"}
    assert read_all(read, "train", **paths) == read_all(read, "train", root=root)
    with pytest.raises(ConfigError, match="or annotations"):
        list(read("train", images=root / "train_images"))


def test_a_byte_order_mark_is_skipped(root):
    mark_byte_order(root / FILE)
    assert len(read_all(read, "train", root=root)) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("data"), ": data must be a list, found nothing; expected {"),
        (lambda d: d["data"].clear(), ": data is an empty list"),
        (lambda d: d["data"].append(None), ", data 3: expected {"),
        (lambda d: d["data"][1].pop("question_id"), ", data 1: question_id must be a string, found nothing"),
        (lambda d: d["data"][1].update(question_id=0), ", data 1: id 0 stands in "),
        (lambda d: d["data"][1].pop("answers"), ", data 1: answers must be a list, found nothing"),
        (lambda d: d["data"][1]["answers"].pop(), ", data 1: 9 answers where ten are due"),
        (lambda d: d["data"][1].update(answers=[""] * 10), ", data 1: all answers are empty"),
        (lambda d: d["data"][1]["answers"].insert(2, 5), ", data 1: answers, entry 2: expected a string, found a num"),
        (lambda d: d["data"][1].update(image_id="/etc/x"), ", data 1: unsafe name '/etc/x.jpg'"),
        (lambda d: d["data"][1].update(image_id="00"), ", data 1: image 00.jpg is not in "),
    ],
)
def test_files_of_another_shape(root, change, message):
    assert refusal_after(change, root / FILE, read, root=root).startswith(f"{root}/{FILE}{message}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", "expected {"),
        (b'{"data": [}', "broken JSON at line 1, column 11"),
        ('{"data": "é"}'.encode("latin-1"), "not UTF-8 at byte 10"),
    ],
)
def test_files_that_are_not_what_they_are_called(root, content, message):
    write(root / FILE, content)
    assert refusal(read, "train", root=root).startswith(f"{root}/{FILE}: {message}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["data"].pop(), f"{FILE}, data 1: the OCR file has no image 005635e119b9f32f"),
        (
            lambda d: d["data"][0].update(ocr_tokens="NOKIA"),
            f"{OCR_FILE}, data 0: ocr_tokens must be a list, found a s",
        ),
    ],
)
def test_ocr_files_of_another_shape(root, change, message):
    refused = refusal_after(change, root / OCR_FILE, read, root=root, ocr_tokens=root / OCR_FILE)
    assert refused.startswith(f"{root}/{message}")


def test_answers_are_scored_as_llava_scores_textvqa(root, tmp_path):
    answers = {"0": "Nokia", "1": "STOP!", "2": "10:11"}
    entry = evaluate("textvqa", read_all(read, "train", root=root), answers, tmp_path)
    assert entry["score"] == pytest.approx(2 / 3)
    assert entry["metric"]["accuracy_percent"] == 66.67
    assert entry["ceiling"] == 1


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    root = tmp_path_factory.mktemp("fuzzed")
    write_set(root)
    return root


@FUZZ
@given(
    content=mutated(QUESTIONS) | damaged(json.dumps(QUESTIONS).encode()),
    ocr=mutated(OCR) | damaged(json.dumps(OCR).encode()) | st.just(OCR),
)
def test_whatever_stands_in_the_files(fuzzed, content, ocr):
    write(fuzzed / FILE, content)
    write(fuzzed / OCR_FILE, ocr)
    read_or_refuse(read, "train", root=fuzzed, ocr_tokens=fuzzed / OCR_FILE)
