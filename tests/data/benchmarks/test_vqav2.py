import json

import pytest
from examples import FUZZ, damaged
from hypothesis import given
from hypothesis import strategies as st
from reader_checks import (
    evaluate,
    golden_answers,
    golden_json,
    mark_byte_order,
    mutated,
    predictions_of,
    questions_of,
    read_all,
    read_or_refuse,
    refusal,
    refusal_after,
    write,
    write_photos,
    zip_up,
)

from hf_llava_vqa.data import load_records
from hf_llava_vqa.data.benchmarks.vqav2 import read, submit
from hf_llava_vqa.errors import ConfigError, RecordError
from hf_llava_vqa.images import open_image

QUESTION_FILE = "v2_OpenEnded_mscoco_train2014_questions.json"
ANNOTATION_FILE = "v2_mscoco_train2014_annotations.json"


def annotation(id, image_id, *answers, answer_type="other"):
    return {
        "question_id": id,
        "image_id": image_id,
        "question_type": "what is",
        "answer_type": answer_type,
        "multiple_choice_answer": answers[0],
        "answers": [
            {"answer": answer, "answer_confidence": "yes", "answer_id": number}
            for number, answer in enumerate(answers, start=1)
        ],
    }


QUESTIONS = {
    "info": {"version": "2.0"},
    "data_subtype": "train2014",
    "questions": [
        {"image_id": 458752, "question": "What is this photo taken looking through?", "question_id": 458752000},
        {"image_id": 9, "question": "Is it day?", "question_id": 9000},
        {"image_id": 458752, "question": "What position is this man playing?", "question_id": 458752001},
    ],
}
ANNOTATIONS = {
    "annotations": [
        annotation(9000, 9, *["yes"] * 9, "no", answer_type="yes/no"),
        annotation(458752000, 458752, *["net"] * 10),
        annotation(458752001, 458752, *["pitcher"] * 9, ""),
    ]
}


def write_set(root):
    write(root / QUESTION_FILE, QUESTIONS)
    write(root / ANNOTATION_FILE, ANNOTATIONS)
    write(root / "v2_OpenEnded_mscoco_test2015_questions.json", {"questions": QUESTIONS["questions"]})
    write(root / "v2_OpenEnded_mscoco_test-dev2015_questions.json", {"questions": QUESTIONS["questions"][:1]})
    for folder in ("train2014", "test2015"):
        write_photos(root / folder, f"COCO_{folder}_000000458752.jpg", f"COCO_{folder}_000000000009.jpg")


@pytest.fixture
def root(tmp_path):
    write_set(tmp_path / "vqav2")
    return tmp_path / "vqav2"


def test_questions_of_one_photo_are_one_record(root):
    records = read_all(read, "train", root=root)
    assert questions_of(records) == [
        (
            "458752",
            [
                ("458752000", "What is this photo taken looking through?"),
                ("458752001", "What position is this man playing?"),
            ],
        ),
        ("9", [("9000", "Is it day?")]),
    ]
    (dialogue,) = records[1]["dialogues"]
    assert [answer["answer"] for answer in dialogue["answers"]] == ["yes"] * 9 + ["no"]
    assert {answer["answer_confidence"] for answer in dialogue["answers"]} == {"yes"}
    assert dialogue["answer_type"] == "yes/no"
    assert json.loads(dialogue["metadata"]) == {"multiple_choice_answer": "yes", "question_type": "what is"}
    assert records[1]["source"] == "vqav2"


def test_loaded_photos_open(root):
    rows = load_records("vqav2", split="train", root=root)
    assert [open_image(row["images"][0]).size for row in rows] == [(28, 28)] * 2


@pytest.mark.parametrize(("split", "count"), [("test", 3), ("testdev", 1)])
def test_test_questions_have_no_annotations(root, split, count):
    dialogues = [dialogue for record in read_all(read, split, root=root) for dialogue in record["dialogues"]]
    assert [dialogue["answers"] for dialogue in dialogues] == [[]] * count


def test_archives_as_downloaded(root):
    expected = questions_of(read_all(read, "train", root=root))
    zip_up(root / "v2_Questions_Train_mscoco.zip", root / QUESTION_FILE)
    zip_up(root / "v2_Annotations_Train_mscoco.zip", root / ANNOTATION_FILE)
    zip_up(root / "train2014.zip", root / "train2014")
    records = read_all(read, "train", root=root)
    assert questions_of(records) == expected
    assert open_image(records[0]["images"][0]).mode == "RGB"


def test_files_named_one_by_one(root):
    paths = {"questions": root / QUESTION_FILE, "annotations": root / ANNOTATION_FILE, "images": root / "train2014"}
    assert read_all(read, "train", **paths) == read_all(read, "train", root=root)
    for missing in paths:
        with pytest.raises(ConfigError, match=missing):
            list(read("train", **{name: path for name, path in paths.items() if name != missing}))


def test_a_byte_order_mark_is_skipped(root):
    mark_byte_order(root / QUESTION_FILE, root / ANNOTATION_FILE)
    assert len(read_all(read, "train", root=root)) == 2


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (QUESTION_FILE, lambda d: d.pop("questions"), ": questions must be a list, found nothing; expected {"),
        (QUESTION_FILE, lambda d: d["questions"].clear(), ": questions is an empty list; fill it in"),
        (QUESTION_FILE, lambda d: d["questions"].insert(1, 7), ", questions 1: expected {"),
        (
            QUESTION_FILE,
            lambda d: d["questions"][2].pop("question"),
            ", questions 2: question must be a string, found n",
        ),
        (QUESTION_FILE, lambda d: d["questions"][2].update(question=" "), ", questions 2: question is empty"),
        (QUESTION_FILE, lambda d: d["questions"][2].update(question="\ud800"), ", questions 2: a broken character"),
        (QUESTION_FILE, lambda d: d["questions"][0].update(image_id="9"), ", questions 0: image_id must be an integer"),
        (
            QUESTION_FILE,
            lambda d: d["questions"][0].update(image_id=True),
            ", questions 0: image_id must be an integer",
        ),
        (QUESTION_FILE, lambda d: d["questions"][0].update(image_id=-1), ", questions 0: image_id is -1; it cannot be"),
        (QUESTION_FILE, lambda d: d["questions"].append(d["questions"][0]), ", questions 3: id 458752000 stands in "),
        (
            QUESTION_FILE,
            lambda d: d["questions"][0].update(question_id=1),
            ", questions 0: question 1 has no annotation",
        ),
        (
            QUESTION_FILE,
            lambda d: d["questions"].pop(),
            f"{ANNOTATION_FILE}, annotations 2: question 458752001 is not in",
        ),
        (
            ANNOTATION_FILE,
            lambda d: d["annotations"][0].pop("answers"),
            ", annotations 0: answers must be a list, found",
        ),
        (
            ANNOTATION_FILE,
            lambda d: d["annotations"][0].update(answers=[]),
            ", annotations 0: answers is an empty list; fill",
        ),
        (
            ANNOTATION_FILE,
            lambda d: d["annotations"][0]["answers"].append("no"),
            ", annotations 0, answers 10: expected",
        ),
        (
            ANNOTATION_FILE,
            lambda d: d["annotations"][0].update(image_id=8),
            ", annotations 0: question 9000 is about im",
        ),
        (
            ANNOTATION_FILE,
            lambda d: d["annotations"].append(d["annotations"][0]),
            ", annotations 3: question 9000 stands",
        ),
    ],
)
def test_files_of_another_shape(root, file, change, message):
    refused = refusal_after(change, root / file, read, root=root)
    assert message in refused
    assert refused.startswith(f"{root}/")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", "expected {"),
        (b'{"questions": [', "broken JSON at line 1, column 16"),
        (b'{"questions": "\xff"}', "not UTF-8 at byte 15"),
        (b"", "broken JSON at line 1, column 1"),
    ],
)
def test_files_that_are_not_what_they_are_called(root, content, message):
    write(root / QUESTION_FILE, content)
    assert refusal(read, "train", root=root).startswith(f"{root}/{QUESTION_FILE}: {message}")


def test_a_question_asked_twice_in_a_test_file(root):
    questions = QUESTIONS["questions"]
    write(root / "v2_OpenEnded_mscoco_test2015_questions.json", {"questions": [*questions, questions[1]]})
    message = refusal(read, "test", root=root)
    assert ", questions 3: id 9000 stands in " in message
    assert message.endswith(", questions 1 too; remove one")


def test_missing_photos_are_counted(root):
    for photo in (root / "train2014").iterdir():
        photo.unlink()
    message = refusal(read, "train", root=root)
    assert ", questions 0: image COCO_train2014_000000458752.jpg is not in " in message
    assert "(2 of 2 images are missing)" in message


def test_nothing_where_the_files_should_be(root, tmp_path):
    message = refusal(read, "val", root=root)
    assert message.startswith(f"{root}: no v2_OpenEnded_mscoco_val2014_questions.json or v2_Questions_Val_mscoco.zip")
    assert refusal(read, "val", root=tmp_path / "none").endswith("none: no such folder")


def test_answers_are_scored_as_agreement(root, tmp_path):
    answers = {"458752000": "a net", "9000": "no", "458752001": "batter"}
    entry = evaluate("vqav2", read_all(read, "train", root=root), answers, tmp_path)
    assert entry["score"] == pytest.approx((0 + 0.3 + 0) / 3), "of ten equal answers only the exact text counts"
    assert entry["metric"]["variant"] == "vqa"


def write_golden_questions(path):
    rows = golden_json("vqav2_questions.jsonl")
    asked = [{"question_id": row["question_id"], "image_id": 1, "question": row["text"]} for row in rows]
    write(path, {"questions": asked})
    return {str(row["question_id"]) for row in rows}


def test_the_servers_file_is_that_of_llava(tmp_path):
    asked = write_golden_questions(tmp_path / "questions.json")
    answers = {id: text for id, text in golden_answers("vqav2").items() if id in asked}
    submit(predictions_of(answers), tmp_path / "s.json", str(tmp_path / "questions.json"))
    assert json.loads((tmp_path / "s.json").read_text()) == golden_json("vqav2_expected.json")


def test_from_test_dev_to_the_servers_file_of_all_of_test(root, tmp_path):
    records = read_all(read, "testdev", root=root)
    assert evaluate("vqav2", records, {"458752000": "The Net."}, tmp_path / "out", root) == {}
    assert json.loads((tmp_path / "out" / "submission.json").read_text()) == [
        {"question_id": 458752000, "answer": "net"},
        {"question_id": 9000, "answer": ""},
        {"question_id": 458752001, "answer": ""},
    ]


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ([], "there are no predictions to submit"),
        (predictions_of({"7": "yes"}), "test2015_questions.json: no ID 7, which was predicted"),
        (predictions_of({"9000": "yes"}) * 2, "two predictions for 9000"),
    ],
)
def test_what_the_server_would_not_take(root, tmp_path, predictions, message):
    with pytest.raises(RecordError) as caught:
        submit(predictions, tmp_path / "s.json", f"{root}/v2_OpenEnded_mscoco_test2015_questions.json")
    assert message in str(caught.value)
    assert not (tmp_path / "s.json").exists()


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    root = tmp_path_factory.mktemp("fuzzed")
    write_set(root)
    return root


@FUZZ
@given(
    questions=mutated(QUESTIONS) | damaged(json.dumps(QUESTIONS).encode()) | st.just(QUESTIONS),
    annotations=mutated(ANNOTATIONS) | damaged(json.dumps(ANNOTATIONS).encode()) | st.just(ANNOTATIONS),
)
def test_whatever_stands_in_the_files(fuzzed, questions, annotations):
    write(fuzzed / QUESTION_FILE, questions)
    write(fuzzed / ANNOTATION_FILE, annotations)
    read_or_refuse(read, "train", root=fuzzed)
