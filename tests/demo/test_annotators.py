"""Simulated annotators: they disagree as often as stated, plausibly, and most of ten are right."""

from collections import Counter

import numpy as np
import pytest

from hf_llava_vqa.demo.annotators import PLAUSIBLE, Crowd, answer

TRUTHS = {"color": "red", "kind": "circle", "yes/no": "no"}


def ask_many(topic: str, blurred: bool, crowd: Crowd, questions: int = 400) -> list[list[dict[str, str]]]:
    rng = np.random.default_rng(0)
    return [answer(topic, TRUTHS[topic], blurred, crowd, rng) for _ in range(questions)]


@pytest.mark.parametrize("topic", TRUTHS)
@pytest.mark.parametrize("blurred", [False, True])
def test_most_of_ten_are_right_and_the_others_plausible(topic: str, blurred: bool):
    right = "unanswerable" if blurred else TRUTHS[topic]
    for given in ask_many(topic, blurred, Crowd()):
        counts = Counter(entry["answer"] for entry in given)
        assert counts.total() == 10
        assert counts[right] > 5
        assert set(counts) <= {right, *PLAUSIBLE[topic]}


def test_disagreement_is_as_stated():
    for rate in (0.0, 0.15):
        given = [entry for ten in ask_many("color", False, Crowd(disagreement=rate)) for entry in ten]
        wrong = sum(entry["answer"] != "red" for entry in given) / len(given)
        assert wrong == pytest.approx(rate, abs=0.02)


def test_the_wrong_are_less_confident():
    given = [entry for ten in ask_many("kind", False, Crowd()) for entry in ten]
    sure = {right: Counter() for right in (True, False)}
    for entry in given:
        sure[entry["answer"] == "circle"][entry["answer_confidence"]] += 1
    assert set(sure[True]) == set(sure[False]) == {"yes", "maybe", "no"}
    assert sure[True]["yes"] / sure[True].total() > 0.7 > 0.5 > sure[False]["yes"] / sure[False].total()


def test_a_divided_crowd_can_be_wrong_together():
    """With agreeing=0 the share of strays is as stated, and the largest group is wrong now and then."""
    many = ask_many("yes/no", False, Crowd(disagreement=0.4, agreeing=0))
    wrong = [sum(entry["answer"] != "no" for entry in ten) for ten in many]
    assert sum(wrong) / 10 / len(wrong) == pytest.approx(0.4, abs=0.03)
    assert sum(count > 5 for count in wrong) / len(wrong) == pytest.approx(0.17, abs=0.06)
