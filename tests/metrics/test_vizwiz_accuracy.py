"""VizWiz accuracy: against the reference scorers' outputs, its properties, and its `evaluate` module."""

import copy
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import evaluate
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hf_llava_vqa.metrics import metric_path
from hf_llava_vqa.metrics.vizwiz_accuracy.answer_rules import (
    PERIODS_DELETED,
    VARIANTS,
    answer_accuracy,
    explain,
    normalize_answer,
    score,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "scorers"
# Under which names the reference scorers' outputs stand.
READINGS = {"vizwiz": "vizwiz_official", "vqa": "vqa_official", "m4c": "evalai_m4c", "competition": "competition"}
SCORERS = READINGS | {"m4c": "m4c_textvqa"}
every_scorer = pytest.mark.parametrize("variant", SCORERS)
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def golden_rows(name: str) -> list[dict]:
    with open(GOLDEN / name, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


ACCURACY = golden_rows("accuracy.jsonl")
NORMALIZATION = golden_rows("normalization.jsonl")
AGGREGATE = json.loads((GOLDEN / "accuracy_aggregate.json").read_text())
PREDICTIONS = [row["prediction"] for row in ACCURACY]
REFERENCES = [row["answers"] for row in ACCURACY]
TYPES = [row["answer_type"] for row in ACCURACY]


def scored_rows(variant):
    """The rows to which the scorer applies, but for the one with a single answer (see the test below)."""
    return [row for row in ACCURACY if row["score"][SCORERS[variant]] is not None and len(row["answers"]) > 1]


def columns(rows):
    return tuple([row[key] for row in rows] for key in ("prediction", "answers", "answer_type"))


@every_scorer
def test_normalization_equals_the_reference(variant):
    ours = {row["id"]: normalize_answer(row["text"], variant) for row in NORMALIZATION}
    assert ours == {row["id"]: row["out"][READINGS[variant]] for row in NORMALIZATION}


@every_scorer
def test_accuracy_equals_the_reference(variant):
    rows = scored_rows(variant)
    predictions, references, _ = columns(rows)
    per_question = score(predictions, references, variant, return_per_question=True)["per_question"]
    assert per_question == pytest.approx([row["score"][SCORERS[variant]] for row in rows], abs=1e-9)
    alone = [answer_accuracy(row["prediction"], row["answers"], variant) for row in rows]
    assert alone == per_question


@pytest.mark.parametrize("variant", ["vizwiz", "vqa", "competition"])
def test_one_answer_is_exact_match_where_the_references_give_nothing(variant):
    """Holding out the only annotator leaves nobody to agree with: the references score 0 whatever is predicted. Data
    with one true answer are common, so here we differ on purpose."""
    (row,) = [row for row in ACCURACY if len(row["answers"]) == 1]
    assert row["score"][SCORERS[variant]] == 0
    assert answer_accuracy(row["prediction"], row["answers"], variant) == 1
    assert answer_accuracy("cup", ["mug"], variant) == 0


@pytest.mark.parametrize("variant", ["vizwiz", "vqa"])
def test_percent_has_the_official_rounding(variant):
    for row in scored_rows(variant):
        percent = score([row["prediction"]], [row["answers"]], variant)["accuracy_percent"]
        assert percent == row["rounded"][SCORERS[variant]], row["id"]


def official_accuracies(variant, answer_type=None):
    """Ours for every row of the type, with the references' 0 for the row with one answer."""
    predictions, references, types = columns(ACCURACY)
    ours = score(predictions, references, variant, return_per_question=True)["per_question"]
    rows = zip(ours, references, types, strict=True)
    return [value * (len(answers) > 1) for value, answers, type_ in rows if answer_type in (None, type_)]


@pytest.mark.parametrize("variant", ["vizwiz", "vqa"])
def test_aggregates_equal_the_reference(variant):
    official = AGGREGATE[SCORERS[variant]]
    assert round(100 * statistics.fmean(official_accuracies(variant)), 2) == official["overall"]
    by_type = {name: official_accuracies(variant, name) for name in official["perAnswerType"]}
    assert {name: round(100 * statistics.fmean(v), 2) for name, v in by_type.items()} == official["perAnswerType"]


def test_aggregates_of_the_others_equal_the_reference():
    assert statistics.fmean(official_accuracies("competition")) == pytest.approx(AGGREGATE["competition"]["mean"])
    predictions, references, _ = columns(scored_rows("m4c"))
    result = score(predictions, references, "m4c")
    assert (result["n"], result["accuracy"]) == (
        AGGREGATE["m4c_textvqa"]["n_ten_answers"],
        pytest.approx(AGGREGATE["m4c_textvqa"]["accuracy"], abs=1e-9),
    )


def test_answer_types_divide_the_questions():
    result = score(PREDICTIONS, REFERENCES, answer_types=TYPES, return_per_question=True)
    assert list(result["per_answer_type"]) == sorted(set(TYPES))
    for name, accuracy in result["per_answer_type"].items():
        values = [value for value, type_ in zip(result["per_question"], TYPES, strict=True) if type_ == name]
        assert accuracy == pytest.approx(statistics.fmean(values))
    assert result["accuracy_percent"] == round(100 * statistics.fmean(result["per_question"]), 2)


@pytest.mark.parametrize(
    ("text", "competition", "fixed"),
    [
        ("phone", "ph1", "phone"),
        ("cantaloupe", "can'taloupe", "cantaloupe"),
        ("tennis", "10nis", "tennis"),
        ("One apple, cant see", "1 apple can't see", "1 apple can't see"),
        ("the ten a.", "10", "10"),
    ],
)
def test_fixed_competition_rules_replace_whole_words_only(text, competition, fixed):
    assert normalize_answer(text, "competition") == competition
    assert normalize_answer(text, "competition_fixed") == fixed


def test_fixed_competition_rules_divide_by_the_number_of_answers():
    answers = ["mug"] * 5
    assert answer_accuracy("mug", answers, "competition") == 0.5
    assert answer_accuracy("mug", answers, "competition_fixed") == 1


def test_identical_answers_switch_the_official_normalization_off():
    assert [answer_accuracy(text, ["yes"] * 10, "vqa") for text in ("yes", "\tyes\n", "Yes", "yes.")] == [1, 1, 0, 0]
    assert answer_accuracy("Yes.", ["yes"] * 9 + ["Yes"], "vqa") == 1
    assert explain("Yes.", ["yes"] * 10, "vqa") == {"accuracy": 0, "prediction": "Yes.", "answers": ["yes"] * 10}


def test_explanation_shows_what_is_compared():
    people = ["The mug"] * 2 + [{"answer": "cup", "answer_confidence": "no"}] * 8
    compared = {"accuracy": 0.6, "prediction": "mug", "answers": ["mug"] * 2 + ["cup"] * 8}
    assert explain("Mug!", people, "m4c") == compared


def test_standard_error_is_that_of_a_mean():
    references = [["mug"] * 10] * 4
    result = score(["mug", "mug", "cup", "cup"], references)
    assert result["standard_error"] == pytest.approx(math.sqrt(1 / 3 / 4))
    assert math.isnan(score(["mug"], references[:1])["standard_error"])


@given(st.integers(2, 20), st.data())
def test_matches_follow_the_closed_form(annotators, data):
    matches = data.draw(st.integers(0, annotators))
    answers = data.draw(st.permutations(["mug"] * matches + ["cup"] * (annotators - matches)))
    held_out = [min(1, (matches - (answer == "mug")) / 3) for answer in answers]
    assert answer_accuracy("Mug!", answers) == pytest.approx(sum(held_out) / annotators, abs=1e-12)
    assert answer_accuracy("Mug!", answers, "competition") == pytest.approx(sum(held_out) / 10, abs=1e-12)


texts = st.text(alphabet=st.sampled_from("aAe1n.,-!?' \t\n_’ü０"), max_size=12)
words = st.sampled_from(["dont", "None", "the", "whats", "somebody'd", "a/an", "ten", "1,000", "it's"])
phrases = st.lists(st.one_of(texts, words), max_size=4).map(" ".join)


def ten(strings):
    return st.lists(strings, min_size=10, max_size=10)


@every_variant
@given(prediction=phrases, answers=ten(phrases), data=st.data())
def test_accuracy_is_a_fraction_and_ignores_the_order_of_answers(variant, prediction, answers, data):
    accuracy = answer_accuracy(prediction, answers, variant)
    assert 0 <= accuracy <= 1
    assert answer_accuracy(prediction, data.draw(st.permutations(answers)), variant) == accuracy


@every_variant
@given(text=st.text())
def test_normalized_text_has_single_spaces_only(variant, text):
    normalized = normalize_answer(text, variant)
    assert normalized == " ".join(normalized.split())


@pytest.mark.parametrize("variant", ["vizwiz", "vqa"])
@given(text=st.one_of(phrases, st.text()))
def test_the_official_rules_change_nothing_twice(variant, text):
    assume(text.count(".") <= PERIODS_DELETED)
    once = normalize_answer(text, variant)
    assert normalize_answer(once, variant) == once


@pytest.mark.parametrize(
    ("variant", "once", "twice"),
    [
        ("vqa", "." * 8, ""),  # 40 periods: the first 32 go
        ("m4c", "what's", "what 's"),
        ("competition", "one", "1"),
        ("competition_fixed", "one", "1"),
    ],
)
def test_rules_that_are_not_stable_stay_so(variant, once, twice):
    text = {"vqa": "." * 40, "m4c": "whats"}.get(variant, "o.ne")
    assert normalize_answer(text, variant) == once
    assert normalize_answer(once, variant) == twice


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
        ((["a"], [["a"], ["b"]]), "expected as many references as predictions, got 2 for 1"),
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
        ((["a"], [["a", math.nan]]), r"references\[0\]\[1\]: .* got nan"),
        ((["a"] * 2, [["a"] * 10, ["a"] * 9], "m4c"), r"references\[1\]: expected 10 answers for variant m4c, got 9"),
        ((["a"], [["a"]], "vqw"), "no variant named 'vqw'; there is: vizwiz, vqa, m4c, competition, competition_fixed"),
        ((["a"], [["a"]], ["vqa"]), r"no variant named \['vqa'\]"),
        ((["a"], [["a"]], "vizwiz", ["other", "other"]), "expected as many answer_types as predictions, got 2 for 1"),
        ((["a"], [["a"]], "vizwiz", [1]), r"answer_types\[0\]: expected a string, got 1"),
        ((["a"], [["a"]], "vizwiz", ["yesno"]), r"answer_types\[0\]: expected one of yes/no, number, .* got 'yesno'"),
    ],
)
def test_bad_input_is_one_line_with_the_place(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        score(*arguments)
    assert "\n" not in str(caught.value)


def test_unknown_metric_lists_those_there_are():
    with pytest.raises(ValueError, match=r"no metric named 'vizwiz'; there is: .*vizwiz_accuracy"):
        metric_path("vizwiz")


def test_module_computes_what_score_does(load_metric):
    expected = score(PREDICTIONS, REFERENCES, "competition", TYPES, return_per_question=True)
    options = {"variant": "competition", "answer_types": TYPES, "return_per_question": True}
    module = load_metric("vizwiz_accuracy")
    assert module.compute(predictions=PREDICTIONS, references=REFERENCES, **options) == expected


def test_module_takes_batches_and_single_rows_of_either_form(load_metric):
    module = load_metric("vizwiz_accuracy")
    module.add_batch(predictions=PREDICTIONS[:10], references=REFERENCES[:10])
    module.add(prediction="mug", reference=["mug"] * 10)
    expected = score([*PREDICTIONS[:10], "mug"], [*REFERENCES[:10], ["mug"] * 10])
    assert module.compute() == expected


def test_module_refuses_what_evaluate_would_turn_into_strings(load_metric):
    with pytest.raises(ValueError, match=r"references\[1\]\[0\]: expected a string"):
        load_metric("vizwiz_accuracy").compute(predictions=["a", "b"], references=[["a"], [3]])


def test_module_can_be_used_again_after_an_error(load_metric):
    module = load_metric("vizwiz_accuracy")
    with pytest.raises(ValueError, match="no variant"):
        module.compute(predictions=["mug"], references=[["mug"] * 10], variant="vqw")
    assert module.compute(predictions=["cup"], references=[["mug"] * 10])["accuracy"] == 0


def test_modules_combine(load_metric):
    module = load_metric("vizwiz_accuracy")
    both = evaluate.combine({"first": module, "second": load_metric("vizwiz_accuracy")})
    result = both.compute(predictions=["mug"], references=[["mug"] * 2 + ["cup"] * 8], variant="m4c")
    assert (result["first_accuracy"], result["second_accuracy"], result["first_n"]) == (0.6, 0.6, 1)


STRANGER = """
import json, sys
sys.modules["hf_llava_vqa"] = None
import evaluate
rows = [json.loads(line) for line in open(sys.argv[2], encoding="utf-8")]
predictions, references = [[row[key] for row in rows] for key in ("prediction", "answers")]
result = evaluate.load(sys.argv[1]).compute(predictions=predictions, references=references, variant="vqa")
print(json.dumps(result))
"""


@pytest.mark.e2e
@pytest.mark.parametrize("script", ["", "vizwiz_accuracy.py"])
def test_a_stranger_loads_a_copy_of_the_folder_or_its_script(tmp_path, script):
    folder = tmp_path / "vizwiz_accuracy"
    shutil.copytree(metric_path("vizwiz_accuracy"), folder, ignore=shutil.ignore_patterns("__pycache__"))
    environment = os.environ | {"HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", STRANGER, str(folder / script), str(GOLDEN / "accuracy.jsonl")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == score(PREDICTIONS, REFERENCES, "vqa")


PLAIN = """
import sys
sys.modules.update(dict.fromkeys(["evaluate", "datasets"]))
from hf_llava_vqa.metrics.vizwiz_accuracy.answer_rules import score
print(score(["mug"], [["mug"] * 10])["accuracy"])
"""


def test_plain_functions_need_no_evaluate(tmp_path):
    done = subprocess.run([sys.executable, "-c", PLAIN], cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("1.0\n", "")


def test_the_space_shows_the_score_and_why(load_page):
    page = load_page("vizwiz_accuracy")
    prediction, answers, variant = page.inputs
    assert variant.choices == list(VARIANTS)
    rows = [["coke can", "coke can", "yes"]] * 2 + [["soda", "soda", "no"]] * 8
    assert page.fn(prediction.value, answers.value, variant.value) == (0.6, "coke can", rows)
    assert page.article.startswith("\n# VizWiz accuracy")
    with pytest.raises(load_page.Error, match=r"references\[0\]: expected 10 answers for variant m4c, got 1"):
        page.fn("mug", "mug\n", "m4c")
