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
    write,
    write_photos,
    zip_up,
)

from hf_llava_vqa.data import load_records
from hf_llava_vqa.data.benchmarks.pope import CATEGORIES, read
from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.images import open_image
from hf_llava_vqa.metrics.pope.pope_rules import score

PHOTOS = ("COCO_val2014_000000310196.jpg", "COCO_val2014_000000210789.jpg")


def row(id, image, thing, label):
    return {"question_id": id, "image": image, "text": f"Is there a {thing} in the image?", "label": label}


ROWS = {
    "random": [row(1, PHOTOS[0], "snowboard", "yes"), row(2, PHOTOS[0], "dining table", "no")],
    "popular": [row(1, PHOTOS[0], "snowboard", "yes"), row(2, PHOTOS[0], "car", "no")],
    "adversarial": [row(1, PHOTOS[1], "dog", "yes"), row(2, PHOTOS[1], "backpack", "no")],
}


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def file_of(root, category):
    return root / f"coco_pope_{category}.json"


def write_set(root):
    for category, rows in ROWS.items():
        write(file_of(root, category), lines(rows))
    write_photos(root / "val2014", *PHOTOS)


@pytest.fixture
def root(tmp_path):
    write_set(tmp_path / "pope")
    return tmp_path / "pope"


def test_all_questions_about_a_photo_are_one_record(root):
    records = read_all(read, "test", root=root)
    assert questions_of(records) == [
        (
            PHOTOS[0],
            [
                ("random/1", "Is there a snowboard in the image?"),
                ("random/2", "Is there a dining table in the image?"),
                ("popular/1", "Is there a snowboard in the image?"),
                ("popular/2", "Is there a car in the image?"),
            ],
        ),
        (
            PHOTOS[1],
            [
                ("adversarial/1", "Is there a dog in the image?"),
                ("adversarial/2", "Is there a backpack in the image?"),
            ],
        ),
    ]
    dialogue = records[1]["dialogues"][1]
    assert dialogue["answers"] == [{"answer": "no", "answer_confidence": ""}]
    assert dialogue["answer_type"] == "adversarial"


def test_from_files_to_the_score_of_papers(root, tmp_path):
    answers = dict.fromkeys((f"{category}/{id}" for category in CATEGORIES for id in (1, 2)), "Yes")
    answers |= {"random/2": "No, there is none.", "adversarial/1": "no", "adversarial/2": "There is not"}
    entry = evaluate("pope", load_records("pope", split="test", root=root), answers, tmp_path / "out")
    # random: both right; popular: yes twice, of which one is right; adversarial: yes never.
    assert entry["by"] == {"adversarial": 0, "popular": pytest.approx(2 / 3), "random": 1}
    assert entry["score"] == pytest.approx(entry["metric"]["mean_f1"]) == pytest.approx(5 / 9)
    assert entry["metric"]["yes_ratio"] == pytest.approx(3 / 6)


@given(answers=st.lists(st.sampled_from(["yes", "no", "", "not sure"]), min_size=6, max_size=6))
def test_the_score_summed_up_is_that_of_the_metric(fuzzed, answers):
    write_set(fuzzed)
    records = read_all(read, "test", root=fuzzed)
    ids = [dialogue["id"] for record in records for dialogue in record["dialogues"]]
    entry = evaluate("pope", records, dict(zip(ids, answers, strict=True)), fuzzed / "out")
    references = [
        {"id": f"{category}/{row['question_id']}", "label": row["label"], "category": category}
        for category, rows in ROWS.items()
        for row in rows
    ]
    predictions = [{"id": id, "prediction": answer} for id, answer in zip(ids, answers, strict=True)]
    assert entry["score"] == pytest.approx(score(predictions, references)["mean_f1"])


def test_archives_and_folders_as_downloaded(root):
    expected = questions_of(read_all(read, "test", root=root))
    zip_up(root / "val2014.zip", root / "val2014")
    for category in CATEGORIES:
        write(root / "coco" / f"coco_pope_{category}.json", file_of(root, category).read_bytes())
        file_of(root, category).unlink()
    records = read_all(read, "test", root=root)
    assert questions_of(records) == expected
    assert open_image(records[0]["images"][0]).mode == "RGB"


def test_places_named_one_by_one(root):
    assert read_all(read, "test", annotations=root, images=root / "val2014") == read_all(read, "test", root=root)
    with pytest.raises(ConfigError, match="or annotations"):
        list(read("test", images=root / "val2014"))
    with pytest.raises(ConfigError, match="or images"):
        list(read("test", annotations=root))


def test_a_byte_order_mark_is_skipped(root):
    mark_byte_order(file_of(root, "random"))
    assert len(read_all(read, "test", root=root)) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ": an empty file; expected lines of {"),
        (b"[]\n", ", line 1: expected {"),
        (lines([{"question_id": 1}]), ", line 1: image must be a string, found nothing"),
        (
            lines([*ROWS["popular"], row(3, PHOTOS[0], "cat", "maybe")]),
            ", line 3: label is maybe; it must be yes or no",
        ),
        (lines([{**ROWS["popular"][0], "text": ""}]), ", line 1: text is empty"),
        (lines([{**ROWS["popular"][0], "question_id": None}]), ", line 1: question_id must be a string, found null"),
        (lines([ROWS["popular"][0]] * 2), ", line 2: id popular/1 stands in "),
        (
            lines([row(1, "COCO_val2014_000000000001.jpg", "cat", "yes")]),
            ", line 1: image COCO_val2014_000000000001.jpg",
        ),
        (lines([row(1, "../x.jpg", "cat", "yes")]), ", line 1: unsafe name '../x.jpg'"),
        (lines(ROWS["popular"])[:-9], ": broken JSON at line 2, column "),
        (b'\n{"\xff": 1}', ": not UTF-8 at byte 3 (line 2)"),
    ],
)
def test_files_of_another_shape(root, content, message):
    write(file_of(root, "popular"), content)
    assert refusal(read, "test", root=root).startswith(f"{root}/coco_pope_popular.json{message}")


def test_nothing_where_the_files_should_be(root):
    file_of(root, "popular").unlink()
    assert refusal(read, "test", root=root).startswith(
        f"{root}: no coco_pope_popular.json or coco/coco_pope_popular.json; download"
    )


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    root = tmp_path_factory.mktemp("fuzzed")
    write_set(root)
    return root


@FUZZ
@given(content=mutated(ROWS["random"]).map(lambda rows: lines(rows or [])) | damaged(lines(ROWS["random"])))
def test_whatever_stands_in_a_file(fuzzed, content):
    write(file_of(fuzzed, "random"), content)
    read_or_refuse(read, "test", root=fuzzed)
