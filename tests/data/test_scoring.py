"""Scores in the form that the rest of the package reads, and scoring by agreement with people."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_llava_vqa.data import get_benchmark
from hf_llava_vqa.data.benchmark import Benchmark
from hf_llava_vqa.data.scoring import Scores, ceiling, score_agreement
from hf_llava_vqa.errors import ConfigError, RecordError
from hf_llava_vqa.metrics.vizwiz_accuracy.answer_rules import score
from hf_llava_vqa.records import make_dialogue

VOTES = st.lists(st.sampled_from(["cup", "mug", "a cup", ""]), min_size=10, max_size=10)


def asked(*answers, answer_type=""):
    dialogues = [
        make_dialogue(id=str(number), question="What?", answers=given, answer_type=answer_type)
        for number, given in enumerate(answers)
    ]
    return [({"image_id": "a", "images": []}, dialogue) for dialogue in dialogues]


@given(votes=st.lists(VOTES, min_size=1, max_size=4), answer=st.sampled_from(["cup", "Mug.", "tea"]))
def test_agreement_is_that_of_the_metric(votes, answer):
    scores = score_agreement([answer] * len(votes), asked(*votes), "vizwiz")
    assert scores.score == pytest.approx(score([answer] * len(votes), votes)["accuracy"])
    assert sum(scores.per_question) / len(votes) == pytest.approx(scores.score)
    assert scores.score <= scores.ceiling + 1e-12 or answer == "tea"


@given(votes=VOTES)
def test_no_answer_beats_the_ceiling(votes):
    reached = [score([answer], [votes])["accuracy"] for answer in ("cup", "mug", "a cup", "", "tea")]
    assert max(reached) == pytest.approx(ceiling(votes, "vizwiz"))


def test_parts_are_named_by_the_source():
    by = score_agreement(["cup"], asked(["cup"] * 10, answer_type="crockery"), "vizwiz").by
    assert by == {"crockery": 1.0}
    assert score_agreement(["cup"], asked(["cup"] * 10), "vizwiz").by == {"unknown": 1.0}


def test_a_score_may_be_any_function_of_sums():
    scores = Scores([1.0, 0.0], {}, {}, counts=[(1, 2), (3, 4)], combine=lambda sums: sums[0] * sums[1])
    assert scores.score == 24


def test_a_benchmark_says_what_it_cannot_score():
    question = asked(["cup"] * 10)
    with pytest.raises(RecordError, match=r"textvqa: its metric does not take these questions: references\[0\]"):
        get_benchmark("textvqa").score({"0": "cup"}, asked(["cup"]))
    with pytest.raises(RecordError, match=r"vizwiz: no prediction for question 0 \(1 of 1 are missing\)"):
        get_benchmark("vizwiz").score({}, question)
    bare = Benchmark("bare", ("test",), read=iter, instruction="", metric="", metric_variant="")
    with pytest.raises(ConfigError, match="bare: answers cannot be scored"):
        bare.score({"0": "cup"}, question)
