"""Rows of a metric: every mistake named by its place, pairs by id, averages by label."""

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_llava_vqa.metrics.pope.rows import (
    flag,
    identifier,
    integer,
    list_of,
    mean,
    mean_by,
    named,
    number,
    one_of,
    pair,
    row_of,
    text,
)

read_row = row_of({"answer": text}, {"kind": integer})


@pytest.mark.parametrize(
    ("read", "value", "plain"),
    [
        (text, "a", "a"),
        (integer, np.int64(3), 3),
        (number, 1, 1.0),
        (number, np.float32(0.5), 0.5),
        (flag, False, False),
        (identifier, 7, "7"),
        (identifier, "v1_7", "v1_7"),
        (one_of("a", "b"), "b", "b"),
        (list_of(text), ("a", "b"), ["a", "b"]),
        (list_of(integer), np.array([1, 2]), [1, 2]),
        (read_row, "a", {"answer": "a", "id": None, "kind": None}),
        (read_row, {"answer": "a", "id": 1, "kind": 2, "other": 3}, {"answer": "a", "id": "1", "kind": 2}),
        (read_row, {"answer": "a", "kind": None}, {"answer": "a", "id": None, "kind": None}),
    ],
)
def test_readers_return_plain_values(read, value, plain):
    assert read(value, "here") == plain
    assert type(read(value, "here")) is type(plain)


@pytest.mark.parametrize(
    ("read", "value", "message"),
    [
        (text, 3, "here: expected a string, got 3"),
        (text, None, "here: expected a string, got None"),
        (text, b"a", "here: expected a string, got b'a'"),
        (text, float("nan"), "here: expected a string, got nan"),
        (integer, True, "here: expected an integer, got True"),
        (integer, 1.0, "here: expected an integer, got 1.0"),
        (number, float("nan"), "here: expected a finite number, got nan"),
        (number, float("inf"), "here: expected a finite number, got inf"),
        (number, "1", "here: expected a finite number, got '1'"),
        (flag, 1, "here: expected True or False, got 1"),
        (identifier, 1.5, "here: expected a string or an integer, got 1.5"),
        (identifier, False, "here: expected a string or an integer, got False"),
        (one_of("a", "b"), "c", "here: expected 'a' or 'b', got 'c'"),
        (one_of("a", "b"), ["a"], r"here: expected 'a' or 'b', got \['a'\]"),
        (list_of(text), "ab", "here: expected a list, got 'ab'"),
        (list_of(text), {"a": 1}, "here: expected a list, got {'a': 1}"),
        (list_of(text), None, "here: expected a list, got None"),
        (list_of(text), ["a", 3], r"here\[1\]: expected a string, got 3"),
        (list_of(text, at_least=2), ["a"], "here: expected 2 or more entries, got 1"),
        (read_row, 3, "here.answer: expected a string, got 3"),
        (read_row, None, "here: expected a value under 'answer'"),
        (read_row, {"kind": 1}, "here: expected a value under 'answer', got {'kind': 1}"),
        (read_row, {"answer": "a", "kind": "b"}, "here.kind: expected an integer, got 'b'"),
        (row_of({"a": text, "b": text}, {}), "x", "here: expected a dict with a, b, got 'x'"),
    ],
)
def test_readers_name_the_place_and_what_was_expected(read, value, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(value, "here")
    assert "\n" not in str(caught.value)


def test_predictions_without_ids_are_paired_in_order():
    predictions, rows = pair(["x", "y"], ["a", {"answer": "b", "id": 1}], read_row)
    assert predictions == ["x", "y"]
    assert [row["answer"] for row in rows] == ["a", "b"]


@given(st.permutations(range(6)), st.permutations(range(6)))
def test_predictions_with_ids_are_paired_by_id(of_predictions, of_references):
    predictions = [{"id": name, "prediction": f"to {name}"} for name in of_predictions]
    references = [{"id": str(name), "answer": f"to {name}"} for name in of_references]
    before = copy.deepcopy((predictions, references))
    paired, rows = pair(predictions, references, read_row)
    assert paired == [row["answer"] for row in rows] == [f"to {name}" for name in of_references]
    assert (predictions, references) == before


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([], ["a"], "predictions: expected 1 or more entries, got 0"),
        (["x"], [], "references: expected 1 or more entries, got 0"),
        ("x", ["a"], "predictions: expected a list, got 'x'"),
        (["x"], "a", "references: expected a list, got 'a'"),
        (["x", "y"], ["a"], "expected one prediction for each reference, got 2 for 1"),
        (["x", 3], ["a", "b"], r"predictions\[1\]: expected a string, got 3"),
        (["x", None], ["a", "b"], r"predictions\[1\]: expected a string, got None"),
        (["x", "y"], ["a", float("nan")], r"references\[1\].answer: expected a string, got nan"),
        (
            ["x", "y"],
            [{"id": 1, "answer": "a"}, {"id": "1", "answer": "b"}],
            r"references\[1\]: the id '1' is that of references\[0\] too",
        ),
        (
            [{"id": 1, "prediction": "x"}, {"id": 1, "prediction": "y"}],
            [{"id": 1, "answer": "a"}, {"id": 2, "answer": "b"}],
            r"predictions\[1\]: the id '1' is that of predictions\[0\] too",
        ),
        ([{"id": 2, "prediction": "x"}], [{"id": 1, "answer": "a"}], r"predictions\[0\]: no reference has the id '2'"),
        ([{"id": 1, "prediction": "x"}], ["a"], r"predictions\[0\]: no reference has the id '1'"),
        ([{"prediction": "x"}], [{"id": 1, "answer": "a"}], r"predictions\[0\]: expected a dict with id and predic"),
        ([{"id": 1}], [{"id": 1, "answer": "a"}], r"predictions\[0\].prediction: expected a string, got None"),
        (
            [{"id": 2, "prediction": 5}, {"id": 1, "prediction": "x"}],
            [{"id": 1, "answer": "a"}, {"id": 2, "answer": "b"}],
            r"predictions\[0\].prediction: expected a string, got 5",
        ),
        (
            [{"id": 1, "prediction": "x"}, "y"],
            [{"id": 1, "answer": "a"}, {"id": 2, "answer": "b"}],
            r"predictions\[1\]: expected a dict with id and prediction, got 'y'",
        ),
        (
            ["x", {"id": 1, "prediction": "y"}],
            [{"id": 1, "answer": "a"}, {"id": 2, "answer": "b"}],
            r"predictions\[1\]: expected a string",
        ),
    ],
)
def test_bad_pairs_are_one_line_with_the_place(predictions, references, message):
    with pytest.raises(ValueError, match=message) as caught:
        pair(predictions, references, read_row)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["c", None, ["a"]])
def test_unknown_names_list_those_there_are(name):
    assert named({"a": 1, "b": 2}, "b", "variant") == 2
    with pytest.raises(ValueError, match=r"no variant named .*; there is: a, b"):
        named({"a": 1, "b": 2}, name, "variant")


def test_averages_by_label_are_sorted_and_leave_none_out():
    assert mean_by([1.0, 0.0, 1.0, 0.5], ["b", "a", "b", None]) == {"a": 0.0, "b": 1.0}
    assert list(mean_by([1.0, 0.0], ["b", "a"])) == ["a", "b"]
    assert mean([0.1] * 10) == 0.1
