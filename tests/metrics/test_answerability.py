"""Answerability: against the official scorer's outputs, its definition, and its `evaluate` module."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_llava_vqa.metrics.answerability.answerability_rules import score

GOLDEN = Path(__file__).parents[1] / "golden" / "scorers" / "answerability.jsonl"
ROWS = [json.loads(line) for line in GOLDEN.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_scores_equal_the_official_ones(row):
    result = score(row["predicted_answerable"], row["answerable"])
    official, unrounded = row["score"]["vizwiz_official"], row["score"]["raw"]
    assert result["average_precision"] == pytest.approx(unrounded["average_precision"], abs=1e-9)
    assert result["f1"] == pytest.approx(unrounded["f1"], abs=1e-9)
    assert result["average_precision_percent"] == official["average_precision"]
    assert result["f1_percent"] == official["f1_score"]
    assert (result["n"], result["unanswerable"]) == (len(row["answerable"]), row["answerable"].count(0))


def test_exactly_half_counts_as_answerable():
    assert score([0.5, 0.49], [0, 0])["f1"] == pytest.approx(2 / 3)


def test_nothing_to_find_is_nothing_found():
    result = score([0.1, 0.9], [1, 1])
    assert (result["average_precision"], result["f1"], result["unanswerable"]) == (0, 0, 0)


rankings = st.lists(st.tuples(st.sampled_from([0, 0.25, 0.5, 0.75, 1]), st.integers(0, 1)), min_size=1, max_size=30)


@given(rows=rankings, data=st.data())
def test_order_does_not_matter_and_scores_are_fractions(rows, data):
    result = score(*map(list, zip(*rows, strict=True)))
    assert 0 <= result["f1"] <= 1
    assert 0 <= result["average_precision"] <= 1 + 1e-12
    shuffled = score(*map(list, zip(*data.draw(st.permutations(rows)), strict=True)))
    assert shuffled == pytest.approx(result)


@given(st.integers(1, 30), st.data())
def test_one_tie_of_all_has_the_precision_of_chance(n, data):
    answerable = data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    assert score([0.3] * n, answerable)["average_precision"] == pytest.approx(answerable.count(0) / n)


def test_pairs_by_id():
    references = [{"id": "a", "answerable": 0}, {"id": "b", "answerable": 1}]
    predictions = [{"id": "b", "prediction": 0.9}, {"id": "a", "prediction": 0.1}]
    assert score(predictions, references)["average_precision"] == 1


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([], [], "references: expected 1 or more entries, got 0"),
        ([0.5], [1, 0], "got 1 for 2"),
        (None, [1], "predictions: expected a list, got None"),
        ([0.5, math.nan], [1, 0], r"predictions\[1\]: expected a finite number, got nan"),
        ([0.5, "yes"], [1, 0], r"predictions\[1\]: expected a finite number, got 'yes'"),
        ([1.5], [1], r"predictions\[0\]: expected a number from 0 to 1, got 1.5"),
        ([0.5], [-1], r"references\[0\].answerable: expected 0 or 1, got -1"),
        ([0.5], ["1"], r"references\[0\].answerable: expected 0 or 1, got '1'"),
        ([0.5], [{"id": "a"}], r"references\[0\]: expected a value under 'answerable'"),
        ([0.5] * 2, [{"id": "a", "answerable": 1}] * 2, r"references\[1\]: the id 'a' is that of references\[0\]"),
    ],
)
def test_bad_input_is_one_line_with_the_place(predictions, references, message):
    with pytest.raises(ValueError, match=message) as caught:
        score(predictions, references)
    assert "\n" not in str(caught.value)


def test_module_computes_what_score_does(load_metric):
    module = load_metric("answerability")
    predictions, references = ROWS[1]["predicted_answerable"], ROWS[1]["answerable"]
    assert module.compute(predictions=predictions, references=references) == score(predictions, references)
    for prediction in predictions[:2]:
        module.add(prediction=prediction, reference={"id": "x", "answerable": 1})
    with pytest.raises(ValueError, match=r"references\[1\]: the id 'x'"):
        module.compute()
