"""SEED-Bench: exact letters, accuracy by kind of question, and its `evaluate` module."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_llava_vqa.metrics.seed.seed_rules import score

QUESTIONS = [
    {"answer": "A", "question_type": 1, "data_type": "image"},
    {"answer": "B", "question_type": 1, "data_type": "image"},
    {"answer": "C", "question_type": 10, "data_type": "video"},
]


def test_accuracy_by_kind_of_question():
    assert score(["A", "A", "C"], QUESTIONS) == {
        "accuracy": pytest.approx(2 / 3),
        "image_accuracy": 0.5,
        "video_accuracy": 1,
        "by_question_type": {"1": 0.5, "10": 1},
        "n": 3,
    }


@pytest.mark.parametrize("text", ["a", "A.", " A", "A\n", "(A)", "", "A. yes"])
def test_only_the_letter_itself_is_right(text):
    assert score([text], ["A"])["accuracy"] == 0
    assert score(["A"], ["A"])["accuracy"] == 1


def test_pictures_only():
    result = score(["A", "B"], QUESTIONS[:2])
    assert (result["image_accuracy"], result["video_accuracy"]) == (1, None)


@given(st.lists(st.tuples(st.sampled_from("ABCDE"), st.sampled_from("ABCD")), min_size=1))
def test_accuracy_is_the_share_of_equal_letters(pairs):
    predictions, references = zip(*pairs, strict=True)
    equal = sum(prediction == reference for prediction, reference in pairs)
    assert score(predictions, references)["accuracy"] == pytest.approx(equal / len(pairs))


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("E", r"references\[0\].answer: expected 'A' or 'B' or 'C' or 'D', got 'E'"),
        ({"answer": "A", "data_type": "text"}, r"references\[0\].data_type: expected 'image' or 'video'"),
        ({"answer": "A", "question_type": 1.5}, r"references\[0\].question_type: expected a string or an integer"),
    ],
)
def test_bad_references_name_the_place(reference, message):
    with pytest.raises(ValueError, match=message):
        score(["A"], [reference])


def test_module_computes_what_score_does(load_metric):
    module = load_metric("seed")
    module.add_batch(predictions=["A", "A"], references=QUESTIONS[:2])
    module.add(prediction="C", reference=QUESTIONS[2])
    assert module.compute() == score(["A", "A", "C"], QUESTIONS)
