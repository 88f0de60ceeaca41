"""Many numbers in a few: extremes, middle, and a histogram."""

import math
from collections.abc import Sequence
from typing import TypedDict

import numpy as np

BARS = 24


class Distribution(TypedDict):
    """Numbers summed up; `bars` are `(from, to, count)`, each up to but not including the next, the last included."""

    count: int
    min: float
    median: float
    mean: float
    p95: float
    max: float
    bars: list[tuple[float, float, int]]


def distribution(numbers: Sequence[float]) -> Distribution | None:
    """Sum numbers up in at most `BARS` bars of one width, whole where the numbers are whole; None without any."""
    if not numbers:
        return None
    values = np.asarray(numbers)
    counts, edges = np.histogram(values, bins=_edges(values))
    bars = zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True)
    return {
        "count": len(values),
        "min": values.min().item(),
        "median": float(np.median(values)),
        "mean": float(values.mean()),
        "p95": float(np.percentile(values, 95)),
        "max": values.max().item(),
        "bars": list(bars),
    }


def _edges(values: np.ndarray) -> np.ndarray:
    low, high = values.min().item(), values.max().item()
    if np.issubdtype(values.dtype, np.integer):
        width = math.ceil((high - low + 1) / BARS)
        return np.arange(low, high + width + 1, width)
    return np.linspace(low, high if high > low else low + 1, BARS + 1)
