import tarfile

import pytest
from examples import FUZZ, damaged
from hypothesis import given
from hypothesis import strategies as st
from reader_checks import (
    evaluate,
    mark_byte_order,
    questions_of,
    read_all,
    read_or_refuse,
    refusal,
    write,
    write_photos,
    zip_up,
)

from hf_llava_vqa.data import load_records
from hf_llava_vqa.data.benchmarks.mme import FOLDER, read
from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.images import open_image
from hf_llava_vqa.metrics.mme.mme_rules import parse_answer

TEXTS = {
    "existence/000000006040.txt": "Is there a bench in this image? Please answer yes or no.\tYes\n"
    "Is there a zebra in this image? Please answer yes or no.\tNo\n\n",
    "artwork/questions_answers_YN/10002.txt": "Is this a painting?  Please answer yes or no.\tYes\r\n"
    "Is this glassware?\tNo",
    "code_reasoning/0020.txt": "Is it C++? Please answer yes or no.\tYes\nIs it Python? Please answer yes or no.\tNo\n",
}
PICTURES = ("existence/000000006040.jpg", "artwork/images/10002.jpg", "code_reasoning/0020.png")
TEXT = "existence/000000006040.txt"


def write_set(root):
    for name, text in TEXTS.items():
        write(root / FOLDER / name, text.encode())
    write_photos(root / FOLDER, *PICTURES)
    write(root / "eval_tool" / "Your_Results" / "existence.txt", b"a result, not a question")


@pytest.fixture
def root(tmp_path):
    write_set(tmp_path / "mme")
    return tmp_path / "mme"


QUESTIONS = [
    (
        "existence/000000006040.jpg",
        [
            ("existence/000000006040.jpg#0", "Is there a bench in this image?"),
            ("existence/000000006040.jpg#1", "Is there a zebra in this image?"),
        ],
    ),
    (
        "artwork/10002.jpg",
        [("artwork/10002.jpg#0", "Is this a painting?"), ("artwork/10002.jpg#1", "Is this glassware?")],
    ),
    (
        "code_reasoning/0020.png",
        [("code_reasoning/0020.png#0", "Is it C++?"), ("code_reasoning/0020.png#1", "Is it Python?")],
    ),
]
IDS = [id for _, asked in QUESTIONS for id, _ in asked]


def test_a_picture_has_two_questions_in_either_layout(root):
    records = read_all(read, "test", root=root)
    assert questions_of(records) == QUESTIONS
    assert [d["answers"][0]["answer"] for d in records[1]["dialogues"]] == ["Yes", "No"]
    assert records[2]["dialogues"][0]["answer_type"] == "code_reasoning"
    assert all(open_image(record["images"][0]).mode == "RGB" for record in records)


def test_from_files_to_the_perception_score(root, tmp_path):
    answers = dict(zip(IDS, ["Yes", "no.", "yes", "Yes", "yes", "no"], strict=True))
    entry = evaluate("mme", load_records("mme", split="test", root=root), answers, tmp_path / "out")
    # existence: 100 + 100; artwork: 50 + 0.
    assert (entry["metric"]["perception"], entry["metric"]["cognition"]) == (250, 200)
    assert entry["score"] == pytest.approx(250 / 400)
    assert entry["by"] == {"existence": 1, "artwork": 0.25, "code_reasoning": 1}


def test_cognition_by_itself(root, tmp_path):
    for folder in ("existence", "artwork"):
        (root / FOLDER / folder).rename(root / folder)
    (root / FOLDER).rename(root / "cognition")
    answers = dict.fromkeys(IDS[4:], "yes")
    entry = evaluate("mme", read_all(read, "test", images=root / "cognition"), answers, tmp_path / "out")
    assert (entry["score"], entry["metric"]["cognition"], entry["metric"]["perception"]) == (0.25, 50, None)


@given(answers=st.lists(st.sampled_from(["yes", "No", "", "none"]), min_size=6, max_size=6))
def test_the_score_summed_up_is_that_of_the_metric(fuzzed, answers):
    write_set(fuzzed)
    records = read_all(read, "test", root=fuzzed)
    entry = evaluate("mme", records, dict(zip(IDS, answers, strict=True)), fuzzed / "out")
    assert entry["score"] == pytest.approx(entry["metric"]["perception"] / 400)
    right = [parse_answer(answer) == wanted for answer, wanted in zip(answers, ["yes", "no"] * 3, strict=True)]
    assert entry["by"]["existence"] == (sum(right[:2]) / 2 + all(right[:2])) / 2


def test_the_folder_itself_and_its_archive(root):
    expected = questions_of(read_all(read, "test", root=root))
    assert questions_of(read_all(read, "test", root=root / FOLDER)) == expected
    zip_up(root / f"{FOLDER}.zip", root / FOLDER)
    records = read_all(read, "test", root=root)
    assert questions_of(records) == expected
    assert open_image(records[0]["images"][0]).mode == "RGB"


def test_a_tar_archive(root):
    expected = questions_of(read_all(read, "test", root=root))
    with tarfile.open(root / "mme.tar", "w") as archive:
        archive.add(root / FOLDER, FOLDER)
    records = read_all(read, "test", images=root / "mme.tar")
    assert questions_of(records) == expected
    assert open_image(records[0]["images"][0]).mode == "RGB"


def test_no_place(root):
    with pytest.raises(ConfigError, match="or images"):
        list(read("test"))
    assert refusal(read, "test", root=root / "eval_tool").startswith(f"{root}/eval_tool: no folder {FOLDER} and no ")
    assert "no texts in existence or any other category" in refusal(read, "test", images=root / "eval_tool")


def test_a_byte_order_mark_is_skipped(root):
    mark_byte_order(root / FOLDER / TEXT)
    assert questions_of(read_all(read, "test", root=root)) == QUESTIONS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ": expected two lines of a question, a tab, and Yes or No"),
        (b"Is it?\tYes\n", ": expected two lines"),
        (b"Is it?\tYes\nIs it not?\tNo\nWhy?\tNo\n", ": expected two lines"),
        (b"Is it? Yes\nIs it not?\tNo\n", ": expected two lines"),
        (b"Is it?\tYes\nIs it not?\tMaybe\n", ": answer is Maybe; it must be Yes or No"),
        (b"Please answer yes or no.\tYes\nIs it not?\tNo\n", ": a question is empty"),
        (b"Is it?\tYes\nIs it \xff?\tNo\n", ": not UTF-8 at byte 17 (line 2)"),
    ],
)
def test_texts_of_another_shape(root, content, message):
    write(root / FOLDER / TEXT, content)
    assert refusal(read, "test", root=root).startswith(f"{root}/{FOLDER}/{TEXT}{message}")


def test_a_missing_picture(root):
    (root / FOLDER / PICTURES[1]).unlink()
    message = refusal(read, "test", root=root)
    assert message.startswith(
        f"{root}/{FOLDER}/artwork/questions_answers_YN/10002.txt: image artwork/images/10002.jpg "
    )
    assert "(1 of 3 images are missing)" in message


def test_two_pictures_of_one_name(root):
    write(root / FOLDER / "existence" / "questions_answers_YN" / "000000006040.txt", TEXTS[TEXT].encode())
    write_photos(root / FOLDER / "existence" / "images", "000000006040.jpg")
    assert "id existence/000000006040.jpg#0 stands in " in refusal(read, "test", root=root)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    root = tmp_path_factory.mktemp("fuzzed")
    write_set(root)
    return root


@FUZZ
@given(content=damaged(TEXTS[TEXT].encode()))
def test_whatever_stands_in_a_text(fuzzed, content):
    write(fuzzed / FOLDER / TEXT, content)
    read_or_refuse(read, "test", root=fuzzed)
