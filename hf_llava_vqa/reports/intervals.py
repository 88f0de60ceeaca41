"""How sure a score is: standard errors and 95 % intervals of means over questions."""

from collections.abc import Sequence

import numpy as np

Interval = tuple[float, float]


def score_interval(
    per_question_scores: Sequence[float], image_ids: Sequence[str], *, seed: int, resamples: int = 1000
) -> tuple[float, Interval]:
    """Return the standard error and the 95 % percentile interval of the mean, from a clustered bootstrap.

    Questions about one image succeed and fail together, so images are resampled, each with all its questions.
    With a single image nothing can be resampled: the error is 0 and says nothing.

    Args:
        per_question_scores: one score a question.
        image_ids: the image of each question, in the same order.
        seed: fixes the resamples; the same input gives the same output.

    Raises:
        ValueError: the two differ in length, or there is no question.
    """
    if len(per_question_scores) != len(image_ids) or not len(image_ids):
        raise ValueError(f"expected one image id a score, got {len(image_ids)} for {len(per_question_scores)}")
    _, image_of_question = np.unique(np.asarray(image_ids), return_inverse=True)
    totals = np.bincount(image_of_question, weights=np.asarray(per_question_scores, dtype=np.float64))
    questions = np.bincount(image_of_question)
    rng = np.random.default_rng(seed)
    # One resample at a time: all draws at once would take gigabytes on the large benchmarks.
    draws = (rng.integers(len(totals), size=len(totals)) for _ in range(resamples))
    means = np.array([totals[images].sum() / questions[images].sum() for images in draws])
    low, high = np.quantile(means, [0.025, 0.975])
    return float(means.std(ddof=1)), (float(low), float(high))
