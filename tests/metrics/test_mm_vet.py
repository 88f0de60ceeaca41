"""MM-Vet: answers for its grader, the aggregation of the grades, and the `evaluate` module."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_llava_vqa.metrics.mm_vet.mm_vet_rules import answers_for_grader, read_grades, score

NEEDS = [["ocr", "math"], ["rec"], ["math", "ocr"], ["ocr"]]


def test_aggregation_is_the_official_one():
    result = score([[1.0, 0.5], [0.0, 0.0], [0.5, 1.0], [0.2, 0.1]], NEEDS)
    runs = [1.7 / 4, 1.6 / 4]
    assert result["runs"] == pytest.approx(runs)
    assert result["score"] == pytest.approx(sum(runs) / 2)
    assert result["standard_deviation"] == pytest.approx(np.std(runs))
    assert result["score_percent"] == 41.2
    assert result["by_capability"] == pytest.approx({"math": 0.75, "ocr": 1.65 / 3, "rec": 0})
    assert result["by_integration"] == pytest.approx({"math_ocr": 0.75, "ocr": 0.15, "rec": 0})
    assert result["n"] == 4


def test_one_run_can_be_given_as_numbers():
    assert score([1, 0.5, np.float32(0.5), 0], NEEDS) == score([[1.0], [0.5], [0.5], [0.0]], NEEDS)


grades = st.floats(0, 1)


@given(st.lists(st.tuples(st.lists(grades, min_size=2, max_size=2), st.sampled_from(NEEDS)), min_size=1))
def test_scores_are_between_the_lowest_and_the_highest_grade(graded):
    predictions, references = zip(*graded, strict=True)
    result = score(predictions, references)
    low, high = min(map(min, predictions)), max(map(max, predictions))
    parts = [result["score"], *result["by_capability"].values(), *result["by_integration"].values()]
    assert all(low - 1e-12 <= part <= high + 1e-12 for part in parts)


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([1.5], [["ocr"]], r"predictions\[0\]: expected a grade from 0 to 1, got 1.5"),
        ([[0.5, -0.1]], [["ocr"]], r"predictions\[0\]\[1\]: expected a grade from 0 to 1, got -0.1"),
        ([float("nan")], [["ocr"]], r"predictions\[0\]: expected a finite number, got nan"),
        ([True], [["ocr"]], r"predictions\[0\]: expected a finite number, got True"),
        (["0.5"], [["ocr"]], r"predictions\[0\]: expected a list, got '0.5'"),
        ([[]], [["ocr"]], r"predictions\[0\]: expected 1 or more entries, got 0"),
        ([[0.5], [0.5, 0.5]], [["ocr"]] * 2, r"references\[1\]: expected 1 grades, as before, got 2"),
        ([0.5], ["ocr"], r"references\[0\].capabilities: expected a list, got 'ocr'"),
        ([0.5], [[]], r"references\[0\].capabilities: expected 1 or more entries, got 0"),
    ],
)
def test_bad_input_names_the_place(predictions, references, message):
    with pytest.raises(ValueError, match=message):
        score(predictions, references)


def test_answers_for_the_grader():
    assert answers_for_grader([{"question_id": 0, "text": "a"}, {"question_id": "v1_1", "text": ""}]) == {
        "v1_0": "a",
        "v1_1": "",
    }


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (
            [{"question_id": 0, "text": "a"}, {"question_id": "v1_0", "text": "b"}],
            r"answers\[1\]: expected ids that differ, got 'v1_0' again",
        ),
        ([{"question_id": 0, "text": None}], r"answers\[0\]: expected a value under 'text'"),
        ([{"question_id": 0, "text": 1}], r"answers\[0\].text: expected a string, got 1"),
    ],
)
def test_bad_answers_name_the_place(answers, message):
    with pytest.raises(ValueError, match=message):
        answers_for_grader(answers)


QUESTIONS = {"v1_0": {"question": "?", "capability": ["ocr", "math"]}, "v1_1": {"question": "?", "capability": ["rec"]}}


def test_grade_files_of_the_grader():
    file = {
        "v1_1": {"model": ["gpt-4"], "content": ["0.5"], "score": [0.5]},
        "v1_0": {"model": ["gpt-4"], "content": ["1.0"], "score": [1.0]},
    }
    assert score(*read_grades(file, QUESTIONS)) == score([1.0, 0.5], [["ocr", "math"], ["rec"]])
    with pytest.raises(ValueError, match="expected one prediction for each reference, got 1 for 2"):
        score(*read_grades({"v1_0": file["v1_0"]}, QUESTIONS))
    with pytest.raises(ValueError, match=r"grades\.v1_0: expected a value under 'score'"):
        read_grades({"v1_0": {}}, QUESTIONS)
    with pytest.raises(ValueError, match=r"questions\.v1_0: expected a value under 'capability'"):
        read_grades(file, {"v1_0": {}})


def test_module_computes_what_score_does(load_metric):
    module = load_metric("mm_vet")
    module.add(prediction=1, reference=["ocr"])
    module.add_batch(predictions=[{"id": 5, "prediction": [0.5]}], references=[{"id": 5, "capabilities": ["rec"]}])
    assert module.compute() == score([1, 0.5], [["ocr"], ["rec"]])
