"""POPE: against LLaVA's and lmms-eval's outputs, its properties, and its `evaluate` module."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_llava_vqa.metrics.pope.pope_rules import VARIANTS, parse_answer, score

KEYS = {
    "TP": "true_positives",
    "FP": "false_positives",
    "TN": "true_negatives",
    "FN": "false_negatives",
    "f1_score": "f1",
}


@pytest.fixture(scope="module")
def rows(golden):
    return golden("pope.jsonl")


def inputs(rows):
    return [row["text"] for row in rows], [{"label": row["label"], "category": row["category"]} for row in rows]


def test_answers_are_read_as_the_references_read_them(rows):
    assert [parse_answer(row["text"]) for row in rows] == [row["out"]["llava"] for row in rows]
    strict = [parse_answer(row["text"], "lmms") for row in rows]
    assert strict == [row["out"]["lmms_prediction"] for row in rows]
    correct = [answer == row["label"] for answer, row in zip(strict, rows, strict=True)]
    assert correct == [row["out"]["lmms_correct"] == 1 for row in rows]


@pytest.mark.parametrize("category", ["all", "random", "popular", "adversarial"])
def test_figures_equal_the_references(rows, golden, category):
    expected = golden("pope_aggregate.json")[category]
    for variant in VARIANTS:
        result = score(*inputs(rows), variant)
        measured = result if category == "all" else result["by_category"][category]
        ours = {key: measured[KEYS.get(key, key)] for key in expected[variant]}
        if variant == "lmms":  # which prints the share of yes among the labels, whatever the model says
            ours["yes_ratio"] = measured["label_yes_ratio"]
        assert ours == pytest.approx(expected[variant], abs=1e-9)
        assert measured["n"] == expected["n"]


def test_mean_f1_is_that_of_the_categories(rows):
    result = score(*inputs(rows))
    f1 = [result["by_category"][name]["f1"] for name in ("adversarial", "popular", "random")]
    assert result["mean_f1"] == pytest.approx(sum(f1) / 3)
    assert score(["yes"], ["yes"])["mean_f1"] == 1


@pytest.mark.parametrize("case", ["all_no_pred", "no_positive_labels", "perfect"])
def test_nothing_is_divided_by_zero(golden, case):
    given_case = golden("pope_aggregate.json")["degenerate"][case]
    result = score(given_case["texts"], given_case["labels"])
    expected = dict(given_case["llava"])
    if expected.pop("error", None):  # where the reference fails, what cannot be divided is 0
        expected.update(precision=0, f1_score=0)
    assert {key: result[KEYS.get(key, key)] for key in expected} == expected


def test_strict_answers_count_a_miss_only_if_they_are_no():
    result = score(["yes", "no", "No.", "maybe"], ["yes", "yes", "yes", "no"], "lmms")
    assert (result["true_positives"], result["false_negatives"]) == (1, 1)
    assert (result["accuracy"], result["recall"], result["yes_ratio"]) == (0.25, 0.5, 0.25)


words = st.lists(st.sampled_from(["yes", "no", "No", "not", "a", "dog", "."]), max_size=4).map(" ".join)


@given(st.lists(st.tuples(words, st.sampled_from(["yes", "no"])), min_size=1), st.sampled_from(sorted(VARIANTS)))
def test_figures_are_fractions_and_do_not_depend_on_order(pairs, variant):
    texts, labels = zip(*pairs, strict=True)
    result = score(texts, labels, variant)
    assert all(0 <= result[key] <= 1 for key in ("accuracy", "precision", "recall", "f1", "yes_ratio"))
    assert score(texts[::-1], labels[::-1], variant) == result


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["yes"], ["Yes"]), r"references\[0\].label: expected 'yes' or 'no', got 'Yes'"),
        ((["yes"], [{"category": "random"}]), r"references\[0\]: expected a value under 'label'"),
        ((["yes"], [{"label": "no", "category": 1}]), r"references\[0\].category: expected a string, got 1"),
        ((["yes"], ["yes"], "strict"), "no variant named 'strict'; there is: llava, lmms"),
    ],
)
def test_bad_input_names_the_place(arguments, message):
    with pytest.raises(ValueError, match=message):
        score(*arguments)


def test_module_computes_what_score_does(rows, load_metric):
    texts, references = inputs(rows)
    by_id = [{"id": row["id"], "prediction": row["text"]} for row in reversed(rows)]
    with_ids = [{"id": row["id"], **reference} for row, reference in zip(rows, references, strict=True)]
    expected = score(texts, references, "lmms")
    assert load_metric("pope").compute(predictions=by_id, references=with_ids, variant="lmms") == expected


def test_module_takes_batches_of_both_forms_and_checks_every_row(load_metric):
    module = load_metric("pope")
    module.add_batch(predictions=["yes", "no"], references=["yes", "yes"])
    module.add(prediction="no", reference={"label": "no", "category": "random"})
    assert module.compute() == score(["yes", "no", "no"], ["yes", "yes", {"label": "no", "category": "random"}])
    with pytest.raises(ValueError, match=r"predictions\[1\]: expected a string, got 3"):
        module.compute(predictions=["yes", 3], references=["yes", "no"])


def test_ids_are_checked_across_batches(load_metric):
    module = load_metric("pope")
    for _ in range(2):
        module.add(prediction="yes", reference={"id": 7, "label": "yes"})
    with pytest.raises(ValueError, match=r"references\[1\]: the id '7' is that of references\[0\] too"):
        module.compute()
