import json

import numpy as np
import pytest

from hf_llava_vqa.data import load_records
from hf_llava_vqa.data.vizwiz_competition import read, submit
from hf_llava_vqa.errors import RecordError
from hf_llava_vqa.records import validate_record


def refused(root, split="train"):
    with pytest.raises(RecordError) as caught:
        list(read(split, root=root))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_columns_become_records(competition_root):
    records = list(read("train", root=competition_root))
    for record in records:
        validate_record(record)
    assert [record["image_id"] for record in records] == [f"train_{n:05d}.jpg" for n in range(4)]
    assert records[3]["source"] == "vizwiz_competition"
    (dialogue,) = records[3]["dialogues"]
    assert dialogue["id"] == "train_00003"
    assert dialogue["turns"] == [{"role": "user", "content": "What is number 3?"}]
    assert dialogue["answers"] == [{"answer": "cup", "answer_confidence": "yes"}] * 10


def test_valid_has_no_answers(competition_root):
    records = list(read("valid", root=competition_root))
    assert [record["dialogues"][0]["answers"] for record in records] == [[], [], []]


def columns_of(root, split="train"):
    return json.loads((root / f"{split}.json").read_text())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("question"), ": column question must be an object, found nothing; expected {"),
        (lambda c: c.update(image=["a.jpg"]), ": column image must be an object, found a list"),
        (lambda c: c["question"].pop("2"), ", row 2: column question has no such row"),
        (lambda c: c["answers"].pop("1"), ", row 1: column answers has no such row"),
        (lambda c: c["answers"].update({"9": []}), ", row 9: column image has no such row"),
        (lambda c: c["question"].update({"2": None}), ", row 2: question must be a string, found null"),
        (lambda c: c["answers"].update({"2": None}), ", row 2: answers must be a list, found null"),
        (lambda c: c.pop("answers"), ", row 0: no answers; read a file without answers as split test or valid"),
        (lambda c: c["image"].update({"3": "train_99999.jpg"}), ", row 3: image train_99999.jpg is not in "),
    ],
)
def test_columns_of_another_shape(competition_root, change, message):
    columns = columns_of(competition_root)
    change(columns)
    (competition_root / "train.json").write_text(json.dumps(columns))
    assert refused(competition_root).startswith(f"{competition_root}/train.json{message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"image": "a.jpg"}]', "a list of rows; read it with the source vizwiz"),
        ('"image"', "expected columns"),
        ("{}", "column image must be an object, found nothing"),
        ('{"image": {}, "question": {}}', "there are no rows; download it again"),
        ('{"image": ', "broken JSON at line 1, column 11"),
    ],
)
def test_a_file_of_another_shape(competition_root, text, message):
    (competition_root / "train.json").write_text(text)
    assert refused(competition_root).startswith(f"{competition_root}/train.json: {message}")


# Submission


def prediction(number, answer, name="valid_{:05d}.jpg"):
    return {"id": f"valid_{number:05d}", "image_id": name.format(number), "answer": answer}


def test_answers_stand_in_the_order_of_the_file(tmp_path):
    answers = ["cup", "a" * 500, "", " 日本語 ", "unanswerable"]
    shuffled = [prediction(number, answers[number]) for number in (3, 0, 4, 1, 2)]
    submit(shuffled, tmp_path / "out" / "submission.npy")
    array = np.load(tmp_path / "out" / "submission.npy", allow_pickle=False)
    assert array.shape == (5,)
    assert array.dtype.kind == "U"
    assert array.tolist() == answers


@pytest.mark.parametrize("count", [1, 3])
def test_the_file_is_written_under_the_very_name(tmp_path, count):
    submit([prediction(number, "cup") for number in range(count)], tmp_path / "answers")
    assert [path.name for path in tmp_path.iterdir()] == ["answers"]


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ([], "there are no predictions"),
        ([prediction(0, "a"), prediction(0, "b")], "two predictions for valid_00000.jpg"),
        ([prediction(0, "a"), prediction(2, "b")], "no prediction for image number 1"),
        ([prediction(1, "a")], "no prediction for image number 0"),
        ([prediction(0, "a", "photo.jpg")], "photo.jpg: expected a name such as valid_00000.jpg"),
        ([prediction(0, "a", "valid_²{}.jpg")], "valid_²0.jpg: expected a name such as valid_00000.jpg"),
        ([prediction(0, "a\0")], "valid_00000.jpg: answer 'a\\x00' ends in a null character"),
    ],
)
def test_what_cannot_be_submitted(tmp_path, predictions, message):
    with pytest.raises(RecordError) as caught:
        submit(predictions, tmp_path / "s.npy")
    assert message in str(caught.value)
    assert not (tmp_path / "s.npy").exists()


def test_read_to_submission(competition_root, tmp_path):
    records = load_records("vizwiz_competition", split="valid", root=competition_root)
    predictions = [{"image_id": r["image_id"], "id": "", "answer": r["image_id"][-5]} for r in records]
    submit(predictions, tmp_path / "s.npy")
    assert np.load(tmp_path / "s.npy").tolist() == ["0", "1", "2"]
