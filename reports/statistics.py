"""What may be said about a handful of runs, each function with its conditions (design section 10)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
BOOTSTRAP_FROM = 20
BOOTSTRAP_SEED = 20230117


class Estimate(NamedTuple):
    """A mean over independent units, and its interval; low and high are NaN where nothing can be said."""

    mean: float
    low: float
    high: float
    n: int


def estimate(values: NDArray[np.float64]) -> Estimate:
    """Mean and 95 % interval of independent values.

    One value has no interval. Below 20 a t interval, which assumes roughly normal values; from 20 a seeded BCa bootstrap.
    """
    from scipy import stats

    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    n = len(values)
    mean = float(values.mean()) if n else float("nan")
    if n < 2:
        return Estimate(mean, float("nan"), float("nan"), n)
    if n < BOOTSTRAP_FROM or np.ptp(values) == 0:
        half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))
        return Estimate(mean, mean - half, mean + half, n)
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    interval = stats.bootstrap((values,), np.mean, confidence_level=CONFIDENCE, rng=rng).confidence_interval
    return Estimate(mean, float(interval.low), float(interval.high), n)


def difference(ours: NDArray[np.float64], base: NDArray[np.float64]) -> Estimate:
    """Difference of two means of independent values, with Welch's 95 % interval; none where either side has one value.

    `n` is the smaller of the two counts.
    """
    from scipy import stats

    one, two = estimate(ours), estimate(base)
    n = min(one.n, two.n)
    gap = one.mean - two.mean
    if n < 2:
        return Estimate(gap, float("nan"), float("nan"), n)
    test = stats.ttest_ind(np.asarray(ours), np.asarray(base), equal_var=False)
    interval = test.confidence_interval(CONFIDENCE)
    return Estimate(gap, float(interval.low), float(interval.high), n)


def verdict(gap: Estimate) -> str:
    """Words for a difference to scratch: better and worse only where the interval leaves out zero."""
    if gap.n < 2 or not np.isfinite([gap.low, gap.high]).all():
        return "cannot be tested with this n"
    if gap.low > 0:
        return "better"
    return "worse" if gap.high < 0 else "not distinguishable"
