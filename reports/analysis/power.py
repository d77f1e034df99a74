"""Power of Welch's test: detectable differences for a number of seeds, and seeds needed for a difference."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.reports.analysis.statistics import BOOTSTRAP_SEED, flat

ONE_POINT = 1.0


def pooled_deviation(one: NDArray[np.float64], two: NDArray[np.float64]) -> float:
    """Pooled standard deviation of two methods over seeds; NaN (unknown) below two degrees of freedom and without any spread."""
    spread = [(len(v) - 1, 0.0 if flat(v) else v.var(ddof=1)) for v in (one, two) if len(v) > 1]
    total, squares = sum(n for n, _ in spread), sum(n * v for n, v in spread)
    return float(np.sqrt(squares / total)) if total > 1 and squares else float("nan")


def seeds_to_see_a_point(one: NDArray[np.float64], two: NDArray[np.float64]) -> float:
    """Seeds per method needed to detect a difference of 1 point at 80 % power; NaN if the spread is unknown or 1,000 are not
    enough."""
    deviation = pooled_deviation(one, two)
    return float(seeds_needed(deviation, ONE_POINT) or np.nan) if np.isfinite(deviation) else float("nan")


def detectable_difference(deviation: float, n: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest true difference of two means of `n` seeds each that a t test detects with this power; infinite below two."""
    if n < 2:
        return float("inf")
    return _difference_in_deviations(n, power, alpha) * deviation


@cache
def _difference_in_deviations(n: int, power: float, alpha: float) -> float:
    from scipy import optimize

    return float(optimize.brentq(lambda size: welch_power(size, n, alpha) - power, 1e-6, 40.0, xtol=1e-4))


FORMULA_FROM = 10
POWER_DRAWS = 20_000


def welch_power(size: float, n: int, alpha: float = 0.05) -> float:
    """Power of Welch's test for two groups of `n` values whose means differ by `size` standard deviations.

    From 10 values per side by the non-central t distribution. For fewer, that formula gives Student's power, which Welch's
    test does not reach (36 % instead of 46 % at n = 3), so 20,000 seeded draws are used.
    """
    from scipy import stats

    if n < FORMULA_FROM:
        means, variances = _power_draws(n)
        gap = means[0] - means[1] + size
        spread = variances.sum(0) / n
        freedom = spread**2 / ((variances / n) ** 2).sum(0) * (n - 1)
        critical = stats.t.ppf(1 - alpha / 2, freedom)
        return float((np.abs(gap) > critical * np.sqrt(spread)).mean())
    shift, freedom = size * np.sqrt(n / 2), 2 * n - 2
    critical = stats.t.ppf(1 - alpha / 2, freedom)
    power = float(stats.nct.sf(critical, freedom, shift) + stats.nct.cdf(-critical, freedom, shift))
    # Where scipy's distribution is NaN, the power is close to one and the normal distribution gives it.
    return power if np.isfinite(power) else float(stats.norm.sf(critical - shift))


@cache
def _power_draws(n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means and variances (2, draws) of two groups of standard normal values."""
    values = np.random.default_rng(BOOTSTRAP_SEED).standard_normal((2, POWER_DRAWS, n))
    return values.mean(2), values.var(2, ddof=1)


MOST_SEEDS = 1000


def seeds_needed(deviation: float, size: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Seeds per method needed to detect a difference of `size` with this power; None if 1,000 are not enough."""
    if size <= 0:
        return None
    low, high = 2, MOST_SEEDS
    if detectable_difference(deviation, high, power, alpha) > size:
        return None
    while low < high:
        middle = (low + high) // 2
        if detectable_difference(deviation, middle, power, alpha) <= size:
            high = middle
        else:
            low = middle + 1
    return low
