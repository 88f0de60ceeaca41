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
    trained_texts,
    write,
    write_photos,
    zip_up,
)

from hf_llava_vqa.collate import prompt_turns
from hf_llava_vqa.data import load_records
from hf_llava_vqa.data.benchmarks.scienceqa import read
from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.images import open_image
from hf_llava_vqa.metrics.scienceqa.scienceqa_rules import score


def problem(question, choices, answer, *, hint="", image=None, split="train"):
    return {
        "question": question,
        "choices": choices,
        "answer": answer,
        "hint": hint,
        "image": image,
        "task": "closed choice",
        "grade": "grade2",
        "subject": "natural science",
        "topic": "biology",
        "category": "Animals",
        "skill": "Identify animals",
        "lecture": "Birds have feathers.",
        "solution": "The penguin has feathers.",
        "split": split,
    }


PROBLEMS = {
    "1": problem("Which is a bird?", ["a frog", "a penguin"], 1, image="image.png"),
    "2": problem("Is it wet?", ["yes", "no", "both"], 0, hint="It rains.", split="test"),
    "5": problem("What is missing?", ["food", "air"], 0, hint="The plant grows."),
}
SPLITS = {"train": ["5", "1"], "test": ["2"], "minitrain": ["1"]}


def write_set(root):
    write(root / "problems.json", PROBLEMS)
    write(root / "pid_splits.json", SPLITS)
    write_photos(root / "images" / "train" / "1", "image.png")
    (root / "images" / "test").mkdir(parents=True)


@pytest.fixture
def root(tmp_path):
    write_set(tmp_path / "scienceqa")
    return tmp_path / "scienceqa"


def test_a_problem_is_a_record_with_or_without_picture(root):
    records = read_all(read, "train", root=root)
    assert questions_of(records) == [
        ("5", [("5", "Context: The plant grows.\nWhat is missing?\nA. food\nB. air")]),
        ("1", [("1", "Which is a bird?\nA. a frog\nB. a penguin")]),
    ]
    assert [len(record["images"]) for record in records] == [0, 1]
    (dialogue,) = records[0]["dialogues"]
    assert dialogue["answers"] == [{"answer": "A", "answer_confidence": ""}]
    assert (dialogue["choices"], dialogue["context"]) == (["food", "air"], "The plant grows.")
    kept = json.loads(dialogue["metadata"])
    assert (kept["question"], kept["solution"]) == ("What is missing?", "The penguin has feathers.")


def test_it_is_asked_as_by_llava(root):
    records = load_records("scienceqa", split="train", root=root)
    (turn,) = prompt_turns(records[1], records[1]["dialogues"][0])
    assert turn["content"] == (
        "<image>\nWhich is a bird?\nA. a frog\nB. a penguin\n"
        "Answer with the option's letter from the given choices directly."
    )


def test_training_asks_and_answers_by_letter(root, tiny_llava):
    text_only, pictured = trained_texts(load_records("scienceqa", split="train", root=root), tiny_llava)
    assert text_only[0].endswith(
        "questions. USER: Context: The plant grows.\nWhat is missing?\nA. food\nB. air\n"
        "Answer with the option's letter from the given choices directly. ASSISTANT: A</s>"
    )
    assert "USER: <image>" in pictured[0]
    assert (text_only[1], pictured[1]) == ("A</s>", "B</s>")


def test_records_hold_what_the_metric_needs(root):
    (dialogue,) = read_all(read, "train", root=root)[1]["dialogues"]
    kept = json.loads(dialogue["metadata"])
    reference = {"answer": kept["answer"], "choices": dialogue["choices"], "hint": dialogue["context"]}
    assert score([dialogue["answers"][0]["answer"]], [reference])["accuracy"] == 1


def test_archives_as_downloaded(root):
    expected = questions_of(read_all(read, "train", root=root))
    zip_up(root / "images" / "train.zip", root / "images" / "train")
    records = read_all(read, "train", root=root)
    assert questions_of(records) == expected
    assert open_image(records[1]["images"][0]).mode == "RGB"


def test_files_named_one_by_one(root):
    paths = {
        "annotations": root / "problems.json",
        "splits": root / "pid_splits.json",
        "images": root / "images" / "train",
    }
    assert read_all(read, "train", **paths) == read_all(read, "train", root=root)
    for missing in paths:
        with pytest.raises(ConfigError, match=missing):
            list(read("train", **{name: path for name, path in paths.items() if name != missing}))


def test_a_byte_order_mark_is_skipped(root):
    mark_byte_order(*root.glob("*.json"))
    assert len(read_all(read, "train", root=root)) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("5"), "/pid_splits.json: problem 5 of train is not in "),
        (lambda d: d.update({"5": []}), "/problems.json, problem 5: expected {"),
        (lambda d: d["5"].pop("question"), "/problems.json, problem 5: question must be a string, found nothing"),
        (lambda d: d["5"].pop("choices"), "/problems.json, problem 5: choices must be a list, found nothing"),
        (lambda d: d["5"].update(choices=["food"], answer=1), "/problems.json, problem 5: answer 1 of 1 choices"),
        (lambda d: d["5"].update(choices=[]), "/problems.json, problem 5: answer 0 of 0 choices"),
        (lambda d: d["5"].update(choices=["x"] * 6), "/problems.json, problem 5: answer 0 of 6 choices"),
        (lambda d: d["5"].update(answer="A"), "/problems.json, problem 5: answer must be an integer, found a string"),
        (lambda d: d["5"].update(answer=True), "/problems.json, problem 5: answer must be an integer, found a truth v"),
        (lambda d: d["5"].update(hint=5), "/problems.json, problem 5: hint must be a string, found a number"),
        (lambda d: d["5"].update(lecture="\ud800"), "/problems.json, problem 5: a broken character"),
        (lambda d: d["5"].update(image="image.png"), "/problems.json, problem 5: image 5/image.png is not in "),
        (lambda d: d["5"].update(image="../../x.png"), "/problems.json, problem 5: unsafe name '5/../../x.png'"),
    ],
)
def test_problems_of_another_shape(root, change, message):
    assert refusal_after(change, root / "problems.json", read, root=root).startswith(f"{root}{message}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (["1"], "expected {"),
        ({"test": ["2"]}, "train must be a list, found nothing"),
        ({"train": []}, "train has no problems"),
        ({"train": [1]}, "train, entry 0: expected a string, found a number"),
        (b'{"train": ', "broken JSON at line 1, column 11"),
        (b'{"\xff": []}', "not UTF-8 at byte 2"),
    ],
)
def test_splits_of_another_shape(root, content, message):
    write(root / "pid_splits.json", content)
    assert refusal(read, "train", root=root).startswith(f"{root}/pid_splits.json: {message}")


def test_a_problem_listed_twice(root):
    write(root / "pid_splits.json", {"train": ["1", "5", "1"]})
    assert "/problems.json, problem 1: id 1 stands in " in refusal(read, "train", root=root)


def test_answers_are_scored_as_llava_scores_scienceqa(root, tmp_path):
    entry = evaluate("scienceqa", read_all(read, "train", root=root), {"1": "B. a penguin", "5": " A"}, tmp_path)
    assert entry["score"] == 0.5
    assert entry["by"] == {"natural science": 0.5, "TXT": 0.0, "IMG": 1.0, "G1-6": 0.5}
    assert entry["metric"]["image_accuracy"] == 1


def test_grades_outside_school_are_left_out(root, tmp_path):
    write(root / "problems.json", {**PROBLEMS, "5": {**PROBLEMS["5"], "grade": "preschool"}})
    entry = evaluate("scienceqa", read_all(read, "train", root=root), {"1": "A", "5": "A"}, tmp_path)
    assert entry["metric"]["by_grade"] == {"G1-6": 0.0}


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    root = tmp_path_factory.mktemp("fuzzed")
    write_set(root)
    return root


@FUZZ
@given(
    problems=mutated(PROBLEMS) | damaged(json.dumps(PROBLEMS).encode()) | st.just(PROBLEMS),
    splits=mutated(SPLITS) | damaged(json.dumps(SPLITS).encode()) | st.just(SPLITS),
)
def test_whatever_stands_in_the_files(fuzzed, problems, splits):
    write(fuzzed / "problems.json", problems)
    write(fuzzed / "pid_splits.json", splits)
    read_or_refuse(read, "train", root=fuzzed)
