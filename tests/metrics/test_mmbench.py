"""MMBench: against VLMEvalKit's and lmms-eval's outputs, circular evaluation, and its `evaluate` module."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_llava_vqa.metrics.mmbench.mmbench_rules import score
from hf_llava_vqa.metrics.mmbench.option_parsing import (
    PARSERS,
    guess_lmms,
    letter_lmms,
    letter_vlmevalkit,
    option_in_text,
    parse_vlmevalkit,
    text_vlmevalkit,
)

HITS = {"vlmevalkit": "vlmevalkit_exact_matching_hit", "lmms": "lmms_static_hit"}


@pytest.fixture(scope="module")
def questions(golden):
    return golden("mmbench_circular.jsonl")


def passes(question):
    references = [
        {
            "index": record["index"],
            "answer": record["answer"],
            "choices": [record[letter] for letter in "ABCD" if record[letter] is not None],
            "category": record["category"],
            "l2_category": record["l2-category"],
        }
        for record in question["records"]
    ]
    return [record["prediction"] for record in question["records"]], references


def all_passes(questions):
    pairs = [pair for question in questions for pair in zip(*passes(question), strict=True)]
    return [text for text, _ in pairs], [reference for _, reference in pairs]


def test_options_are_read_as_the_references_read_them(golden):
    for row in golden("mmbench_option.jsonl"):
        text, choices = row["text"], list(row["choices"].values())
        assert {
            "lmms_option": letter_lmms(text),
            "lmms_text": option_in_text(text, choices),
            "lmms": letter_lmms(text) or option_in_text(text, choices),
            "lmms_static_extract": guess_lmms(text, choices),
            "vlmevalkit_option": letter_vlmevalkit(text, choices),
            "vlmevalkit_text": text_vlmevalkit(text, choices),
            "vlmevalkit": parse_vlmevalkit(text, choices),
        } == row["out"], row["id"]


@pytest.mark.parametrize("variant", HITS)
def test_each_question_is_a_hit_as_in_the_references(questions, variant):
    for question in questions:
        result = score(*passes(question), variant)
        assert result["accuracy"] == question["out"][HITS[variant]], question["id"]


def test_passes_are_read_as_the_references_read_them(questions):
    for question in questions:
        texts, references = passes(question)
        read = [
            letter_lmms(text) or option_in_text(text, row["choices"])
            for text, row in zip(texts, references, strict=True)
        ]
        assert read == question["out"]["lmms_prefetch"], question["id"]
        assert (read[0] == references[0]["answer"]) == question["out"]["vanilla_hit_first_pass"], question["id"]
        undecided = score(texts, references)["unread"] > 0
        assert undecided == question["out"]["vlmevalkit_prefetch_undecided"], question["id"]


def test_accuracy_is_over_questions(questions):
    hits = {question["id"]: question["out"]["vlmevalkit_exact_matching_hit"] for question in questions}
    result = score(*all_passes(questions))
    assert result["n"] == len(questions)
    assert result["accuracy"] == pytest.approx(sum(hits.values()) / len(hits))
    categories = {question["records"][0]["category"] for question in questions}
    for category in categories:
        inside = [hits[question["id"]] for question in questions if question["records"][0]["category"] == category]
        assert result["by_category"][category] == pytest.approx(sum(inside) / len(inside))
    assert set(result["by_l2_category"]) == {question["records"][0]["l2-category"] for question in questions}


def test_first_pass_accuracy_of_a_model_that_always_says_a():
    choices = ["kite", "boat"]
    references = [
        {"index": 0, "answer": "A", "choices": choices},
        {"index": 1_000_000, "answer": "B", "choices": choices},
    ]
    result = score(["A", "A"], references)
    assert (result["accuracy"], result["first_pass_accuracy"]) == (0, 1)


def test_one_pass_each_is_plain_accuracy():
    references = [{"index": index, "answer": "A", "choices": ["kite", "boat"]} for index in range(3)]
    assert score(["A", "B", "A."], references)["accuracy"] == pytest.approx(2 / 3)


letters = st.text("ABC. ()kite", max_size=12)


@given(st.lists(letters, min_size=3, max_size=3), st.sampled_from(sorted(PARSERS)))
def test_circular_accuracy_never_exceeds_that_of_the_first_pass(texts, variant):
    rotated = [["kite", "boat", "cat"], ["cat", "kite", "boat"], ["boat", "cat", "kite"]]
    references = [
        {"index": 1_000_000 * number, "answer": "ABC"[number], "choices": choices}
        for number, choices in enumerate(rotated)
    ]
    result = score(texts, references, variant)
    assert 0 <= result["accuracy"] <= result["first_pass_accuracy"] <= 1


@given(letters, st.sampled_from(sorted(PARSERS)))
def test_what_is_read_is_one_letter_or_nothing(text, variant):
    assert PARSERS[variant](text, ["kite", "boat"]) in ("A", "B", "C", "D", "E", "Z", None)


@pytest.mark.parametrize(
    ("references", "message"),
    [
        (["A"], r"references\[0\]: expected a dict with index, answer, choices, got 'A'"),
        ([{"index": "1", "answer": "A", "choices": ["x"]}], r"references\[0\].index: expected an integer, got '1'"),
        ([{"index": 1, "answer": "E", "choices": ["x"]}], r"references\[0\].answer: expected 'A' or 'B'"),
        ([{"index": 1, "answer": "B", "choices": ["x"]}], r"references\[0\]: expected the letter of .* got 'B' for 1"),
        ([{"index": 1_000_001, "answer": "A", "choices": ["x"]}], r"expected the indices \[1\] for question 1, got"),
        (
            [{"index": 1, "answer": "A", "choices": ["x"]}] * 2,
            r"references\[1\]: the id '1' is that of references\[0\]",
        ),
        (
            [
                {"index": 1, "answer": "A", "choices": ["x", "y"]},
                {"index": 1_000_001, "answer": "B", "choices": ["y", "x"]},
                {"index": 2, "answer": "A", "choices": ["x", "y"]},
            ],
            r"references: expected the indices \[2, 1000002\] for question 2, got \[2\]",
        ),
    ],
)
def test_bad_references_name_the_place(references, message):
    with pytest.raises(ValueError, match=message):
        score(["A"] * len(references), references)


def test_unknown_variant():
    with pytest.raises(ValueError, match="no variant named 'llm'; there is: vlmevalkit, lmms"):
        score(["A"], [{"index": 1, "answer": "A", "choices": ["x"]}], "llm")


def test_module_computes_what_score_does(questions, load_metric):
    texts, references = all_passes(questions)
    by_id = [{"id": row["index"], "prediction": text} for text, row in zip(texts, references, strict=True)]
    module = load_metric("mmbench")
    assert module.compute(predictions=by_id[::-1], references=references, variant="lmms") == score(
        texts, references, "lmms"
    )
