"""What may be said about a handful of runs, each function with its conditions (design section 10)."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
BOOTSTRAP_FROM = 20
BOOTSTRAP_SEED = 20230117
EQUIVALENCE_MARGIN = 1.0
"""In points of a metric in per cent: smaller differences are of no consequence here."""
FLAT = 1e-9
"""In the same points. Values that differ by less, such as means of only zeros, have no spread to judge anything by."""
TOO_FEW, NO_SPREAD = "cannot be tested with this n", "cannot be tested without spread"


class Estimate(NamedTuple):
    """A mean over independent units, and its interval; low and high are NaN where nothing can be said."""

    mean: float
    low: float
    high: float
    n: int


def estimate(values: NDArray[np.float64]) -> Estimate:
    """Mean and 95 % interval of independent values.

    One value has no interval, nor have values that are all the same, which no interval assumes. Below 20 a t interval, which
    assumes roughly normal values; from 20 a seeded BCa bootstrap.
    """
    values = np.asarray(values, dtype=np.float64)
    return _estimate(tuple(values[np.isfinite(values)].tolist()))


@cache
def _estimate(known: tuple[float, ...]) -> Estimate:
    from scipy import stats

    values, n = np.array(known), len(known)
    mean = float(values.mean()) if n else float("nan")
    if n < 2 or flat(values):
        return Estimate(mean, float("nan"), float("nan"), n)
    if n < BOOTSTRAP_FROM:
        half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))
        return Estimate(mean, mean - half, mean + half, n)
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    interval = stats.bootstrap((values,), np.mean, confidence_level=CONFIDENCE, rng=rng).confidence_interval
    return Estimate(mean, float(interval.low), float(interval.high), n)


def flat(values: NDArray[np.float64]) -> bool:
    """Whether values are all the same, up to rounding."""
    return bool(np.ptp(values) < FLAT)


def difference(ours: NDArray[np.float64], base: NDArray[np.float64]) -> Estimate:
    """Difference of two means of independent values, with Welch's 95 % interval; none where either side has one value, or both
    have no spread.

    `n` is the smaller of the two counts.
    """
    one, two = estimate(ours), estimate(base)
    n = min(one.n, two.n)
    gap = one.mean - two.mean
    if not _testable(ours, base):
        return Estimate(gap, float("nan"), float("nan"), n)
    interval = _welch(ours, base).confidence_interval(CONFIDENCE)
    return Estimate(gap, float(interval.low), float(interval.high), n)


def _testable(ours: NDArray[np.float64], base: NDArray[np.float64]) -> bool:
    """Whether Welch's test has what it needs: two values a side, and some spread."""
    return min(len(ours), len(base)) > 1 and not (flat(ours) and flat(base))


def _welch(ours: NDArray[np.float64], base: NDArray[np.float64], alternative: str = "two-sided") -> Any:
    from scipy import stats

    with warnings.catch_warnings():
        # One side may be without spread. Then the other's decides, and scipy need not warn of the first.
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
        return stats.ttest_ind(np.asarray(ours), np.asarray(base), equal_var=False, alternative=alternative)


def verdict(gap: Estimate) -> str:
    """Words for a difference to scratch: better and worse only where the interval leaves out zero."""
    if gap.n < 2:
        return TOO_FEW
    if not np.isfinite([gap.low, gap.high]).all():
        return NO_SPREAD
    if gap.low > 0:
        return "better"
    return "worse" if gap.high < 0 else "not distinguishable"


def judge(
    ours: NDArray[np.float64], base: NDArray[np.float64], margin: float = EQUIVALENCE_MARGIN
) -> tuple[Estimate, str]:
    """The difference of two groups of independent values, and the words for it: as `verdict`, and `equivalent within MARGIN`
    where the difference is not distinguishable from none and two one-sided tests put it within the margin."""
    gap = difference(ours, base)
    words = verdict(gap)
    if words == "not distinguishable" and tost(ours, base, margin).equivalent:
        words = f"equivalent within {margin:g}"
    return gap, words


class Equivalence(NamedTuple):
    """Two one-sided tests against a margin: the larger p value, and whether both reject."""

    p: float
    margin: float
    equivalent: bool


def tost(ours: NDArray[np.float64], base: NDArray[np.float64], margin: float, alpha: float = 0.05) -> Equivalence:
    """Whether two means differ by less than `margin` (Welch, two one-sided t tests). NaN and False below two values a side, and
    without any spread.

    Raises ValueError for a margin that is not positive.
    """
    if margin <= 0:
        raise ValueError(f"a margin of {margin}; it must be positive")
    one, two = (np.asarray(v, dtype=np.float64) for v in (ours, base))
    if not _testable(one, two):
        return Equivalence(float("nan"), margin, False)
    p = float(max(_welch(one + margin, two, "greater").pvalue, _welch(one - margin, two, "less").pvalue))
    return Equivalence(p, margin, bool(p < alpha))


def welch_p(ours: NDArray[np.float64], base: NDArray[np.float64]) -> float:
    """Two-sided p of Welch's test of two means of independent values; NaN where either side has one value, or both no spread."""
    if not _testable(ours, base):
        return float("nan")
    return float(_welch(ours, base).pvalue)


TESTED = ("differs", "not distinguishable")


def words_for(p: float, alpha: float = 0.05) -> str:
    """What a p value, corrected for its family, lets one say; NaN where too few values allow no test."""
    if not np.isfinite(p):
        return TOO_FEW
    return TESTED[0] if p < alpha else TESTED[1]


class PairedTest(NamedTuple):
    """A two-sided test of paired differences. `least_p` is the smallest p that so many pairs could have given."""

    p: float
    least_p: float
    n: int

    def words(self, alpha: float = 0.05) -> str:
        """What may be said; where no outcome could have been significant, that."""
        return words_for(self.p if self.least_p <= alpha else float("nan"), alpha)


EXACT_UP_TO = 16
FLIPS = 20_000


def sign_flip_test(differences: NDArray[np.float64], seed: int = BOOTSTRAP_SEED) -> PairedTest:
    """Permutation test of the mean of paired differences: exact up to 16 pairs, else with 20,000 seeded draws.

    Assumes that under the null hypothesis each difference is as likely as its negative.
    """
    gaps = np.asarray(differences, dtype=np.float64)
    gaps = gaps[np.isfinite(gaps)]
    n = len(gaps)
    if n == 0:
        return PairedTest(float("nan"), float("nan"), 0)
    if n <= EXACT_UP_TO:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        least = 2.0 / 2**n if n > 1 else 1.0
    else:
        rng = np.random.default_rng(seed)
        signs = np.concatenate([np.ones((1, n)), rng.choice([-1.0, 1.0], (FLIPS, n))])
        least = 1 / (FLIPS + 1)
    sums = np.abs(signs @ gaps)
    p = float((sums >= np.abs(gaps.sum()) - 1e-12 * np.abs(gaps).sum()).mean())
    return PairedTest(p, least, n)


def holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Holm's adjustment of p values of one family; NaN stays NaN and does not count."""
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full_like(p, np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    running = 0.0
    for place, index in enumerate(order):
        running = max(running, min(1.0, float(p[index]) * (len(order) - place)))
        adjusted[index] = running
    return adjusted


def probability_of_improvement(ours: NDArray[np.float64], base: NDArray[np.float64]) -> float:
    """P(a run of ours scores above a run of the base), ties count half; NaN without values."""
    one, two = (np.asarray(v, dtype=np.float64) for v in (ours, base))
    if not len(one) or not len(two):
        return float("nan")
    return float(((one[:, None] > two).mean() + (one[:, None] >= two).mean()) / 2)


def interquartile_mean(values: NDArray[np.float64]) -> float:
    """Mean of the middle half (scipy's trimmed mean at 25 %); NaN below four values, which have no middle half."""
    from scipy import stats

    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    return float(stats.trim_mean(values, 0.25)) if len(values) >= 4 else float("nan")


def detectable_difference(deviation: float, n: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest true difference of two means of `n` seeds each that a t test finds with this power; infinite below two."""
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

    From 10 values a side by the non-central t distribution; below, where Welch's test loses to Student's what the formula
    promises (36 % in place of 46 % at n = 3), by 20,000 seeded draws.
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
    # Where scipy's distribution gives no number the power is next to one, and the normal distribution gives it.
    return power if np.isfinite(power) else float(stats.norm.sf(critical - shift))


@cache
def _power_draws(n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means and variances (2, draws) of two groups of standard normal values."""
    values = np.random.default_rng(BOOTSTRAP_SEED).standard_normal((2, POWER_DRAWS, n))
    return values.mean(2), values.var(2, ddof=1)


MOST_SEEDS = 1000


def seeds_needed(deviation: float, size: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Seeds of each method that find a difference of `size` with this power; None where 1,000 would not do."""
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


class VarianceShares(NamedTuple):
    """Variance components of a crossed design, in squared units of the score; never below zero.

    With one run a cell the residual is the interaction of the two seeds.
    """

    pretrain: float
    finetune: float
    residual: float


def variance_components(scores: NDArray[np.float64]) -> VarianceShares | None:
    """Pre-training seed, fine-tuning seed and the rest, from a full table (pre-training seeds, fine-tuning seeds).

    Two random factors, method of moments. None where a seed has fewer than two levels or a cell is missing: it is not imputed.
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or min(table.shape) < 2 or not np.isfinite(table).all():
        return None
    a, b = table.shape
    mean = table.mean()
    rows, columns = table.mean(1), table.mean(0)
    by_row = b * ((rows - mean) ** 2).sum() / (a - 1)
    by_column = a * ((columns - mean) ** 2).sum() / (b - 1)
    rest = ((table - rows[:, None] - columns + mean) ** 2).sum() / ((a - 1) * (b - 1))
    return VarianceShares(
        max(0.0, float(by_row - rest) / b),
        max(0.0, float(by_column - rest) / a),
        float(rest),
    )


class Ranking(NamedTuple):
    """Friedman's test over independent blocks, mean ranks (1 is best), and Nemenyi's critical difference where it rejects."""

    p: float
    mean_ranks: NDArray[np.float64]
    critical_difference: float | None


def ranking(scores: NDArray[np.float64], alpha: float = 0.05) -> Ranking | None:
    """Rank methods over independent blocks, such as seeds: (blocks, methods), complete. None below three methods or three blocks,
    or with missing cells."""
    from scipy import stats

    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] < 3 or table.shape[1] < 3 or not np.isfinite(table).all():
        return None
    blocks, methods = table.shape
    ranks = stats.rankdata(-table, axis=1)
    # Where every block is one tie there is nothing to test, and scipy divides by zero.
    p = float(stats.friedmanchisquare(*table.T).pvalue) if np.ptp(ranks) else float("nan")
    if not p < alpha:
        return Ranking(p, ranks.mean(0), None)
    studentised = stats.studentized_range.ppf(1 - alpha, methods, np.inf) / np.sqrt(2)
    return Ranking(p, ranks.mean(0), float(studentised * np.sqrt(methods * (methods + 1) / (6 * blocks))))
