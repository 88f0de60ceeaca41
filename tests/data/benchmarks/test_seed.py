import json
import shutil
import zipfile

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
)

from hf_llava_vqa.collate import prompt_turns
from hf_llava_vqa.data import load_records
from hf_llava_vqa.data.benchmarks.seed import read
from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.images import open_image

FILE = "SEED-Bench.json"


def question(id, picture, text, answer, *, type_id=1, data_type="image"):
    choices = dict(zip(("choice_a", "choice_b", "choice_c", "choice_d"), ("One", "Two", "Three", "Four"), strict=True))
    return {
        "answer": answer,
        **choices,
        "data_id": picture,
        "data_type": data_type,
        "question": text,
        "question_id": id,
        "question_type_id": type_id,
    }


DOCUMENT = {
    "questions": [
        question("101669", "1454426_2591111986", "How many towels are in the image?", "A", type_id=5),
        question("107283", "507732_3107413", "How many people?", "C", type_id=5),
        question("v10", "36140.webm", "What happens?", "B", type_id=10, data_type="video"),
        question("101670", "1454426_2591111986", "What is seen?", "D"),
    ],
    "question_type": {"Scene Understanding": 1, "Instances Counting": 5, "Action Recognition": 10},
}


def write_set(root):
    write(root / FILE, DOCUMENT)
    write_photos(root / "SEED-Bench-image", "1454426_2591111986", "507732_3107413")


@pytest.fixture
def root(tmp_path):
    write_set(tmp_path / "seed")
    return tmp_path / "seed"


def refusal_after(change, root):
    document = json.loads(json.dumps(DOCUMENT))
    change(document)
    write(root / FILE, document)
    return refusal(read, "test", root=root)


def test_questions_about_pictures_without_those_about_videos(root):
    options = "A. One\nB. Two\nC. Three\nD. Four"
    records = read_all(read, "test", root=root)
    assert questions_of(records) == [
        (
            "1454426_2591111986",
            [
                ("101669", f"How many towels are in the image?\n{options}"),
                ("101670", f"What is seen?\n{options}"),
            ],
        ),
        ("507732_3107413", [("107283", f"How many people?\n{options}")]),
    ]
    dialogue = records[0]["dialogues"][0]
    assert (dialogue["answers"][0]["answer"], dialogue["answer_type"]) == ("A", "Instances Counting")
    assert dialogue["choices"] == ["One", "Two", "Three", "Four"]


def test_the_letter_is_asked_for(root):
    rows = load_records("seed", split="test", root=root)
    turns = prompt_turns(rows[1], rows[1]["dialogues"][0])
    assert turns[0]["content"].endswith("D. Four\nAnswer with the option's letter from the given choices directly.")


def test_from_files_to_the_score(root, tmp_path):
    answers = {"101669": "A", "101670": "D.", "107283": "C"}
    entry = evaluate("seed", read_all(read, "test", root=root), answers, tmp_path / "out")
    assert entry["score"] == entry["metric"]["image_accuracy"] == pytest.approx(2 / 3)
    assert entry["by"] == {"Instances Counting": 1, "Scene Understanding": 0}
    assert entry["metric"]["video_accuracy"] is None


def test_types_without_names(root, tmp_path):
    write(root / FILE, {"questions": DOCUMENT["questions"]})
    assert read_all(read, "test", root=root)[0]["dialogues"][0]["answer_type"] == "5"


def test_an_archive_as_downloaded(root):
    expected = questions_of(read_all(read, "test", root=root))
    with zipfile.ZipFile(root / "SEED-Bench-image.zip", "w") as archive:
        for path in (root / "SEED-Bench-image").iterdir():
            archive.write(path, f"SEED-Bench-image/{path.name}")
    shutil.rmtree(root / "SEED-Bench-image")
    records = read_all(read, "test", root=root)
    assert questions_of(records) == expected
    assert open_image(records[0]["images"][0]).mode == "RGB"


def test_files_named_one_by_one(root):
    paths = {"annotations": root / FILE, "images": root / "SEED-Bench-image"}
    assert read_all(read, "test", **paths) == read_all(read, "test", root=root)
    with pytest.raises(ConfigError, match="or images"):
        list(read("test", annotations=root / FILE))


def test_a_byte_order_mark_is_skipped(root):
    mark_byte_order(root / FILE)
    assert len(read_all(read, "test", root=root)) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("questions"), ": questions must be a list, found nothing"),
        (lambda d: d["questions"].clear(), ": questions is an empty list"),
        (lambda d: d.update(questions=d["questions"][2:3]), ': no questions with the data_type "image"'),
        (lambda d: d["questions"].insert(0, 7), ", questions 0: expected {"),
        (lambda d: d["questions"][1].pop("data_type"), ", questions 1: data_type must be a string, found nothing"),
        (lambda d: d["questions"][1].pop("question"), ", questions 1: question must be a string, found nothing"),
        (lambda d: d["questions"][1].pop("choice_d"), ", questions 1: choice_d must be a string, found nothing"),
        (lambda d: d["questions"][1].update(answer="E"), ", questions 1: answer is E; it must be A, B, C, D"),
        (lambda d: d["questions"][1].update(question_id="101669"), ", questions 1: id 101669 stands in "),
        (lambda d: d["questions"][1].update(data_id="7"), ", questions 1: image 7 is not in "),
        (lambda d: d["questions"][1].update(data_id="../7"), ", questions 1: unsafe name '../7'"),
        (lambda d: d["questions"][1].update(question="\ud800"), ", questions 1: a broken character"),
        (lambda d: d.update(question_type=[]), ", question_type: expected {NAME: number}, found a list"),
        (lambda d: d["question_type"].update(Other=None), ", question_type: Other must be a string, found null"),
    ],
)
def test_files_of_another_shape(root, change, message):
    assert refusal_after(change, root).startswith(f"{root}/{FILE}{message}")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b'{"questions": ', "broken JSON at line 1, column 15"), (b'{"\xe9": []}', "not UTF-8 at byte 2")],
)
def test_a_file_that_is_not_what_it_is_called(root, content, message):
    write(root / FILE, content)
    assert refusal(read, "test", root=root).startswith(f"{root}/{FILE}: {message}")


def test_nothing_where_the_files_should_be(root):
    (root / FILE).unlink()
    assert refusal(read, "test", root=root).startswith(f"{root}: no SEED-Bench.json; download")


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    root = tmp_path_factory.mktemp("fuzzed")
    write_set(root)
    return root


@FUZZ
@given(content=mutated(DOCUMENT) | damaged(json.dumps(DOCUMENT).encode()))
def test_whatever_stands_in_the_file(fuzzed, content):
    write(fuzzed / FILE, content)
    read_or_refuse(read, "test", root=fuzzed)
