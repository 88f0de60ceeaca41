"""How far a model's confidence can be trusted, and below which confidence `unanswerable` is the better answer.

Arrays hold one number an answer: its confidence, the probability that the model gave the whole of it, and its credit,
what the metric gave it, both 0 to 1. What was chosen on some answers is judged on answers to other images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_llava_vqa.errors import RecordError
from hf_llava_vqa.reports.stats import paired_bootstrap

TEMPERATURES = (0.001, 1000.0)
"""Between these a temperature is looked for: answers that are all right, or all wrong, would have none."""

NEVER, ALWAYS = 0.0, 2.0
"""Thresholds below and above every confidence."""

FOLDS = 5
BINS = 15
_NEAREST_TO_CERTAIN = 1e-7  # no temperature moves a confidence of exactly 0 or 1


@dataclass(frozen=True)
class Answered:
    """The answers to a labelled split, one an element."""

    confidence: np.ndarray  # [N]
    credit: np.ndarray  # [N]
    abstaining: np.ndarray  # [N], the credit that `unanswerable` would have had
    image_ids: Sequence[str]  # [N]

    def __getitem__(self, chosen: np.ndarray) -> "Answered":
        images = [image for image, kept in zip(self.image_ids, chosen, strict=True) if kept]
        return Answered(self.confidence[chosen], self.credit[chosen], self.abstaining[chosen], images)


def with_temperature(confidence: np.ndarray, temperature: float) -> np.ndarray:
    """Confidences at a temperature, which divides an answer's log-probability."""
    return np.exp(_log(confidence) / temperature)


def fit_temperature(confidence: np.ndarray, credit: np.ndarray) -> float:
    """The temperature at which the credits are likeliest, within `TEMPERATURES`.

    The log-likelihood of a credit c at confidence p is c·log p + (1 − c)·log(1 − p), concave in 1 / temperature: its
    slope has one root, found by bisection.
    """
    log = _log(confidence)
    low, high = TEMPERATURES
    for _ in range(60):
        temperature = float(np.sqrt(low * high))
        likely = np.exp(log / temperature)
        slope = float((log * (credit - likely) / -np.expm1(log / temperature)).sum())
        low, high = (low, temperature) if slope > 0 else (temperature, high)
    return temperature


def reliability(confidence: np.ndarray, credit: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Rows of `(mean confidence, mean credit, share of the answers)` [B, 3], one for each bin that is not empty."""
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    counts = np.bincount(bin_of, minlength=bins)
    sums = [np.bincount(bin_of, weights=values, minlength=bins) for values in (confidence, credit)]
    filled = counts > 0
    means = [total[filled] / counts[filled] for total in sums]
    return np.column_stack([*means, counts[filled] / counts.sum()])


def expected_calibration_error(confidence: np.ndarray, credit: np.ndarray, bins: int = BINS) -> float:
    """The distance between confidence and credit in a bin, averaged over the answers (Guo et al., 2017)."""
    sure, right, share = reliability(confidence, credit, bins).T
    return float((np.abs(sure - right) * share).sum())


def risk_coverage(confidence: np.ndarray, credit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coverage and risk [K] at each of the K confidences there are, the highest first.

    Coverage is the share of the answers that are at least as sure, risk is what they lack in credit on average.
    """
    order = np.argsort(-confidence, kind="stable")
    last = np.append(np.diff(confidence[order]) != 0, True)  # of its confidence
    count = np.arange(1, len(confidence) + 1)[last]
    return count / len(confidence), (1 - credit[order]).cumsum()[last] / count


def risk_coverage_area(confidence: np.ndarray, credit: np.ndarray) -> float:
    """The area under the risk–coverage curve, as steps: the mean risk over all coverages. Lower is better."""
    coverage, risk = risk_coverage(confidence, credit)
    return float((np.diff(coverage, prepend=0) * risk).sum())


def best_threshold(confidence: np.ndarray, credit: np.ndarray, abstaining: np.ndarray) -> float:
    """The threshold with the best mean credit if answers below it are replaced; of equals, that which replaces fewest.

    It lies halfway between the confidences that it parts, or is `NEVER` or `ALWAYS`.
    """
    levels, level_of = np.unique(confidence, return_inverse=True)
    gain = np.bincount(level_of, weights=abstaining - credit)
    best = int(np.append(0, gain.cumsum()).argmax())  # how many levels are replaced
    between = np.maximum((levels[:-1] + levels[1:]) / 2, np.nextafter(levels[:-1], 1))  # also of neighbouring floats
    return float([NEVER, *between, ALWAYS][best])


def calibrate(answered: Answered, *, seed: int) -> dict[str, Any]:
    """Fit temperature and threshold to all answers, and judge the fit on answers it has not seen.

    For the judgement the images are dealt to `FOLDS` parts, and each part is judged with temperature and threshold of
    the others.

    Returns:
        `temperature` and `threshold`, to be used on other splits; and judged so, `expected_calibration_error` and
        `accuracy`, each `before` and `after`, `abstained`, the share of the answers below the threshold, and `gain`,
        the difference of the accuracies with its standard error, 95 % interval by a bootstrap over images, and p-value.
        Nothing is fitted in `risk_coverage_area`.

    Raises:
        RecordError: fewer than two images.
    """
    confidence, credit = answered.confidence, answered.credit
    held_out = _cross_fitted(answered, seed)
    kept = np.where(held_out.abstained, answered.abstaining, credit)
    gain = paired_bootstrap(kept.tolist(), credit.tolist(), answered.image_ids, seed=seed)
    return {
        "temperature": fit_temperature(confidence, credit),
        "threshold": best_threshold(confidence, credit, answered.abstaining),
        "n": len(credit),
        "images": len(set(answered.image_ids)),
        "expected_calibration_error": {
            "before": expected_calibration_error(confidence, credit),
            "after": expected_calibration_error(held_out.confidence, credit),
        },
        "risk_coverage_area": risk_coverage_area(confidence, credit),
        "accuracy": {"before": float(credit.mean()), "after": float(kept.mean())},
        "abstained": float(held_out.abstained.mean()),
        "gain": {
            "difference": gain.difference,
            "standard_error": gain.standard_error,
            "interval": list(gain.interval),
            "p_value": gain.p_value,
        },
    }


@dataclass(frozen=True)
class _HeldOut:
    """What answers become with temperature and threshold of the other parts' images."""

    confidence: np.ndarray  # [N]
    abstained: np.ndarray  # [N] bool


def _cross_fitted(answered: Answered, seed: int) -> _HeldOut:
    part = _parts(answered.image_ids, seed)
    result = _HeldOut(np.empty(len(part)), np.empty(len(part), dtype=bool))
    for number in range(part.max() + 1):
        here, others = part == number, answered[part != number]
        temperature = fit_temperature(others.confidence, others.credit)
        threshold = best_threshold(others.confidence, others.credit, others.abstaining)
        result.confidence[here] = with_temperature(answered.confidence[here], temperature)
        result.abstained[here] = answered.confidence[here] < threshold
    return result


def _parts(image_ids: Sequence[str], seed: int) -> np.ndarray:
    """The part [N] of each answer; answers to one image are in one part."""
    images, image_of_answer = np.unique(np.asarray(image_ids), return_inverse=True)
    if len(images) < 2:
        raise RecordError("there are answers to one image only; what is fitted to it has to be judged on another")
    return (np.random.default_rng(seed).permutation(len(images)) % FOLDS)[image_of_answer]


def _log(confidence: np.ndarray) -> np.ndarray:
    return np.log(np.clip(confidence, _NEAREST_TO_CERTAIN, 1 - _NEAREST_TO_CERTAIN))
