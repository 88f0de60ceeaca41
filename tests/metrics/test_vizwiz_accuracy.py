"""VizWiz accuracy: against the reference scorers' outputs, its properties, and its `evaluate` module."""

import copy
import json
import math
from pathlib import Path

import evaluate
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_llava_vqa.metrics import metric_path
from hf_llava_vqa.metrics.vizwiz_accuracy.answer_rules import answer_accuracy, normalize_answer, score

GOLDEN = Path(__file__).parents[1] / "golden" / "scorers"
COLUMNS = {"vizwiz": "vizwiz_official", "competition": "competition"}
VARIANTS = pytest.mark.parametrize("variant", COLUMNS)


def golden_rows(name: str) -> list[dict]:
    with open(GOLDEN / name, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


ACCURACY = golden_rows("accuracy.jsonl")
NORMALIZATION = golden_rows("normalization.jsonl")
AGGREGATE = json.loads((GOLDEN / "accuracy_aggregate.json").read_text())
PREDICTIONS = [row["prediction"] for row in ACCURACY]
REFERENCES = [row["answers"] for row in ACCURACY]
TYPES = [row["answer_type"] for row in ACCURACY]


@VARIANTS
def test_normalization_equals_the_reference(variant):
    ours = {row["id"]: normalize_answer(row["text"], variant) for row in NORMALIZATION}
    assert ours == {row["id"]: row["out"][COLUMNS[variant]] for row in NORMALIZATION}


@VARIANTS
def test_accuracy_equals_the_reference(variant):
    per_question = score(PREDICTIONS, REFERENCES, variant, return_per_question=True)["per_question"]
    assert per_question == pytest.approx([row["score"][COLUMNS[variant]] for row in ACCURACY], abs=1e-9)
    alone = [answer_accuracy(row["prediction"], row["answers"], variant) for row in ACCURACY]
    assert alone == per_question


def test_percent_has_the_official_rounding():
    for row in ACCURACY:
        percent = score([row["prediction"]], [row["answers"]])["accuracy_percent"]
        assert percent == row["rounded"]["vizwiz_official"], row["id"]


def test_aggregates_equal_the_reference():
    result = score(PREDICTIONS, REFERENCES, answer_types=TYPES)
    official = AGGREGATE["vizwiz_official"]
    assert result["accuracy_percent"] == official["overall"]
    assert {key: round(100 * v, 2) for key, v in result["per_answer_type"].items()} == official["perAnswerType"]
    assert result["n"] == AGGREGATE["n"]
    competition = score(PREDICTIONS, REFERENCES, "competition")
    assert competition["accuracy"] == pytest.approx(AGGREGATE["competition"]["mean"], abs=1e-9)


def test_standard_error_is_that_of_a_mean():
    references = [["mug"] * 10] * 4
    result = score(["mug", "mug", "cup", "cup"], references)
    assert result["standard_error"] == pytest.approx(math.sqrt(1 / 3 / 4))
    assert math.isnan(score(["mug"], references[:1])["standard_error"])


@given(st.integers(1, 20), st.data())
def test_matches_follow_the_closed_form(annotators, data):
    matches = data.draw(st.integers(0, annotators))
    answers = data.draw(st.permutations(["mug"] * matches + ["cup"] * (annotators - matches)))
    held_out = [min(1, (matches - (answer == "mug")) / 3) for answer in answers]
    assert answer_accuracy("Mug!", answers) == pytest.approx(sum(held_out) / annotators, abs=1e-12)
    assert answer_accuracy("Mug!", answers, "competition") == pytest.approx(sum(held_out) / 10, abs=1e-12)


texts = st.text(alphabet=st.sampled_from("aAe1n.,-!?' \t\n_’ü０"), max_size=12)


@VARIANTS
@given(prediction=texts, answers=st.lists(texts, min_size=1, max_size=10), data=st.data())
def test_accuracy_is_a_fraction_and_ignores_the_order_of_answers(variant, prediction, answers, data):
    accuracy = answer_accuracy(prediction, answers, variant)
    assert 0 <= accuracy <= 1
    assert answer_accuracy(prediction, data.draw(st.permutations(answers)), variant) == accuracy


@VARIANTS
@given(st.text())
def test_normalized_text_has_single_spaces_only(variant, text):
    normalized = normalize_answer(text, variant)
    assert normalized == " ".join(normalized.split())


def test_strings_and_dicts_score_alike_and_stay_untouched():
    before = copy.deepcopy(REFERENCES)
    strings = [[answer["answer"] for answer in answers] for answers in REFERENCES]
    assert score(PREDICTIONS, strings) == score(PREDICTIONS, REFERENCES)
    assert before == REFERENCES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a"], []), "references: expected at least one entry"),
        (([], []), "predictions: expected at least one entry"),
        ((["a"], [["a"], ["b"]]), "expected one reference for each prediction, got 2 for 1"),
        (("a", [["a"]]), "predictions: expected a list, got 'a'"),
        ((None, [["a"]]), "predictions: expected a list, got None"),
        ((["a", 3], [["a"], ["b"]]), r"predictions\[1\]: expected a string, got 3"),
        ((["a"], ["abc"]), r"references\[0\]: expected a list, got 'abc'"),
        ((["a"], [{"answer": "a"}]), r"references\[0\]: expected a list, got {'answer': 'a'}"),
        ((["a", "b"], [["a"], []]), r"references\[1\]: expected at least one entry"),
        (
            (["a", "b"], [["a"], ["b", None]]),
            r"references\[1\]\[1\]: expected a string or a dict .* got None",
        ),
        ((["a"], [[{"text": "a"}]]), r"references\[0\]\[0\]: .* under 'answer', got {'text': 'a'}"),
        ((["a"], [[{"answer": 3}]]), r"references\[0\]\[0\]: .* under 'answer', got 3"),
        ((["a"], [["a"]], "vqw"), "no variant named 'vqw'; there is: vizwiz, competition"),
        ((["a"], [["a"]], "vizwiz", ["other", "other"]), "one answer type for each prediction, got 2 for 1"),
        ((["a"], [["a"]], "vizwiz", [1]), r"answer_types\[0\]: expected a string, got 1"),
    ],
)
def test_bad_input_is_one_line_with_the_place(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        score(*arguments)
    assert "\n" not in str(caught.value)


def test_unknown_metric_lists_those_there_are():
    with pytest.raises(ValueError, match="no metric named 'vizwiz'; there is: vizwiz_accuracy"):
        metric_path("vizwiz")


@pytest.fixture(scope="module")
def load_module(tmp_path_factory):
    """Load the module as a stranger does: from another folder, copied into `evaluate`'s own cache."""
    cache = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cache)
        patch.setattr("evaluate.utils.file_utils.config.HF_MODULES_CACHE", str(cache / "modules"))
        yield lambda: evaluate.load(metric_path("vizwiz_accuracy"), cache_dir=str(cache / "data"))


def test_module_computes_what_score_does(load_module):
    expected = score(PREDICTIONS, REFERENCES, "competition", TYPES, return_per_question=True)
    options = {"variant": "competition", "answer_types": TYPES, "return_per_question": True}
    assert load_module().compute(predictions=PREDICTIONS, references=REFERENCES, **options) == expected


def test_module_takes_batches_and_single_rows_of_either_form(load_module):
    module = load_module()
    module.add_batch(predictions=PREDICTIONS[:10], references=REFERENCES[:10])
    module.add(prediction="mug", reference=["mug"] * 10)
    expected = score([*PREDICTIONS[:10], "mug"], [*REFERENCES[:10], ["mug"] * 10])
    assert module.compute() == expected


def test_module_refuses_what_evaluate_would_turn_into_strings(load_module):
    with pytest.raises(ValueError, match=r"references\[1\]\[0\]: expected a string"):
        load_module().compute(predictions=["a", "b"], references=[["a"], [3]])


def test_module_can_be_used_again_after_an_error(load_module):
    module = load_module()
    with pytest.raises(ValueError, match="no variant"):
        module.compute(predictions=["mug"], references=[["mug"] * 10], variant="vqw")
    assert module.compute(predictions=["cup"], references=[["mug"] * 10])["accuracy"] == 0
