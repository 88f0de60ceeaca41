"""The clustered bootstrap against closed forms."""

import numpy as np
import pytest

from hf_llava_vqa.reports.intervals import score_interval

RNG = np.random.default_rng(7)
SCORES = RNG.choice([0.0, 0.3, 0.6, 0.9, 1.0], size=400).tolist()
IMAGES = [f"image_{number}" for number in range(len(SCORES))]


def test_one_question_an_image_gives_the_error_of_a_mean():
    error, (low, high) = score_interval(SCORES, IMAGES, seed=0, resamples=4000)
    closed_form = np.std(SCORES) / np.sqrt(len(SCORES))
    assert error == pytest.approx(closed_form, rel=0.05)
    assert low == pytest.approx(np.mean(SCORES) - 1.96 * closed_form, abs=0.15 * closed_form)
    assert high == pytest.approx(np.mean(SCORES) + 1.96 * closed_form, abs=0.15 * closed_form)


def test_repeating_a_question_of_an_image_adds_no_certainty():
    once = score_interval(SCORES, IMAGES, seed=0)
    repeated = score_interval(SCORES * 5, IMAGES * 5, seed=0)
    assert (repeated[0], *repeated[1]) == pytest.approx((once[0], *once[1]))
    independent = score_interval(SCORES * 5, range(5 * len(SCORES)), seed=0)
    assert independent[0] < 0.6 * once[0]


def test_an_image_weighs_as_many_questions_as_it_has():
    scores, images = [1.0] * 9 + [0.0], ["a"] * 9 + ["b"]
    _, (low, high) = score_interval(scores, images, seed=0)
    assert (low, high) == (0.0, 1.0)
    error, _ = score_interval(scores, images, seed=0, resamples=20_000)
    # The mean is 1, 0.9 or 0 with probability 1/4, 1/2, 1/4.
    assert error == pytest.approx(np.sqrt((1 + 2 * 0.81) / 4 - ((1 + 1.8) / 4) ** 2), rel=0.02)


def test_the_seed_decides():
    assert score_interval(SCORES, IMAGES, seed=1) == score_interval(SCORES, IMAGES, seed=1)
    assert score_interval(SCORES, IMAGES, seed=1) != score_interval(SCORES, IMAGES, seed=2)


@pytest.mark.parametrize(("scores", "images"), [([], []), ([1.0], ["a", "b"])])
def test_wrong_lengths_are_refused(scores, images):
    with pytest.raises(ValueError, match="expected one image id a score"):
        score_interval(scores, images, seed=0)
