"""ScienceQA: against LLaVA's and lmms-eval's outputs, groups by hand, and its `evaluate` module."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_llava_vqa.metrics.scienceqa.scienceqa_rules import LETTERS, VARIANTS, parse_llava, score


@pytest.fixture(scope="module")
def rows(golden):
    return golden("scienceqa.jsonl")


def inputs(rows):
    references = [
        {"answer": row["answer"], "choices": list("vwxyz")[: row["n_choices"]], "has_image": row["is_multimodal"]}
        for row in rows
    ]
    return [row["text"] for row in rows], references


def test_letters_are_read_as_llava_reads_them(rows):
    assert [parse_llava(row["text"]) or "FAILED" for row in rows] == [row["out"]["llava_parsed"] for row in rows]


def test_each_answer_scores_as_in_the_references(rows):
    for row in rows:
        references = [{"answer": gold, "choices": ["x"] * row["n_choices"]} for gold in range(row["n_choices"])]
        by_gold = [score([row["text"]], [reference], "lmms")["accuracy"] for reference in references]
        assert by_gold == row["out"]["lmms_correct_by_gold"], row["id"]
        assert score([row["text"]], [references[row["answer"]]])["accuracy"] == row["out"]["llava_correct"], row["id"]


def test_aggregates_equal_the_references(rows, golden):
    expected = golden("scienceqa_aggregate.json")
    result = score(*inputs(rows))
    assert 100 * result["accuracy"] == pytest.approx(expected["accuracy"], abs=1e-9)
    assert 100 * result["image_accuracy"] == pytest.approx(expected["img_accuracy"], abs=1e-9)
    assert (result["n"], result["n_image"]) == (expected["total"], expected["img_total"])
    assert score(*inputs(rows), "lmms")["accuracy"] == pytest.approx(expected["lmms"], abs=1e-9)


def test_groups():
    questions = [
        {
            "answer": 0,
            "choices": ["x", "y"],
            "has_image": True,
            "hint": "A map.",
            "subject": "social",
            "grade": "grade6",
        },
        {"answer": 1, "choices": ["x", "y"], "has_image": False, "hint": "", "subject": "natural", "grade": "grade7"},
        {"answer": 0, "choices": ["x", "y"], "has_image": True, "hint": "", "subject": "natural", "grade": "grade1"},
        {"answer": 0, "choices": ["x", "y"]},
    ]
    result = score(["A", "A", "B", "A"], questions)
    assert result["by_subject"] == {"natural": 0, "social": 1}
    assert result["by_context"] == {"TXT": 1, "IMG": 0.5, "NO": 0}
    assert result["by_grade"] == {"G1-6": 0.5, "G7-12": 0}
    assert (result["accuracy"], result["image_accuracy"], result["n_image"]) == (0.5, 0.5, 2)


def test_without_an_image_there_is_no_image_accuracy():
    result = score(["A"], [{"answer": 0, "choices": ["x"], "has_image": False}])
    assert (result["image_accuracy"], result["n_image"]) == (None, 0)


@given(st.text("ABF. ab", max_size=6), st.sampled_from(sorted(VARIANTS)))
def test_an_answer_is_right_for_one_choice_at_most(answer, variant):
    references = [{"answer": index, "choices": ["x"] * len(LETTERS)} for index in range(len(LETTERS))]
    assert sum(score([answer], [reference], variant)["accuracy"] for reference in references) <= 1


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("A", r"references\[0\]: expected a dict with answer, choices, got 'A'"),
        ({"answer": 0}, r"references\[0\]: expected a value under 'choices'"),
        ({"answer": "A", "choices": ["x"]}, r"references\[0\].answer: expected an integer, got 'A'"),
        ({"answer": 2, "choices": ["x", "y"]}, r"references\[0\]: expected the index of .* got 2 for 2 choices"),
        ({"answer": -1, "choices": ["x", "y"]}, r"references\[0\]: expected the index of .* got -1 for 2 choices"),
        ({"answer": 0, "choices": ["x"] * 6}, r"references\[0\]: .* at most 5 choices, got 0 for 6 choices"),
        ({"answer": 0, "choices": []}, r"references\[0\].choices: expected 1 or more entries"),
        ({"answer": 0, "choices": ["x"], "has_image": 1}, r"references\[0\].has_image: expected True or False"),
        ({"answer": 0, "choices": ["x"], "grade": "6"}, r"references\[0\].grade: expected 'grade1' or"),
    ],
)
def test_bad_references_name_the_place(reference, message):
    with pytest.raises(ValueError, match=message):
        score(["A"], [reference])


def test_unknown_variant():
    with pytest.raises(ValueError, match="no variant named 'vqa'; there is: llava, lmms"):
        score(["A"], [{"answer": 0, "choices": ["x"]}], "vqa")


def test_module_computes_what_score_does(rows, load_metric):
    texts, references = inputs(rows)
    module = load_metric("scienceqa")
    assert module.compute(predictions=texts, references=references, variant="lmms") == score(texts, references, "lmms")
