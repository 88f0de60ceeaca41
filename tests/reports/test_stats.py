"""Bootstrap intervals and tests against closed forms and against values of statsmodels 0.15."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_llava_vqa.reports.stats import holm, mcnemar, paired_bootstrap, score_interval, statistic_interval

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


def test_a_mean_written_as_sums_has_the_interval_of_the_mean():
    error, interval = statistic_interval([(s, 1) for s in SCORES], lambda sums: sums[0] / sums[1], IMAGES, seed=3)
    expected_error, expected = score_interval(SCORES, IMAGES, seed=3)
    assert (error, *interval) == pytest.approx((expected_error, *expected))


def test_the_interval_of_a_ratio_of_sums():
    values = RNG.uniform(1, 2, size=(400, 2))
    error, _ = statistic_interval(values, lambda sums: sums[0] / sums[1], IMAGES, seed=0, resamples=4000)
    ratio = values[:, 0].sum() / values[:, 1].sum()
    delta_method = np.std(values[:, 0] - ratio * values[:, 1]) / values[:, 1].mean() / np.sqrt(len(values))
    assert error == pytest.approx(delta_method, rel=0.05)


def test_the_seed_decides():
    assert score_interval(SCORES, IMAGES, seed=1) == score_interval(SCORES, IMAGES, seed=1)
    assert score_interval(SCORES, IMAGES, seed=1) != score_interval(SCORES, IMAGES, seed=2)


@pytest.mark.parametrize(
    ("scores", "images", "message"),
    [
        ([], [], "scores: expected at least one score"),
        ([1.0], ["a", "b"], "expected one image id a score, got 2 for 1"),
        ([1.0, math.nan], ["a", "b"], r"scores\[1\]: expected a finite number, got nan"),
        ([None], ["a"], r"scores\[0\]: expected a finite number"),
    ],
)
def test_an_interval_of_bad_scores_is_refused(scores, images, message):
    with pytest.raises(ValueError, match=message):
        score_interval(scores, images, seed=0)


BETTER = np.clip(np.asarray(SCORES) + RNG.choice([0.0, 0.0, 0.0, 0.1, -0.1, 0.3], size=len(SCORES)), 0, 1).tolist()


def test_a_paired_difference_has_the_error_and_the_p_value_of_a_paired_test():
    found = paired_bootstrap(BETTER, SCORES, IMAGES, seed=0)
    differences = np.asarray(BETTER) - np.asarray(SCORES)
    error = differences.std() / np.sqrt(len(differences))
    assert found.difference == pytest.approx(differences.mean())
    assert found.standard_error == pytest.approx(error, rel=0.03)
    assert found.interval == pytest.approx(
        (differences.mean() - 1.96 * error, differences.mean() + 1.96 * error), abs=error / 5
    )
    weaker = np.where(np.arange(400) < 330, SCORES, BETTER).tolist()
    z = np.mean(np.subtract(weaker, SCORES)) / (np.std(np.subtract(weaker, SCORES)) / np.sqrt(400))
    assert paired_bootstrap(weaker, SCORES, IMAGES, seed=0).p_value == pytest.approx(
        math.erfc(abs(z) / math.sqrt(2)), abs=0.01
    )


def test_systems_change_places():
    one, other = (paired_bootstrap(a, b, IMAGES, seed=3) for a, b in ((BETTER, SCORES), (SCORES, BETTER)))
    assert other.difference == -one.difference
    assert other.interval == pytest.approx((-one.interval[1], -one.interval[0]))
    assert (other.p_value, other.standard_error) == pytest.approx((one.p_value, one.standard_error))


def test_equal_systems_do_not_differ():
    found = paired_bootstrap(SCORES, SCORES, IMAGES, seed=0)
    assert (found.difference, found.interval, found.p_value) == (0, (0, 0), 1)


def test_a_difference_on_every_question_is_never_certain():
    found = paired_bootstrap([1.0] * 9, [0.0] * 9, list("abcdefghi"), seed=0, resamples=99)
    assert (found.difference, found.standard_error, found.p_value) == (1, 0, 0.01)


def test_clusters_count_in_a_comparison_too():
    once = paired_bootstrap(BETTER, SCORES, IMAGES, seed=0)
    repeated = paired_bootstrap(BETTER * 3, SCORES * 3, IMAGES * 3, seed=0)
    assert (repeated.standard_error, repeated.p_value) == pytest.approx((once.standard_error, once.p_value))


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=60))
def test_mcnemar_is_the_binomial_test_of_the_answers_that_differ(pairs):
    first, second = map(list, zip(*pairs, strict=True))
    gained, lost = pairs.count((1, 0)), pairs.count((0, 1))
    n = gained + lost
    tail = sum(math.comb(n, k) for k in range(min(gained, lost) + 1)) / 2**n
    assert mcnemar(first, second) == pytest.approx(min(1, 2 * tail), abs=1e-12)
    assert mcnemar(second, first) == mcnemar(first, second)


def test_mcnemar_of_many_answers():
    first, second = [1] * 5100 + [0] * 4900, [0] * 5100 + [1] * 4900
    assert mcnemar(first, second) == pytest.approx(0.04658552770494645, rel=1e-9)  # statsmodels


def test_holm_adjusts_by_rank():
    p_values = {"vizwiz": 0.01, "gqa": 0.04, "pope": 0.03, "mme": 0.005, "seed": 0.9}
    adjusted = holm(p_values)
    assert list(adjusted) == list(p_values)
    assert adjusted == pytest.approx({"vizwiz": 0.04, "gqa": 0.09, "pope": 0.09, "mme": 0.025, "seed": 0.9})
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1, "b": 1}
    assert holm({}) == {}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired_bootstrap([1, 0], [1], "ab", seed=0), "second: expected as many scores .* got 1 for 2"),
        (lambda: paired_bootstrap([1, 0], [1, 0], "a", seed=0), "expected one image id a score, got 1 for 2"),
        (lambda: paired_bootstrap([1], [math.inf], "a", seed=0), r"second\[0\]: expected a finite number, got inf"),
        (lambda: mcnemar([1, 0.3], [1, 0]), r"first\[1\]: expected 0 or 1, got 0.3"),
        (lambda: mcnemar([1], [1, 0]), "second: expected as many scores .* got 2 for 1"),
        (lambda: mcnemar([], []), "first: expected at least one score"),
        (lambda: holm({"gqa": math.nan}), "gqa: expected a p-value from 0 to 1, got nan"),
    ],
)
def test_a_comparison_of_bad_scores_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
