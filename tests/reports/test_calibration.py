"""Temperature, calibration error, risk–coverage and threshold: cases computed by hand, and what must always hold."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hf_llava_vqa.errors import RecordError
from hf_llava_vqa.reports.calibration import (
    ALWAYS,
    NEVER,
    TEMPERATURES,
    Answered,
    best_threshold,
    calibrate,
    expected_calibration_error,
    fit_temperature,
    reliability,
    risk_coverage,
    risk_coverage_area,
    with_temperature,
)

confidence = st.sampled_from([0.0, 1e-9, 0.1, 0.3, 0.3000000000000001, 0.5, 0.8, 1.0])
credit = st.sampled_from([0.0, 0.3, 0.6, 0.9, 1.0])
answers = st.lists(st.tuples(confidence, credit, credit), min_size=1, max_size=30)


def columns(rows):
    return [np.array(column) for column in zip(*rows, strict=True)]


def log_likelihood(p, c):
    return (c * np.log(p) + (1 - c) * np.log(1 - p)).sum()


def sampled(n, temperature, seed=0):
    """Confidences, and credits that are right as often as the confidences at the temperature say."""
    rng = np.random.default_rng(seed)
    said = rng.beta(3, 1.5, n)
    return said, (rng.random(n) < with_temperature(said, temperature)).astype(float)


def test_a_temperature_divides_the_log_probability():
    assert with_temperature(np.array([0.81, 0.25]), 2.0) == pytest.approx([0.9, 0.5])


def test_confidences_that_are_right_need_no_temperature():
    said = np.array([0.2] * 10 + [0.7] * 10)
    assert fit_temperature(said, np.array([1] * 2 + [0] * 8 + [1] * 7 + [0] * 3)) == pytest.approx(1, abs=1e-6)


def test_a_temperature_by_hand():
    # Half of the answers of confidence 0.25 are right: its root is. None is: as cold as can be.
    assert fit_temperature(np.full(4, 0.25), np.array([1.0, 0.0, 0.4, 0.6])) == pytest.approx(2)
    assert fit_temperature(np.full(4, 0.25), np.zeros(4)) < 0.01
    assert fit_temperature(np.full(4, 0.25), np.ones(4)) == pytest.approx(TEMPERATURES[1])


@given(st.sampled_from([0.5, 1.0, 2.0, 4.0]), st.integers(0, 100))
def test_the_temperature_that_made_the_credits_is_found(temperature, seed):
    assert fit_temperature(*sampled(20_000, temperature, seed)) == pytest.approx(temperature, rel=0.15)


@given(answers)
def test_no_other_temperature_is_likelier(rows):
    said, right, _ = columns(rows)
    best = fit_temperature(said, right)
    assert TEMPERATURES[0] <= best <= TEMPERATURES[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        found = log_likelihood(with_temperature(said, best), right)
        assume(np.isfinite(found))
        for other in (best / 1.3, best * 1.3):
            if TEMPERATURES[0] <= other <= TEMPERATURES[1]:
                likelihood = log_likelihood(with_temperature(said, other), right)
                assert not likelihood > found + 1e-6 * abs(found)


@given(answers, st.floats(0.05, 20))
def test_a_temperature_keeps_the_order(rows, temperature):
    said, _, _ = columns(rows)
    order = np.argsort(said)
    after = with_temperature(said, temperature)
    assert (np.diff(after[order]) >= 0).all()
    assert ((after >= 0) & (after <= 1)).all()


def test_the_calibration_error_of_two_bins():
    said, right = np.array([0.2, 0.4, 0.9, 1.0]), np.array([1.0, 0.0, 1.0, 0.5])
    assert reliability(said, right, bins=2).tolist() == [
        pytest.approx([0.3, 0.5, 0.5]),
        pytest.approx([0.95, 0.75, 0.5]),
    ]
    assert expected_calibration_error(said, right, bins=2) == pytest.approx(0.5 * 0.2 + 0.5 * 0.2)


def test_the_right_temperature_lowers_the_calibration_error():
    said, right = sampled(20_000, 2.0)
    after = with_temperature(said, fit_temperature(said, right))
    assert expected_calibration_error(after, right) < 0.02 < 0.08 < expected_calibration_error(said, right)


def test_risk_and_coverage_by_hand():
    said, right = np.array([0.5, 0.9, 0.5, 0.7]), np.array([1.0, 1.0, 0.0, 0.6])
    coverage, risk = risk_coverage(said, right)
    assert coverage.tolist() == [0.25, 0.5, 1.0]  # the two of 0.5 come together
    assert risk == pytest.approx([0, 0.2, 0.35])
    assert risk_coverage_area(said, right) == pytest.approx(0.25 * 0 + 0.25 * 0.2 + 0.5 * 0.35)


@given(answers)
def test_the_risk_of_all_answers_is_what_they_lack(rows):
    said, right, _ = columns(rows)
    coverage, risk = risk_coverage(said, right)
    assert (coverage[-1], risk[-1]) == (1, pytest.approx(1 - right.mean()))
    assert len(coverage) == len(set(said.tolist()))
    assert 0 <= risk_coverage_area(said, right) <= 1


def test_a_threshold_by_hand():
    said = np.array([0.1, 0.2, 0.2, 0.6, 0.9])
    right = np.array([0.0, 0.6, 0.0, 0.3, 1.0])
    instead = np.array([0.3, 0.3, 0.9, 0.3, 0.0])
    # Replaced up to 0.1: +0.3; up to 0.2: +0.9; up to 0.6: the same, for one answer less; all: −0.1.
    assert best_threshold(said, right, instead) == pytest.approx(0.4)
    assert best_threshold(said, right, right) == NEVER
    assert best_threshold(said, np.zeros(5), np.ones(5)) == ALWAYS


def after_replacing(said, right, instead, threshold):
    return np.where(said < threshold, instead, right).mean()


@given(answers)
def test_no_threshold_is_better_where_it_was_chosen(rows):
    said, right, instead = columns(rows)
    best = after_replacing(said, right, instead, best_threshold(said, right, instead))
    for other in (NEVER, *said, ALWAYS):
        assert best >= after_replacing(said, right, instead, other) - 1e-12


def answered(n=3000, seed=0, images=None):
    """Answers that are unanswerable the more often the less sure the model is."""
    rng = np.random.default_rng(seed)
    said, right = sampled(n, 0.5, seed)
    instead = np.where(rng.random(n) < 1 - said**2, 1.0, 0.0) * (1 - right)
    return Answered(said, right, instead, images or [str(number // 2) for number in range(n)])


def test_what_a_calibration_says():
    found = calibrate(answered(), seed=0)
    assert found["temperature"] == pytest.approx(0.5, rel=0.15)
    assert (found["n"], found["images"]) == (3000, 1500)
    assert found["expected_calibration_error"]["after"] < 0.04 < found["expected_calibration_error"]["before"]
    assert found["gain"]["difference"] == pytest.approx(found["accuracy"]["after"] - found["accuracy"]["before"])
    low, high = found["gain"]["interval"]
    assert 0 < low < found["gain"]["difference"] < high
    assert calibrate(answered(), seed=0) == found


def test_a_threshold_of_noise_is_no_gain():
    """What a confidence that says nothing wins where it was chosen, it does not win on other images."""
    rng = np.random.default_rng(1)
    differences = []
    for _ in range(40):
        said, right, instead = rng.random(60), rng.choice([0.0, 1.0], 60), rng.choice([0.0, 1.0], 60)
        noise = Answered(said, right, instead, [str(number) for number in range(60)])
        chosen = after_replacing(said, right, instead, best_threshold(said, right, instead)) - right.mean()
        assert chosen >= 0
        differences.append((chosen, calibrate(noise, seed=0)["gain"]["difference"]))
    chosen, found = np.mean(differences, axis=0)
    assert found < 0.02 < 0.05 < chosen


def test_an_image_is_judged_with_what_other_images_taught():
    # What suits `a` (replace everything) is the worst for `b`, and the other way round.
    right, instead = np.array([0.0, 0.0, 1.0, 1.0]), np.array([1.0, 1.0, 0.0, 0.0])
    found = calibrate(Answered(np.full(4, 0.5), right, instead, ["a", "a", "b", "b"]), seed=0)
    assert (found["accuracy"], found["abstained"]) == ({"before": 0.5, "after": 0.0}, 0.5)
    assert found["threshold"] == NEVER


def test_one_image_is_too_few():
    with pytest.raises(RecordError, match="answers to one image only"):
        calibrate(answered(4, images=["a"] * 4), seed=0)
