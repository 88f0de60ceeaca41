"""Which human answers are trained on: the four targets on invented votes."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_llava_vqa.answers import ANSWER_TARGETS, weighted_answers
from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.metrics.vizwiz_accuracy.answer_rules import normalize_answer

VOTES = ["Coke can.", "coke can", "cola", "coke can", "soda"]
ANSWERS = st.lists(
    st.sampled_from(["a cat", "Cat", "cat", "dog", "2", "two", "Unanswerable", ""]), min_size=1, max_size=10
)


def test_majority_is_the_largest_group_in_its_most_frequent_form() -> None:
    assert weighted_answers(VOTES, "majority") == [("coke can", 1.0)]


def test_ties_go_to_the_answer_given_first() -> None:
    assert weighted_answers(["dog", "cat", "cat", "dog"], "majority") == [("dog", 1.0)]
    assert weighted_answers(["Dog.", "dog"], "majority") == [("Dog.", 1.0)]


def test_votes_weigh_every_group_by_its_share() -> None:
    assert weighted_answers(VOTES, "votes") == [("coke can", 3 / 5), ("cola", 1 / 5), ("soda", 1 / 5)]


@given(ANSWERS)
def test_credit_is_the_accuracy_each_answer_would_score(answers: list[str]) -> None:
    """The closed form against the metric itself: every person in turn is left out and the others judge."""
    scored = weighted_answers(answers, "credit")
    accuracy = [_leave_one_out(text, answers) for text, _ in scored]
    expected = [value / sum(accuracy) for value in accuracy]
    assert [weight for _, weight in scored] == pytest.approx(expected)


def _leave_one_out(text: str, answers: list[str]) -> float:
    """Mean over all people of min(1, matches among the others / 3); a single person's answer counts in full."""
    if len(answers) == 1:
        return 1.0
    same = [normalize_answer(answer) == normalize_answer(text) for answer in answers]
    return sum(min(1.0, (sum(same) - one) / 3) for one in same) / len(answers)


def test_credit_of_ten_answers() -> None:
    weights = dict(weighted_answers(["cat"] * 4 + ["dog"] * 3 + ["cow"] * 2 + ["hen"], "credit"))
    accuracy = {"cat": 1.0, "dog": 0.9, "cow": 0.6, "hen": 0.3}  # 10/10; 3*2/3+7; 2*1/3+8*2/3; 9*1/3, each of 10
    assert weights == pytest.approx({name: value / 2.8 for name, value in accuracy.items()})


@pytest.mark.parametrize("target", ANSWER_TARGETS)
def test_a_single_answer_has_weight_one(target: str) -> None:
    assert weighted_answers(["red"], target) == [("red", 1.0)]


@pytest.mark.parametrize("target", ANSWER_TARGETS)
@given(answers=ANSWERS)
def test_weights_sum_to_one_and_answers_are_given_ones(target: str, answers: list[str]) -> None:
    weighted = weighted_answers(answers, target)
    assert sum(weight for _, weight in weighted) == pytest.approx(1)
    assert all(weight >= 0 for _, weight in weighted)
    assert {text for text, _ in weighted} <= set(answers)
    groups = [normalize_answer(text) for text, _ in weighted]
    assert len(set(groups)) == len(groups)


def test_sample_depends_on_seed_epoch_and_dialogue_alone() -> None:
    def draw(seed: int = 0, epoch: int = 0, name: str = "q0") -> str:
        ((text, weight),) = weighted_answers(list("abcdefghij"), "sample", seed=seed, epoch=epoch, dialogue_id=name)
        assert weight == 1.0
        return text

    assert draw() == draw()
    for varied in ("seed", "epoch"):
        assert len({draw(**{varied: number}) for number in range(20)}) > 5
    assert len({draw(name=f"q{number}") for number in range(20)}) > 5


def test_sample_draws_answers_as_often_as_they_were_given() -> None:
    drawn = Counter(weighted_answers(VOTES, "sample", epoch=epoch, dialogue_id="q")[0][0] for epoch in range(1000))
    assert drawn["coke can"] == pytest.approx(600, abs=60)
    assert drawn["cola"] == pytest.approx(200, abs=50)


def test_unknown_target_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown answer_target 'best'; use one of: majority, votes, credit, sample"):
        weighted_answers(["a"], "best")
