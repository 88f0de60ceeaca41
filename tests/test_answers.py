"""Which human answers are trained on: the four targets on invented votes, each counted once or by its confidence."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_llava_vqa.answers import (
    ANSWER_TARGETS,
    check_confidence_weights,
    confidence_counts,
    weighted_answers,
)
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


WEIGHTS = st.floats(0.01, 100)


@st.composite
def counted(draw: st.DrawFn, weights: st.SearchStrategy[float]) -> tuple[list[str], list[float]]:
    """Answers and how much each counts."""
    answers = draw(ANSWERS)
    return answers, draw(st.lists(weights, min_size=len(answers), max_size=len(answers)))


@pytest.mark.parametrize("target", ANSWER_TARGETS)
@given(answers=ANSWERS, weight=WEIGHTS)
def test_equal_counts_change_nothing(target: str, answers: list[str], weight: float) -> None:
    weighted = weighted_answers(answers, target, counts=[weight] * len(answers))
    plain = weighted_answers(answers, target)
    assert [text for text, _ in weighted] == [text for text, _ in plain]
    assert [value for _, value in weighted] == pytest.approx([value for _, value in plain])
    assert weighted_answers(answers, target, counts=[1.0] * len(answers)) == plain


@pytest.mark.parametrize("target", ANSWER_TARGETS)
@given(given_counts=counted(st.just(0.0) | WEIGHTS))
def test_weights_sum_to_one_whatever_answers_count(target: str, given_counts: tuple[list[str], list[float]]) -> None:
    answers, counts = given_counts
    weighted = weighted_answers(answers, target, counts=counts)
    assert sum(weight for _, weight in weighted) == pytest.approx(1)
    assert all(weight >= 0 for _, weight in weighted)


@pytest.mark.parametrize("target", ANSWER_TARGETS)
@given(given_counts=counted(st.sampled_from([0.0, 0.5, 1.0])))
def test_an_answer_that_counts_nothing_vanishes(target: str, given_counts: tuple[list[str], list[float]]) -> None:
    answers, counts = given_counts
    kept = [(answer, count) for answer, count in zip(answers, counts, strict=True) if count]
    texts, kept_counts = zip(*kept, strict=True) if kept else (answers, [1.0] * len(answers))
    assert weighted_answers(answers, target, counts=counts) == weighted_answers(texts, target, counts=kept_counts)


@pytest.mark.parametrize("target", ANSWER_TARGETS)
def test_where_nobody_counts_all_count_the_same(target: str) -> None:
    assert weighted_answers(VOTES, target, counts=[0.0] * 5) == weighted_answers(VOTES, target)


def test_counts_decide_majority_share_and_spokesman() -> None:
    answers, counts = ["cat", "dog", "Dog.", "cow"], [0.5, 0.25, 1.0, 0.25]
    assert weighted_answers(answers, "majority", counts=counts) == [("Dog.", 1.0)]
    assert weighted_answers(answers, "votes", counts=counts) == [("cat", 0.25), ("Dog.", 0.625), ("cow", 0.125)]


@given(counted(WEIGHTS))
def test_credit_leaves_out_what_a_person_counts(given_counts: tuple[list[str], list[float]]) -> None:
    answers, counts = given_counts
    scaled = [count * len(counts) / sum(counts) for count in counts]
    scored = weighted_answers(answers, "credit", counts=counts)
    accuracy = [_weighted_leave_one_out(text, answers, scaled) for text, _ in scored]
    assert [weight for _, weight in scored] == pytest.approx([value / sum(accuracy) for value in accuracy])


def _weighted_leave_one_out(text: str, answers: list[str], counts: list[float]) -> float:
    if len(answers) == 1:
        return 1.0
    same = [normalize_answer(answer) == normalize_answer(text) for answer in answers]
    left = [sum(c for c, s in zip(counts, same, strict=True) if s) - c * s for c, s in zip(counts, same, strict=True)]
    return sum(count * min(1.0, max(rest, 0.0) / 3) for count, rest in zip(counts, left, strict=True)) / len(answers)


def test_an_answer_is_drawn_as_often_as_it_counts() -> None:
    counts = [1.0, 0.25, 0.75]
    draws = [
        weighted_answers(["cat", "dog", "cow"], "sample", counts=counts, epoch=e, dialogue_id="q") for e in range(2000)
    ]
    drawn = Counter(text for ((text, _),) in draws)
    assert drawn["cat"] == pytest.approx(1000, abs=90)
    assert drawn["dog"] == pytest.approx(250, abs=60)


def test_confidence_says_how_much_an_answer_counts() -> None:
    answers = [{"answer": "a", "answer_confidence": said} for said in ("yes", "maybe", "no", "")]
    assert confidence_counts(answers, (2.0, 0.5, 0.0)) == [2.0, 0.5, 0.0, 1.0]


@pytest.mark.parametrize("weights", [(), (1.0, 0.5), (1.0, -0.5, 0.0), (0.0, 0.0, 0.0), (1.0, float("nan"), 0.0)])
def test_weights_that_cannot_work_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match=r"answer_confidence_weights is .*; give three numbers of 0 or more"):
        check_confidence_weights(weights)
