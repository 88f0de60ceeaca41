import json

import pytest
from examples import FUZZ, damaged
from hypothesis import given
from reader_checks import (
    evaluate,
    mark_byte_order,
    mutated,
    questions_of,
    read_all,
    read_or_refuse,
    refusal,
    write,
    write_photos,
    zip_up,
)

from hf_llava_vqa.collate import prompt_turns
from hf_llava_vqa.data import get_benchmark, load_records
from hf_llava_vqa.data.benchmarks.mmvet import read, submit
from hf_llava_vqa.errors import ConfigError, RecordError
from hf_llava_vqa.images import open_image
from hf_llava_vqa.metrics.mm_vet.mm_vet_rules import answers_for_grader, read_grades, score


def question(picture, text, answer, *capabilities):
    return {
        "imagename": picture,
        "imagesource": "https://example.org/1",
        "question": text,
        "answer": answer,
        "capability": list(capabilities),
        "added_in": "v1",
    }


QUESTIONS = {
    "v1_0": question("v1_0.png", "What is x in the equation?", "-1<OR>-5", "ocr", "math"),
    "v1_1": question("v1_0.png", "What is d?", "1.25", "ocr", "spat"),
    "v1_2": question("v1_10.jpg", "Can you explain this meme?", "It is ironic.", "rec", "gen"),
}


def write_set(root):
    write(root / "mm-vet" / "mm-vet.json", QUESTIONS)
    write_photos(root / "mm-vet" / "images", "v1_0.png", "v1_10.jpg")


@pytest.fixture
def root(tmp_path):
    write_set(tmp_path / "mmvet")
    return tmp_path / "mmvet"


def test_questions_of_one_picture_are_one_record_without_answers(root):
    records = read_all(read, "test", root=root)
    assert questions_of(records) == [
        ("v1_0.png", [("v1_0", "What is x in the equation?"), ("v1_1", "What is d?")]),
        ("v1_10.jpg", [("v1_2", "Can you explain this meme?")]),
    ]
    dialogue = records[0]["dialogues"][0]
    assert dialogue["answers"] == []
    assert json.loads(dialogue["metadata"])["answer"] == "-1<OR>-5"


def test_nothing_is_appended_to_the_question(root):
    rows = load_records("mmvet", split="test", root=root)
    assert prompt_turns(rows[1], rows[1]["dialogues"][0])[0]["content"] == "<image>\nCan you explain this meme?"


def test_from_files_to_the_grader_and_from_its_grades_to_the_score(root, tmp_path):
    answers = {"v1_2": "It is.", "v1_0": "-1", "v1_1": "Größe 1.25"}
    assert evaluate("mmvet", read_all(read, "test", root=root), answers, tmp_path / "out", root) == {}
    written = json.loads((tmp_path / "out" / "mm-vet.json").read_text())
    assert list(written.items()) == [("v1_0", "-1"), ("v1_1", "Größe 1.25"), ("v1_2", "It is.")]
    assert written == answers_for_grader([{"question_id": id, "text": text} for id, text in answers.items()])
    grades = {id: {"score": [grade, grade]} for id, grade in zip(QUESTIONS, (1.0, 0.5, 0.0), strict=True)}
    scored = score(*read_grades(grades, QUESTIONS))
    assert (scored["score_percent"], scored["by_capability"]["ocr"]) == (50.0, 0.75)


def test_answers_are_not_scored_without_the_grader(root):
    with pytest.raises(ConfigError, match="mmvet: answers cannot be scored without a judge"):
        get_benchmark("mmvet").score({}, [])


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["v1_0", "v1_1"], "no prediction for ID v1_2 (1 of 3 are missing); answer all of its split"),
        (["v1_0", "v1_1", "v1_2", "v1_3"], "no ID v1_3, which was predicted"),
        (["v1_0", "v1_0"], "two predictions for v1_0"),
    ],
)
def test_what_the_grader_would_not_take(root, tmp_path, ids, message):
    predictions = [{"id": id, "answer": ""} for id in ids]
    with pytest.raises(RecordError) as caught:
        submit(predictions, tmp_path / "s.json", str(root / "mm-vet" / "mm-vet.json"))
    assert message in str(caught.value)
    assert not (tmp_path / "s.json").exists()


def test_the_archive_as_downloaded(root, tmp_path):
    expected = questions_of(read_all(read, "test", root=root))
    assert questions_of(read_all(read, "test", root=root / "mm-vet")) == expected
    zip_up(root / "mm-vet.zip", root / "mm-vet")
    records = read_all(read, "test", root=root)
    assert questions_of(records) == expected
    assert open_image(records[0]["images"][0]).mode == "RGB"
    evaluate("mmvet", records, dict.fromkeys(QUESTIONS, "yes"), tmp_path / "out", root)
    assert len(json.loads((tmp_path / "out" / "mm-vet.json").read_text())) == 3


def test_files_named_one_by_one(root):
    paths = {"annotations": root / "mm-vet" / "mm-vet.json", "images": root / "mm-vet" / "images"}
    assert read_all(read, "test", **paths) == read_all(read, "test", root=root)
    with pytest.raises(ConfigError, match="or images"):
        list(read("test", annotations=paths["annotations"]))


def test_a_byte_order_mark_is_skipped(root):
    mark_byte_order(root / "mm-vet" / "mm-vet.json")
    assert len(read_all(read, "test", root=root)) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.clear(), ": expected {ID: {"),
        (lambda d: d.update({"v1_1": []}), ", question v1_1: expected {"),
        (lambda d: d.update({" ": d["v1_1"]}), ", question  : the id is empty"),
        (lambda d: d["v1_1"].pop("question"), ", question v1_1: question must be a string, found nothing"),
        (lambda d: d["v1_1"].update(question=" "), ", question v1_1: question is empty"),
        (lambda d: d["v1_1"].pop("imagename"), ", question v1_1: imagename must be a string, found nothing"),
        (lambda d: d["v1_1"].update(capability="ocr"), ", question v1_1: capability must be a list, found a string"),
        (lambda d: d["v1_1"].update(imagename="x.png"), ", question v1_1: image x.png is not in "),
        (lambda d: d["v1_1"].update(imagename="/x.png"), ", question v1_1: unsafe name '/x.png'"),
        (lambda d: d["v1_1"].update(answer="\ud800"), ", question v1_1: a broken character"),
    ],
)
def test_files_of_another_shape(root, change, message):
    document = json.loads(json.dumps(QUESTIONS))
    change(document)
    write(root / "mm-vet" / "mm-vet.json", document)
    assert refusal(read, "test", root=root).startswith(f"{root}/mm-vet/mm-vet.json{message}")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"[]", "expected {"), (b'{"v1_0": ', "broken JSON at line 1"), (b'{"\xe9": {}}', "not UTF-8 at byte 2")],
)
def test_a_file_that_is_not_what_it_is_called(root, content, message):
    write(root / "mm-vet" / "mm-vet.json", content)
    assert refusal(read, "test", root=root).startswith(f"{root}/mm-vet/mm-vet.json: {message}")


def test_nothing_where_the_files_should_be(root):
    (root / "mm-vet" / "mm-vet.json").unlink()
    assert refusal(read, "test", root=root).startswith(f"{root}: no mm-vet.json, mm-vet/mm-vet.json or mm-vet.zip")


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    root = tmp_path_factory.mktemp("fuzzed")
    write_set(root)
    return root


@FUZZ
@given(content=mutated(QUESTIONS) | damaged(json.dumps(QUESTIONS).encode()))
def test_whatever_stands_in_the_file(fuzzed, content):
    write(fuzzed / "mm-vet" / "mm-vet.json", content)
    read_or_refuse(read, "test", root=fuzzed)
