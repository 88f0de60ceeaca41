"""GQA: against the official script's and lmms-eval's outputs, each measure by hand, and its `evaluate` module."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_llava_vqa.metrics.gqa.gqa_rules import VARIANTS, convert_llava, read_question, score

COLUMNS = {
    "llava": "official_correct_after_llava_convert",
    "official": "official_correct_raw",
    "lmms": "lmms_exact_match",
}


@pytest.fixture(scope="module")
def rows(golden):
    return golden("gqa.jsonl")


def inputs(rows):
    references = [
        {"answer": row["gold"], "structural": row["structural"], "global_group": f"g{row['structural']}"}
        for row in rows
    ]
    return [row["text"] for row in rows], references


@pytest.mark.parametrize("variant", COLUMNS)
def test_each_answer_scores_as_in_the_references(rows, variant):
    ours = {row["id"]: score([row["text"]], [row["gold"]], variant)["accuracy"] for row in rows}
    assert ours == {row["id"]: row["out"][COLUMNS[variant]] for row in rows}


def test_predictions_are_converted_as_llava_converts_them(rows):
    assert [convert_llava(row["text"]) for row in rows] == [row["out"]["llava_converted"] for row in rows]


def test_aggregates_equal_the_official_script(rows, golden):
    expected = golden("gqa_aggregate.json")
    result = score(*inputs(rows))
    percent = {key: 100 * result[key] for key in expected["exact"]}
    assert percent == pytest.approx(expected["exact"], abs=1e-9)
    printed = {key: round(value, 2) for key, value in percent.items()} | {
        "distribution": round(result["distribution"], 2)
    }
    assert printed == expected["official_script_output_2dp"]


def test_measures_without_their_data_are_none():
    result = score(["left"], ["left"])
    assert result["accuracy"] == 1
    assert {key for key, value in result.items() if value is None} == {
        *("open", "binary", "validity", "plausibility", "consistency", "distribution"),
    }


def question(**changes):
    return {
        "question": "Is the sky blue?",
        "answer": "yes",
        "isBalanced": True,
        "types": {"structural": "verify", "semantic": "attr", "detailed": "verifyAttr"},
        "groups": {"global": None},
        "entailed": [],
        "semantic": [
            {"operation": "select", "argument": "sky (1)"},
            {"operation": "verify color", "argument": "blue"},
            {"operation": "exist", "argument": "?"},
        ],
    } | changes


def test_questions_of_the_official_files():
    row = read_question("7", question(), {"valid": ["yes", "no"], "plausible": ["yes"]})
    assert (row["id"], row["words"], row["steps"]) == ("7", 4, 2)
    query = [{"operation": "query", "argument": "name"}, {"operation": "choose name", "argument": "a|b"}]
    assert read_question("7", question(semantic=query))["steps"] == 0
    result = score(["Yes."], [row])
    assert (result["by_words"], result["by_steps"], result["by_semantic"]) == ({4: 1}, {2: 1}, {"attr": 1})
    assert (result["binary"], result["open"]) == (1, None)


def test_validity_and_plausibility():
    valid = ["red", "blue", "color"]
    questions = [
        {"answer": "red", "valid": valid, "plausible": ["red"]},
        {"answer": "red", "valid": valid, "plausible": ["red"]},
        {"answer": "color", "valid": ["size"], "plausible": ["size"], "detailed": "twoCommon"},
    ]
    result = score(["blue", "seven", "color"], questions)
    assert result["validity"] == pytest.approx(2 / 3)
    assert result["plausibility"] == pytest.approx(1 / 3)


def test_consistency_is_the_accuracy_on_entailed_questions():
    questions = [
        {"id": "a", "answer": "yes", "entailed": ["a", "b", "c"]},
        {"id": "b", "answer": "yes", "entailed": ["a"]},
        {"id": "c", "answer": "yes", "entailed": ["a"], "is_balanced": False},
        {"id": "d", "answer": "yes", "entailed": []},
    ]
    result = score(["yes", "yes", "no", "no"], questions)
    assert result["consistency"] == pytest.approx((0.5 + 1) / 2)
    assert (result["accuracy"], result["n"]) == (pytest.approx(2 / 3), 3)
    assert score(["no"] * 4, questions)["consistency"] is None


def test_distribution_weighs_groups_by_size():
    groups = [("x", "a", "a"), ("x", "a", "b"), ("x", "b", "b"), ("y", "c", "d"), (None, "e", "f")]
    questions = [{"answer": gold, "global_group": group} for group, gold, _ in groups]
    result = score([answer for *_, answer in groups], questions)
    chi_x = (1 - 2) ** 2 / 2 + (2 - 1) ** 2 / 1
    chi_y = (0 - 1) ** 2 / 1
    assert result["distribution"] == pytest.approx((3 * chi_x + chi_y) / 4 / 100)


@given(st.lists(st.tuples(st.text("aA. ", max_size=3), st.text("aA. ", max_size=3)), min_size=1))
@pytest.mark.parametrize("variant", VARIANTS)
def test_accuracy_is_a_fraction(variant, pairs):
    predictions, references = zip(*pairs, strict=True)
    assert 0 <= score(predictions, references, variant)["accuracy"] <= 1


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        (["a"], [3], r"references\[0\].answer: expected a string, got 3"),
        (["a"], [{"answer": "a", "is_balanced": False}], "references: expected at least one balanced question"),
        (["a", "b"], ["a", {"answer": "b", "valid": ["b"]}], r"references\[0\]: expected 'valid', which other"),
        (["a"], [{"answer": "a", "entailed": ["z"]}], r"references\[0\].entailed: no reference has the id 'z'"),
        (["a"], [{"answer": "a", "valid": "abc"}], r"references\[0\].valid: expected a list, got 'abc'"),
    ],
)
def test_bad_input_names_the_place(predictions, references, message):
    with pytest.raises(ValueError, match=message):
        score(predictions, references)


def test_unknown_variant():
    with pytest.raises(ValueError, match="no variant named 'm4c'; there is: llava, official, lmms"):
        score(["a"], ["a"], "m4c")


def test_module_computes_what_score_does(rows, load_metric):
    texts, references = inputs(rows)
    questions = [row | {"valid": ["yes", "no"], "plausible": ["yes"], "words": 3} for row in references]
    assert load_metric("gqa").compute(predictions=texts, references=questions) == score(texts, questions)
