import json

import pytest
from examples import FUZZ, damaged
from hypothesis import given
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
from hf_llava_vqa.data.benchmarks.gqa import read, submit
from hf_llava_vqa.errors import ConfigError, RecordError
from hf_llava_vqa.images import open_image
from hf_llava_vqa.metrics.gqa.gqa_rules import read_question

FILE = "train_balanced_questions.json"


def question(image_id, text, answer, structural="query"):
    return {
        "semantic": [
            {"operation": "select", "dependencies": [], "argument": "wall (722332)"},
            {"operation": "query", "dependencies": [0], "argument": "color"},
        ],
        "entailed": ["07333407"],
        "equivalent": ["07333408"],
        "question": text,
        "imageId": image_id,
        "isBalanced": True,
        "groups": {"global": "color", "local": "10-wall_color"},
        "answer": answer,
        "semanticStr": "select: wall (722332)->query: color [0]",
        "annotations": {"answer": {}, "question": {"4": "722332"}, "fullAnswer": {}},
        "types": {"detailed": "relAttr", "semantic": "attr", "structural": structural},
        "fullAnswer": f"It is {answer}.",
    }


QUESTIONS = {
    "07333408": question("2354786", "What is on the white wall?", "pipe"),
    "07333406": question("2375429", "Is the sky dark?", "yes", structural="verify"),
    "00123": question("2354786", "Which color is the wall?", "white"),
}


def write_set(root):
    write(root / FILE, QUESTIONS)
    unanswered = {id: {"question": row["question"], "imageId": row["imageId"]} for id, row in QUESTIONS.items()}
    write(root / "test_balanced_questions.json", unanswered)
    write_photos(root / "images", "2354786.jpg", "2375429.jpg")


@pytest.fixture
def root(tmp_path):
    write_set(tmp_path / "gqa")
    return tmp_path / "gqa"


def test_questions_of_one_photo_are_one_record(root):
    records = read_all(read, "train", root=root)
    assert questions_of(records) == [
        ("2354786", [("07333408", "What is on the white wall?"), ("00123", "Which color is the wall?")]),
        ("2375429", [("07333406", "Is the sky dark?")]),
    ]
    (dialogue,) = records[1]["dialogues"]
    assert dialogue["answers"] == [{"answer": "yes", "answer_confidence": ""}]
    assert dialogue["answer_type"] == "verify"
    assert records[1]["source"] == "gqa"


def test_metadata_hold_what_the_official_measures_need(root):
    dialogue = read_all(read, "train", root=root)[0]["dialogues"][1]
    kept = json.loads(dialogue["metadata"])
    assert kept["fullAnswer"] == "It is white."
    assert not {"annotations", "semanticStr"} & set(kept)
    kept |= {"question": dialogue["turns"][0]["content"], "answer": dialogue["answers"][0]["answer"]}
    assert read_question("00123", kept) == read_question("00123", QUESTIONS["00123"])


def test_test_questions_have_no_answers(root):
    dialogues = [dialogue for record in read_all(read, "test", root=root) for dialogue in record["dialogues"]]
    assert [dialogue["answers"] for dialogue in dialogues] == [[]] * 3


def test_archives_as_downloaded(root):
    expected = questions_of(read_all(read, "train", root=root))
    zip_up(root / "questions1.2.zip", root / FILE)
    zip_up(root / "images.zip", root / "images")
    rows = load_records("gqa", split="train", root=root)
    assert questions_of(list(rows)) == expected
    assert open_image(rows[0]["images"][0]).mode == "RGB"


def test_files_named_one_by_one(root):
    paths = {"annotations": root / FILE, "images": root / "images"}
    assert read_all(read, "train", **paths) == read_all(read, "train", root=root)
    with pytest.raises(ConfigError, match="or images"):
        list(read("train", annotations=root / FILE))


def test_a_byte_order_mark_is_skipped(root):
    mark_byte_order(root / FILE)
    assert len(read_all(read, "train", root=root)) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.clear(), ": expected {ID: {"),
        (lambda d: d.update({"1\n": 5}), r", question '1\n': expected {ID: "),
        (lambda d: d.update({"": d["00123"]}), ", question : the id is empty; fill it in"),
        (lambda d: d["00123"].pop("question"), ", question 00123: question must be a string, found nothing"),
        (lambda d: d["00123"].pop("imageId"), ", question 00123: imageId must be a string, found nothing"),
        (lambda d: d["00123"].pop("answer"), ", question 00123: answer must be a string, found nothing"),
        (lambda d: d["00123"].update(answer=["white"]), ", question 00123: answer must be a string, found a list"),
        (lambda d: d["00123"].update(answer=""), ", question 00123: answer is empty"),
        (lambda d: d["00123"].update(types="query"), ", question 00123, types: expected {"),
        (lambda d: d["00123"].update(fullAnswer="\udfff"), ", question 00123: a broken character"),
        (lambda d: d["00123"].update(imageId="../2375429"), ", question 00123: unsafe name '../2375429.jpg'"),
        (lambda d: d["00123"].update(imageId=7), ", question 00123: image 7.jpg is not in "),
    ],
)
def test_files_of_another_shape(root, change, message):
    assert refusal_after(change, root / FILE, read, root=root).startswith(f"{root}/{FILE}{message}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", "expected {"),
        (b'{"00123": ', "broken JSON at line 1, column 11"),
        (b'{"\xe9": {}}', "not UTF-8 at byte 2"),
    ],
)
def test_files_that_are_not_what_they_are_called(root, content, message):
    write(root / FILE, content)
    assert refusal(read, "train", root=root).startswith(f"{root}/{FILE}: {message}")


def test_nothing_where_the_files_should_be(root):
    assert refusal(read, "val", root=root).startswith(f"{root}: no val_balanced_questions.json, ")
    (root / "images").rename(root / "pictures")
    assert refusal(read, "train", root=root).startswith(f"{root}: no folder images and no images.zip")


def test_answers_are_scored_as_llava_scores_gqa(root, tmp_path):
    answers = {"07333408": "Pipe.", "07333406": "no", "00123": "white "}
    entry = evaluate("gqa", read_all(read, "train", root=root), answers, tmp_path)
    assert entry["score"] == pytest.approx(1 / 3)
    assert entry["by"] == {"query": 0.5, "verify": 0.0}
    assert entry["metric"]["name"] == "gqa"
    assert entry["metric"]["open"] == 0.5
    assert entry["metric"]["by_semantic"] == {"attr": pytest.approx(1 / 3)}
    assert entry["metric"]["distribution"] > 0
    assert entry["metric"]["consistency"] is None


def test_questions_of_a_reduced_file_are_scored_too(root, tmp_path):
    reduced = {"1": {"question": "Why?", "imageId": "2354786", "answer": "rain", "groups": None}}
    write(root / FILE, reduced)
    assert evaluate("gqa", read_all(read, "train", root=root), {"1": "Rain"}, tmp_path)["score"] == 1


def test_the_servers_file_is_that_of_llava(tmp_path):
    answers = golden_answers("gqa")
    write(tmp_path / "questions.json", {id: question("1", "Why?", "") for id in sorted(answers)})
    submit(predictions_of(answers), tmp_path / "s.json", str(tmp_path / "questions.json"))
    assert json.loads((tmp_path / "s.json").read_text()) == golden_json("gqa_expected.json")


def test_from_the_test_split_to_the_servers_file(root, tmp_path):
    answers = {"00123": "White.", "07333406": "No", "07333408": "a pipe"}
    assert evaluate("gqa", read_all(read, "test", root=root), answers, tmp_path / "out", root) == {}
    assert json.loads((tmp_path / "out" / "submission.json").read_text()) == [
        {"questionId": "07333408", "prediction": "a pipe"},
        {"questionId": "07333406", "prediction": "no"},
        {"questionId": "00123", "prediction": "white"},
    ]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["00123"], "no prediction for ID 07333408 (2 of 3 are missing)"),
        (["00123", "5"], "test_balanced_questions.json: no ID 5, which was predicted"),
    ],
)
def test_what_the_server_would_not_take(root, tmp_path, ids, message):
    with pytest.raises(RecordError) as caught:
        submit(predictions_of(dict.fromkeys(ids, "")), tmp_path / "s.json", f"{root}/test_balanced_questions.json")
    assert message in str(caught.value)
    assert not (tmp_path / "s.json").exists()


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    root = tmp_path_factory.mktemp("fuzzed")
    write_set(root)
    return root


@FUZZ
@given(content=mutated(QUESTIONS) | damaged(json.dumps(QUESTIONS).encode()))
def test_whatever_stands_in_the_file(fuzzed, content):
    write(fuzzed / FILE, content)
    read_or_refuse(read, "train", root=fuzzed)
