import json

import numpy as np
import pytest
from examples import FUZZ, damaged
from hypothesis import given
from reader_checks import evaluate

from hf_llava_vqa.data import load_records
from hf_llava_vqa.data.benchmarks.vizwiz_competition import process_question, read, read_class_mapping, submit
from hf_llava_vqa.errors import ConfigError, RecordError
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


# Processed questions


@pytest.mark.parametrize(
    ("text", "processed"),
    [
        ("What is this?", "what is this"),
        ("Is the phone a kitten?", "is phone kitten"),  # the baseline: "is ph1 kit10"
        ("How many fruits: one or two?", "how many fruits: 1 or 2"),
        ("I cant see, isnt it the can't?", "i can't see isn't it can't"),
        ("Anteater, an   ANT.", "anteater ant"),
        ("significant weight", "significant weight"),
        ("  The? ", "  The? "),
        ("¿Qué es?", "qué es"),
    ],
)
def test_questions_are_processed_by_whole_words(text, processed):
    assert process_question(text) == processed


def test_processing_is_a_choice_and_keeps_the_raw_question(competition_root):
    assert list(read("train", root=competition_root)) == list(read("train", root=competition_root, questions="raw"))
    rows = load_records("vizwiz_competition", split="train", root=competition_root, questions="processed")
    dialogue = rows[3]["dialogues"][0]
    assert dialogue["turns"] == [{"role": "user", "content": "what is number 3"}]
    assert json.loads(dialogue["metadata"]) == {"raw_question": "What is number 3?"}
    with pytest.raises(ConfigError, match="questions must be raw or processed, not 'lower'"):
        list(read("train", root=competition_root, questions="lower"))


def test_what_cannot_be_processed_is_named(competition_root):
    columns = columns_of(competition_root)
    for question, message in ((7, "question must be a string, found a number"), (" ", "question is empty")):
        columns["question"]["2"] = question
        (competition_root / "train.json").write_text(json.dumps(columns))
        with pytest.raises(RecordError, match=f"row 2: {message}"):
            list(read("train", root=competition_root, questions="processed"))


# Answer vocabulary

MAPPING = 'answer,class_id\nunsuitable,1\nunanswerable,0\n"yes, please",10\nnull,3\n'


def test_the_vocabulary_is_ordered_by_class(tmp_path):
    (tmp_path / "class_mapping.csv").write_text(MAPPING)
    assert read_class_mapping(tmp_path / "class_mapping.csv") == ["unanswerable", "unsuitable", "null", "yes, please"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("answer,id\nyes,0\n", ", line 1: no column class_id; expected answer, class_id, found answer, id"),
        ("answer,class_id\n", ": no rows under the header"),
        (MAPPING + "no,x\n", ", line 6: class_id must be a whole number, found 'x'"),
        (MAPPING + f"no,{'1' * 5000}\n", ", line 6: class_id must be a whole number, found '111111111'"),
        (MAPPING + "no,-1\n", ", line 6: class_id must be a whole number, found '-1'"),
        (MAPPING + " ,7\n", ", line 6: answer is empty"),
        (MAPPING + "no,10\n", ", line 6: 10 stands in line 4 too; remove one"),
        (MAPPING + "null,7\n", ", line 6: 'null' stands in line 5 too; remove one"),
        (MAPPING + '"no,7\n', ", line 6: broken CSV: unexpected end of data"),
    ],
)
def test_a_vocabulary_of_another_shape(tmp_path, text, message):
    (tmp_path / "classes.csv").write_text(text)
    with pytest.raises(RecordError) as caught:
        read_class_mapping(tmp_path / "classes.csv")
    assert str(caught.value).startswith(f"{tmp_path}/classes.csv{message}")


@FUZZ
@given(data=damaged(MAPPING.encode()))
def test_any_vocabulary(tmp_path_factory, data):
    file = tmp_path_factory.getbasetemp() / "any_classes.csv"
    file.write_bytes(data)
    message = ""
    try:
        assert all(read_class_mapping(file))
    except RecordError as error:
        message = str(error)
    assert "\n" not in message


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


def test_from_files_to_the_score(competition_root, tmp_path):
    records = load_records("vizwiz_competition", split="train", root=competition_root)
    answers = {f"train_{number:05d}": "a cup" if number else "mug" for number in range(4)}
    entry = evaluate("vizwiz_competition", records, answers, tmp_path)
    assert entry["score"] == 0.75
    assert entry["metric"]["variant"] == "competition"


def test_from_files_to_the_submission(competition_root, tmp_path):
    records = load_records("vizwiz_competition", split="valid", root=competition_root)
    answers = {f"valid_{number:05d}": f"cup {number}" for number in range(3)}
    assert evaluate("vizwiz_competition", records, answers, tmp_path) == {}
    array = np.load(tmp_path / "submission.npy", allow_pickle=False)
    assert array.tolist() == ["cup 0", "cup 1", "cup 2"]
