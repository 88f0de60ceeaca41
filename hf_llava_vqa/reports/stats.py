"""How sure a score is, and whether two systems differ: intervals and tests of scores of single questions.

Scores are in one order throughout, one a question. What is drawn at random depends on the seed alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Interval = tuple[float, float]
Scores = Sequence[float]


def score_interval(
    per_question_scores: Scores, image_ids: Sequence[str], *, seed: int, resamples: int = 1000
) -> tuple[float, Interval]:
    """Return the standard error and the 95 % percentile interval of the mean, from a clustered bootstrap.

    Questions about one image succeed and fail together, so images are resampled, each with all its questions.
    With a single image nothing can be resampled: the error is 0 and says nothing.

    Args:
        per_question_scores: one score a question.
        image_ids: the image of each question, in the same order.
        seed: fixes the resamples; the same input gives the same output.

    Raises:
        ValueError: the two differ in length, there is no question, or a score is not a finite number.
    """
    scores = _checked(per_question_scores, "scores")
    means = np.array(list(_resampled_means(scores, image_ids, seed, resamples)))
    return float(means.std(ddof=1)), _percentiles(means)


def statistic_interval(
    counts: Sequence[Sequence[float]],
    statistic: Callable[[Sequence[float]], float],
    image_ids: Sequence[str],
    *,
    seed: int,
    resamples: int = 1000,
) -> tuple[float, Interval]:
    """Return what `score_interval` does of a score that is no mean, such as F1: a function of sums over the questions.

    Args:
        counts: for each question the numbers that are summed.
        statistic: the sums -> the score.
        image_ids, seed, resamples: as in `score_interval`.

    Raises:
        ValueError: `counts` and `image_ids` differ in length.
    """
    sums = _resampled_sums(np.asarray(counts, dtype=np.float64), image_ids, seed, resamples)
    values = np.array([statistic(total.tolist()) for total in sums])
    return float(values.std(ddof=1)), _percentiles(values)


@dataclass(frozen=True)
class Difference:
    """How much better the first of two systems is than the second, on the same questions."""

    difference: float  # of the mean scores
    standard_error: float
    interval: Interval  # 95 %
    p_value: float  # two-sided, of a difference as large as this if there is none


def paired_bootstrap(
    first: Scores, second: Scores, image_ids: Sequence[str], *, seed: int, resamples: int = 10_000
) -> Difference:
    """Compare two systems by a bootstrap of their questions' differences, clustered by image.

    The p-value is the share of resamples whose difference lies as far from the observed one as that lies from 0, with
    the observed data counted as one resample more: it is never 0.

    Raises:
        ValueError: as `score_interval`.
    """
    differences = _checked(first, "first") - _checked(second, "second", len(first))
    observed = float(differences.mean())
    resampled = np.array(list(_resampled_means(differences, image_ids, seed, resamples)))
    # Rounding must not decide whether a resample equal to the data counts.
    extreme = np.abs(resampled - observed) >= abs(observed) * (1 - 1e-9)
    p_value = (1 + int(extreme.sum())) / (1 + resamples)
    return Difference(observed, float(resampled.std(ddof=1)), _percentiles(resampled), p_value)


def mcnemar(first: Scores, second: Scores) -> float:
    """Return the exact two-sided p-value of McNemar's test of two systems' right (1) and wrong (0) answers.

    Questions are taken as independent: with many questions an image use `paired_bootstrap`.

    Raises:
        ValueError: the two differ in length, there is no question, or a score is neither 0 nor 1.
    """
    right, other_right = _right_or_wrong(first, "first"), _right_or_wrong(second, "second", len(first))
    only_first = int((right > other_right).sum())
    only_second = int((right < other_right).sum())
    return min(1.0, 2 * _at_most(min(only_first, only_second), only_first + only_second))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return the p-values of several tests, by name, adjusted by Holm's method: each below α is significant while the
    chance of even one false alarm among all of them stays below α.

    Raises:
        ValueError: a p-value is not a number from 0 to 1.
    """
    for name, p_value in p_values.items():
        if not 0 <= p_value <= 1:
            raise ValueError(f"{name}: expected a p-value from 0 to 1, got {p_value!r}")
    adjusted, largest = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def _resampled_means(scores: np.ndarray, image_ids: Sequence[str], seed: int, resamples: int) -> Iterator[float]:
    """Yield the mean over the questions of as many images, drawn with replacement, as there are."""
    counts = np.column_stack([scores, np.ones(len(scores))])
    for total, questions in _resampled_sums(counts, image_ids, seed, resamples):
        yield total / questions


def _resampled_sums(counts: np.ndarray, image_ids: Sequence[str], seed: int, resamples: int) -> Iterator[np.ndarray]:
    """Yield the sums of the columns over the questions of as many images, drawn with replacement, as there are."""
    if len(counts) != len(image_ids):
        raise ValueError(f"expected one image id a score, got {len(image_ids)} for {len(counts)}")
    _, image_of_question = np.unique(np.asarray(image_ids), return_inverse=True)
    totals = np.column_stack([np.bincount(image_of_question, weights=column) for column in counts.T])
    rng = np.random.default_rng(seed)
    # One resample at a time: all draws at once would take gigabytes on the large benchmarks.
    for _ in range(resamples):
        yield totals[rng.integers(len(totals), size=len(totals))].sum(axis=0)


def _percentiles(means: np.ndarray) -> Interval:
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _at_most(successes: int, n: int) -> float:
    """Return the probability of at most so many heads in n throws of a coin."""
    k = np.arange(1, successes + 1)
    log_choices = np.concatenate([[0.0], np.cumsum(np.log(n - k + 1) - np.log(k))])
    return float(np.exp(log_choices - n * np.log(2)).sum())


def _right_or_wrong(scores: Scores, name: str, length: int | None = None) -> np.ndarray:
    values = _checked(scores, name, length)
    _refuse(~np.isin(values, (0, 1)), values, name, "0 or 1")
    return values


def _checked(scores: Scores, name: str, length: int | None = None) -> np.ndarray:
    values = np.asarray(scores, dtype=np.float64)
    if not len(values):
        raise ValueError(f"{name}: expected at least one score")
    if length not in (None, len(values)):
        raise ValueError(f"{name}: expected as many scores as the first system has, got {len(values)} for {length}")
    _refuse(~np.isfinite(values), values, name, "a finite number")
    return values


def _refuse(wrong: np.ndarray, values: np.ndarray, name: str, expected: str) -> None:
    if wrong.any():
        place = int(wrong.argmax())
        raise ValueError(f"{name}[{place}]: expected {expected}, got {values[place]}")
