"""LLaVA-Bench: requests to the judge, the aggregation of its replies, and the `evaluate` module."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_llava_vqa.metrics.llava_bench.llava_bench_rules import judge_requests, parse_reply, read_reviews, score

QUESTIONS = [
    {"question_id": 0, "image": "001.jpg", "text": "What is it?", "category": "conv"},
    {"question_id": 1, "image": "001.jpg", "text": "Describe it.", "category": "detail"},
]
CONTEXTS = [{"image": "001.jpg", "caption": ["A red kite.", "On a beach."]}]
RULES = {
    "llava_bench_conv": {"role": "Assistant", "prompt": "Rate them."},
    "llava_bench_detail": {"role": "Helper", "prompt": "Rate them well."},
}
FIRST = [{"question_id": 1, "text": "A kite."}, {"question_id": 0, "text": "A red kite."}]
SECOND = [{"question_id": 0, "text": "A boat."}, {"question_id": 1, "text": "The sea."}]


def test_requests_pair_answers_by_id_and_show_the_reference_first():
    conversation, detail = judge_requests(QUESTIONS, CONTEXTS, FIRST, SECOND, RULES)
    assert (conversation["question_id"], conversation["category"]) == ("0", "llava_bench_conv")
    assert (conversation["model"], conversation["temperature"], conversation["max_tokens"]) == ("gpt-4-0314", 0.2, 1024)
    system, user = conversation["messages"]
    assert (system["role"], user["role"]) == ("system", "user")
    assert user["content"] == (
        "[Context]\nA red kite.\nOn a beach.\n\n"
        "[Question]\nWhat is it?\n\n"
        "[Assistant 1]\nA red kite.\n\n[End of Assistant 1]\n\n"
        "[Assistant 2]\nA boat.\n\n[End of Assistant 2]\n\n"
        "[System]\nRate them.\n\n"
    )
    assert "[Helper 2]\nThe sea." in detail["messages"][1]["content"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"contexts": []}, r"questions\[0\]: there is no context of the image '001.jpg'"),
        ({"reference_answers": FIRST[:1]}, r"questions\[0\]: there is no reference answer to '0'"),
        ({"answers": SECOND[:1]}, r"questions\[1\]: there is no answer to '1'"),
        ({"rules": {}}, r"questions\[0\]: there is no rule for 'llava_bench_conv'"),
        ({"rules": {"llava_bench_conv": {}}}, "rules.llava_bench_conv: expected a value under 'role'"),
        ({"questions": [{"question_id": 0}]}, r"questions\[0\]: expected a value under 'image'"),
        ({"answers": [{"question_id": 0, "text": 5}]}, r"answers\[0\].text: expected a string, got 5"),
    ],
)
def test_what_is_missing_is_named(changes, message):
    arguments = {
        "questions": QUESTIONS,
        "contexts": CONTEXTS,
        "reference_answers": FIRST,
        "answers": SECOND,
        "rules": RULES,
    } | changes
    with pytest.raises(ValueError, match=message):
        judge_requests(**arguments)


@pytest.mark.parametrize(
    ("reply", "scores"),
    [("8 7", (8, 7)), ("8 6.5\nBoth are fine.", (8, 6.5)), ("8,7", (8, 7)), ("8, 7\n", (8, 7)), ("10 0", (10, 0))],
)
def test_scores_stand_on_the_first_line(reply, scores):
    assert parse_reply(reply) == scores


UNREADABLE = ["", "8", "8 7 6", "eight seven", "\n8 7", "8/10 7/10", "11 7", "8 -1", "nan 7", "8 inf"]


@pytest.mark.parametrize("reply", UNREADABLE)
def test_a_reply_without_two_scores_names_its_place(reply):
    with pytest.raises(ValueError, match=r"predictions\[1\]: expected two scores from 0 to 10") as caught:
        score(["8 7", reply], ["conv", "conv"])
    assert "\n" not in str(caught.value)


def test_aggregation_is_the_official_one():
    result = score(["8 7", "9 3", "9 9\nWell done."], ["conv", "detail", "conv"])
    assert result["relative_score"] == pytest.approx(19 / 26)
    assert (result["reference_mean"], result["model_mean"], result["n"]) == (pytest.approx(26 / 3), 19 / 3, 3)
    assert result["relative_percent"] == round(6.333 / 8.667 * 100, 1)
    assert result["by_category"]["conv"]["relative_score"] == pytest.approx(16 / 17)
    assert result["by_category"]["detail"] == {
        "relative_score": pytest.approx(1 / 3),
        "relative_percent": 33.3,
        "reference_mean": 9,
        "model_mean": 3,
        "n": 1,
    }


def test_a_reference_of_nothing_but_zeros_has_no_relative_score():
    result = score(["0 5"], ["conv"])
    assert (result["relative_score"], result["relative_percent"], result["model_mean"]) == (None, None, 5)


@given(st.lists(st.tuples(st.integers(1, 10), st.integers(0, 10), st.sampled_from(["conv", "detail"])), min_size=1))
def test_equal_scores_are_a_hundred_percent_and_order_does_not_matter(judged):
    replies = [f"{reference} {model}" for reference, model, _ in judged]
    categories = [category for *_, category in judged]
    assert score(replies[::-1], categories[::-1]) == score(replies, categories)
    assert score([f"{reference} {reference}" for reference, *_ in judged], categories)["relative_percent"] == 100


def test_review_files_of_llava():
    lines = [
        {"question_id": 1, "category": "llava_bench_conv", "content": "8 7\nGood.", "tuple": [8.0, 7.0]},
        {"question_id": 2, "category": "llava_bench_detail", "content": "9 3", "tuple": [9.0, 3.0]},
    ]
    assert score(*read_reviews(lines)) == score(["8 7", "9 3"], ["conv", "detail"])
    with pytest.raises(ValueError, match=r"lines\[0\]: expected a value under 'content'"):
        read_reviews([{"question_id": 1, "category": "llava_bench_conv"}])
    with pytest.raises(ValueError, match=r"references\[1\]: the id '1' is that of references\[0\] too"):
        score(*read_reviews([lines[0], lines[0]]))


def test_module_computes_what_score_does(load_metric):
    replies, categories = ["8 7", "9 3"], ["conv", "detail"]
    assert load_metric("llava_bench").compute(predictions=replies, references=categories) == score(replies, categories)
    with pytest.raises(ValueError, match=r"predictions\[1\]: expected two scores"):
        load_metric("llava_bench").compute(predictions=["8 7", "no idea"], references=categories)
