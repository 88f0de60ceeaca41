"""MME: scores by hand, what is read as yes and no, and its `evaluate` module."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_llava_vqa.metrics.mme.mme_rules import COGNITION, PERCEPTION, parse_answer, score


def questions(pictures, category="count"):
    answers = [("yes", "no")] * pictures
    return [
        {"answer": answer, "image": f"{number}.jpg", "category": category}
        for number, pair in enumerate(answers)
        for answer in pair
    ]


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("yes", "yes"),
        ("YES.", "yes"),
        (" Yes, it is", "yes"),
        ("No", "no"),
        ("no\n", "no"),
        ("nothing", "no"),
        ("know", "no"),
        ("  no", "no"),
        ("   no", "other"),
        ("", "other"),
        ("It is not", "other"),
        ("I see no dog", "other"),
    ],
)
def test_the_first_four_characters_decide(text, parsed):
    assert parse_answer(text) == parsed


def test_scores_by_hand():
    result = score(["Yes", "No", "yes", "yes", "maybe", "no"], questions(3))
    count = result["by_category"]["count"]
    assert count == pytest.approx({"accuracy": 4 / 6, "accuracy_plus": 1 / 3, "score": 100})
    assert result["perception"] == pytest.approx(100)
    assert (result["cognition"], result["n"]) == (None, 6)


def test_totals_add_up_the_categories():
    references = [row for name in (*PERCEPTION, *COGNITION) for row in questions(1, name)]
    result = score(["yes", "no"] * 14, references)
    assert (result["perception"], result["cognition"]) == (2000, 800)
    assert list(result["by_category"]) == [*PERCEPTION, *COGNITION]


def test_one_name_of_a_picture_in_two_categories_is_two_pictures():
    result = score(["yes", "no", "no", "no"], questions(1, "count") + questions(1, "color"))
    assert result["by_category"]["color"]["accuracy_plus"] == 0
    assert result["by_category"]["count"]["accuracy_plus"] == 1


@given(st.lists(st.sampled_from(["yes", "no", "?"]), min_size=4, max_size=4))
def test_accuracy_plus_never_exceeds_accuracy(answers):
    count = score(answers, questions(2))["by_category"]["count"]
    assert 0 <= count["accuracy_plus"] <= count["accuracy"] <= 1


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("yes", r"references\[0\]: expected a dict with answer, image, category"),
        ({"answer": "maybe", "image": "1", "category": "count"}, r"references\[0\].answer: expected 'yes' or 'no'"),
        ({"answer": "yes", "image": 1, "category": "count"}, r"references\[0\].image: expected a string, got 1"),
        ({"answer": "yes", "image": "1", "category": "ocr"}, r"references\[0\].category: expected 'existence' or"),
        ({"answer": "yes", "image": "1", "category": "OCR"}, "expected two questions to '1' in OCR, got 1"),
    ],
)
def test_bad_references_name_the_place(reference, message):
    with pytest.raises(ValueError, match=message):
        score(["yes"], [reference])


def test_module_computes_what_score_does(load_metric):
    texts = ["Yes", "No", "yes", "yes"]
    references = [row | {"answer": row["answer"].title(), "id": index} for index, row in enumerate(questions(2))]
    by_id = [{"id": index, "prediction": texts[index]} for index in (3, 1, 0, 2)]
    assert load_metric("mme").compute(predictions=by_id, references=references) == score(texts, references)
