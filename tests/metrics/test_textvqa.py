"""TextVQA: against LLaVA's outputs, LLaVA's files paired, and the `evaluate` module."""

import copy

import pytest

from hf_llava_vqa.metrics.textvqa.textvqa_rules import pair_llava, recover_question, score

SUFFIX = "Answer the question using a single word or phrase."


@pytest.fixture(scope="module")
def rows(golden):
    """Those with ten answers, which alone the reference takes."""
    return [row for row in golden("accuracy.jsonl") if row["score"]["m4c_textvqa"] is not None]


def inputs(rows):
    return [row["prediction"] for row in rows], [row["answers"] for row in rows]


def test_questions_are_recovered_as_llava_recovers_them(golden):
    for row in golden("textvqa_prompt.jsonl"):
        expected = row["out"]["llava_eval_textvqa"]
        if "error" in expected:
            with pytest.raises(ValueError, match="expected one of LLaVA's prompts for TextVQA, got"):
                recover_question(row["prompt"])
        else:
            assert recover_question(row["prompt"]) == expected["question"], row["id"]


@pytest.mark.parametrize(
    "prompt",
    [
        f"Which Brand?\n{SUFFIX}",
        f"Which Brand?\nReference OCR token: a, b\n{SUFFIX}",
        f"Reference OCR token: a, b\nWhich Brand?\n{SUFFIX}",
        "OCR tokens: a, b Question: Which Brand? Short answer:",
    ],
)
def test_every_form_of_prompt(prompt):
    assert recover_question(prompt) == "which brand?"


def test_prompt_with_tokens_but_no_short_answer():
    with pytest.raises(ValueError, match="expected one of LLaVA's prompts"):
        recover_question("OCR tokens: a, b\nWhich Brand?")


def test_accuracy_equals_the_reference(rows, golden):
    result = score(*inputs(rows), return_per_question=True)
    assert result["per_question"] == pytest.approx([row["score"]["m4c_textvqa"] for row in rows], abs=1e-9)
    expected = golden("accuracy_aggregate.json")["m4c_textvqa"]
    assert result["accuracy"] == pytest.approx(expected["accuracy"], abs=1e-9)
    assert result["accuracy_percent"] == round(100 * expected["accuracy"], 2)
    assert result["n"] == expected["n_ten_answers"]


ANNOTATIONS = [
    {"image_id": "i1", "question": "Which Brand?", "answers": ["acme"] * 10},
    {"image_id": "i1", "question": "which year?", "answers": ["1999"] * 10},
    {"image_id": "i2", "question": "which brand?", "answers": ["zeta"] * 10},
]
LINES = [
    {"question_id": "i2", "prompt": f"Which brand?\n{SUFFIX}", "text": "Zeta."},
    {"question_id": "i1", "prompt": f"Which brand?\n{SUFFIX}", "text": "zeta"},
    {"question_id": "i1", "prompt": f"Which year?\nReference OCR token: a\n{SUFFIX}", "text": "1999"},
]


def test_llavas_lines_find_their_annotations():
    before = copy.deepcopy((LINES, ANNOTATIONS))
    predictions, references = pair_llava(LINES, ANNOTATIONS)
    assert predictions == ["Zeta.", "zeta", "1999"]
    assert [reference["answers"][0] for reference in references] == ["zeta", "acme", "1999"]
    assert score(predictions, references)["accuracy_percent"] == 66.67
    assert before == (LINES, ANNOTATIONS)


def test_of_two_equal_questions_the_later_annotation_counts():
    later = [*ANNOTATIONS, {"image_id": "i1", "question": "WHICH brand?", "answers": ["zeta"] * 10}]
    assert score(*pair_llava(LINES, later))["accuracy"] == 1


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (LINES[:2], "answers: .* got none to 'which year[?]' about the image 'i1' .1 are missing."),
        (
            [*LINES, LINES[0] | {"question_id": "i3"}],
            r"answers\[3\]: no annotation has the image 'i3' and the question",
        ),
        ([{"question_id": "i1", "text": "a"}], r"answers\[0\]: expected a value under 'prompt'"),
        ([*LINES, LINES[0] | {"prompt": "Which brand?"}], r"answers\[3\].prompt: expected one of LLaVA's prompts"),
    ],
)
def test_files_that_do_not_fit_name_the_line(lines, message):
    with pytest.raises(ValueError, match=message):
        pair_llava(lines, ANNOTATIONS)


@pytest.mark.parametrize(
    ("references", "message"),
    [
        ([["a"] * 9], r"references\[0\].answers: expected 10 or more entries, got 9"),
        ([["a"] * 11], r"references\[0\]: expected 10 answers for variant m4c, got 11"),
        (["a"], r"references\[0\].answers: expected a list, got 'a'"),
        ([["a"] * 9 + [None]], r"references\[0\].answers\[9\]: expected a string, got None"),
        ([["a"] * 9 + [{"text": "a"}]], r"references\[0\].answers\[9\].answer: expected a string, got None"),
    ],
)
def test_bad_references_name_the_place(references, message):
    with pytest.raises(ValueError, match=message):
        score(["a"], references)


def test_module_computes_what_score_does(rows, load_metric):
    predictions, references = inputs(rows)
    by_id = [{"id": row["id"], "prediction": row["prediction"]} for row in reversed(rows)]
    with_ids = [{"id": row["id"], "answers": row["answers"]} for row in rows]
    expected = score(predictions, references, return_per_question=True)
    computed = load_metric("textvqa").compute(predictions=by_id, references=with_ids, return_per_question=True)
    assert computed == expected
