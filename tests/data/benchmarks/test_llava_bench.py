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

from hf_llava_vqa.data.benchmarks.llava_bench import read, submit
from hf_llava_vqa.errors import ConfigError, RecordError
from hf_llava_vqa.images import open_image
from hf_llava_vqa.metrics.llava_bench.llava_bench_rules import judge_requests, read_reviews, score

FILE = "questions.jsonl"
ROWS = [
    {"question_id": 0, "image": "001.jpg", "text": "What is the name of this sight?", "category": "conv"},
    {"question_id": 1, "image": "001.jpg", "text": "Describe this photo in detail.", "category": "detail"},
    {"question_id": 2, "image": "002.jpg", "text": "Why is it funny?", "category": "complex"},
]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write_set(root):
    write(root / FILE, lines(ROWS))
    write_photos(root / "images", "001.jpg", "002.jpg")


@pytest.fixture
def root(tmp_path):
    write_set(tmp_path / "wild")
    return tmp_path / "wild"


def test_questions_of_one_picture_are_one_record(root):
    records = read_all(read, "test", root=root)
    assert questions_of(records) == [
        ("001.jpg", [("0", "What is the name of this sight?"), ("1", "Describe this photo in detail.")]),
        ("002.jpg", [("2", "Why is it funny?")]),
    ]
    assert [d["answer_type"] for d in records[0]["dialogues"]] == ["conv", "detail"]
    assert records[1]["dialogues"][0]["answers"] == []


def test_from_files_to_the_judge_and_from_its_replies_to_the_score(root, tmp_path):
    answers = {"2": "Because.", "0": "Diamond Head", "1": "A sea."}
    assert evaluate("llava_bench", read_all(read, "test", root=root), answers, tmp_path / "out", root) == {}
    written = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    assert [line["question_id"] for line in written] == [0, 1, 2]
    assert written[2] == {"question_id": 2, "prompt": "Why is it funny?", "text": "Because."}
    contexts = [{"id": name, "image": name, "caption": "A photo."} for name in ("001.jpg", "002.jpg")]
    rules = {f"llava_bench_{row['category']}": {"role": "Assistant", "prompt": "Rate."} for row in ROWS}
    requests = judge_requests(ROWS, contexts, written, written, rules)
    reviews = [{**request, "content": f"8 {mark}\nGood."} for request, mark in zip(requests, (4, 8, 6), strict=True)]
    scored = score(*read_reviews(reviews))
    assert (scored["relative_percent"], scored["by_category"]["conv"]["relative_percent"]) == (75.0, 50.0)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["0", "1"], "no prediction for ID 2 (1 of 3 are missing); answer all of its split"),
        (["0", "1", "2", "3"], "no ID 3, which was predicted"),
        (["0", "0"], "two predictions for 0"),
    ],
)
def test_what_the_judge_would_not_take(root, tmp_path, ids, message):
    with pytest.raises(RecordError) as caught:
        submit([{"id": id, "answer": ""} for id in ids], tmp_path / "s.jsonl", str(root / FILE))
    assert message in str(caught.value)
    assert not (tmp_path / "s.jsonl").exists()


def test_archives_of_pictures(root):
    expected = questions_of(read_all(read, "test", root=root))
    zip_up(root / "images.zip", root / "images")
    records = read_all(read, "test", root=root)
    assert questions_of(records) == expected
    assert open_image(records[0]["images"][0]).mode == "RGB"


def test_files_named_one_by_one(root):
    paths = {"annotations": root / FILE, "images": root / "images"}
    assert read_all(read, "test", **paths) == read_all(read, "test", root=root)
    with pytest.raises(ConfigError, match="or images"):
        list(read("test", annotations=root / FILE))


def test_a_byte_order_mark_is_skipped(root):
    mark_byte_order(root / FILE)
    assert len(read_all(read, "test", root=root)) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n", ": an empty file; expected lines of {"),
        (b"3\n", ", line 1: expected {"),
        (lines([{**ROWS[0], "text": None}]), ", line 1: text must be a string, found null"),
        (lines([ROWS[0], {**ROWS[1], "category": ""}]), ", line 2: category is empty"),
        (lines([{**ROWS[0], "question_id": -1}]), ", line 1: question_id is -1; it cannot be negative"),
        (lines([ROWS[0], ROWS[0]]), ", line 2: id 0 stands in "),
        (lines([{**ROWS[0], "image": "9.jpg"}]), ", line 1: image 9.jpg is not in "),
        (lines([{**ROWS[0], "image": "../9.jpg"}]), ", line 1: unsafe name '../9.jpg'"),
        (lines([{**ROWS[0], "text": "\ud800"}]), ", line 1: a broken character"),
        (lines(ROWS)[:-4], ": broken JSON at line 3, column "),
        (b'{"\xe9": 1}', ": not UTF-8 at byte 2 (line 1)"),
    ],
)
def test_files_of_another_shape(root, content, message):
    write(root / FILE, content)
    assert refusal(read, "test", root=root).startswith(f"{root}/{FILE}{message}")


def test_nothing_where_the_files_should_be(root):
    (root / FILE).unlink()
    assert refusal(read, "test", root=root).startswith(f"{root}: no questions.jsonl; download")


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    root = tmp_path_factory.mktemp("fuzzed")
    write_set(root)
    return root


@FUZZ
@given(content=mutated(ROWS).map(lambda rows: lines(rows or [])) | damaged(lines(ROWS)))
def test_whatever_stands_in_the_file(fuzzed, content):
    write(fuzzed / FILE, content)
    read_or_refuse(read, "test", root=fuzzed)
