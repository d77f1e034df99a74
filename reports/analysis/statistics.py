"""Statistics for few runs: intervals, tests, variance components, ranks. Each function states its assumptions."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
ALPHA = 1 - CONFIDENCE
DECIDED = ("better", "worse")
"""Verdicts of tests that found a difference."""
BOOTSTRAP_FROM = 20
BOOTSTRAP_SEED = 20230117
EQUIVALENCE_MARGIN = 1.0
"""In points of a metric in per cent: smaller differences are irrelevant."""
FLAT = 1e-9
"""In the same points. Values closer than this, such as means of zeros, have no spread and cannot be tested."""
TOO_FEW, NO_SPREAD = "cannot be tested with this n", "cannot be tested without spread"


class Estimate(NamedTuple):
    """A mean over independent units, and its interval; low and high are NaN without an interval."""

    mean: float
    low: float
    high: float
    n: int


def estimate(values: NDArray[np.float64]) -> Estimate:
    """Mean and 95 % interval of independent values.

    A single value has no interval, nor do equal values, since every interval assumes some spread. Below 20 values a t
    interval, which assumes roughly normal values; from 20 on a seeded BCa bootstrap.
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
    """Difference of two means of independent values, with Welch's 95 % interval; without an interval if a side has a single
    value or neither has spread.

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
    """Whether Welch's test applies: two values per side, and some spread."""
    return min(len(ours), len(base)) > 1 and not (flat(ours) and flat(base))


def _welch(ours: NDArray[np.float64], base: NDArray[np.float64], alternative: str = "two-sided") -> Any:
    from scipy import stats

    with warnings.catch_warnings():
        # If one side has no spread, the other's spread decides, so scipy's warning does not apply.
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
        return stats.ttest_ind(np.asarray(ours), np.asarray(base), equal_var=False, alternative=alternative)


def verdict(gap: Estimate) -> str:
    """The verdict on a difference from scratch: better or worse only if the interval excludes zero."""
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
    """The difference of two groups of independent values and its verdict: that of `verdict`, or `equivalent within MARGIN` if two
    one-sided tests show that an undecided difference is within the margin."""
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
    """Test whether two means differ by less than `margin` (Welch, two one-sided t tests). p is NaN below two values per side and
    without any spread.

    Raises ValueError for a margin that is not positive.
    """
    if margin <= 0:
        raise ValueError(f"a margin of {margin}; it must be positive")
    if not _testable(ours, base):
        return Equivalence(float("nan"), margin, False)
    from statsmodels.stats.weightstats import ttost_ind

    p = float(ttost_ind(ours, base, -margin, margin, usevar="unequal")[0])
    return Equivalence(p, margin, bool(p < alpha))


def welch_p(ours: NDArray[np.float64], base: NDArray[np.float64]) -> float:
    """Two-sided p of Welch's test for two means of independent values; NaN if a side has one value or neither has spread."""
    if not _testable(ours, base):
        return float("nan")
    return float(_welch(ours, base).pvalue)


def welch_greater_p(one: NDArray[np.float64], two: NDArray[np.float64]) -> float:
    """One-sided p of Welch's test that the mean of `one` exceeds that of `two`; NaN as for `welch_p`."""
    return float(_welch(one, two, "greater").pvalue) if _testable(one, two) else float("nan")


TESTED = ("differs", "not distinguishable")


def words_for(p: float, alpha: float = 0.05) -> str:
    """The verdict of a p value corrected for its family; NaN means too few values for a test."""
    if not np.isfinite(p):
        return TOO_FEW
    return TESTED[0] if p < alpha else TESTED[1]


class PairedTest(NamedTuple):
    """A two-sided test of paired differences. `least_p` is the smallest p possible with this number of pairs."""

    p: float
    least_p: float
    n: int

    def words(self, alpha: float = 0.05) -> str:
        """The verdict; `cannot be tested` if no outcome could have been significant."""
        return words_for(self.p if self.least_p <= alpha else float("nan"), alpha)


EXACT_UP_TO = 16
FLIPS = 20_000


def sign_flip_test(differences: NDArray[np.float64], seed: int = BOOTSTRAP_SEED) -> PairedTest:
    """Permutation test of the mean of paired differences: exact up to 16 pairs, else with 20,000 seeded draws.

    Assumes that under the null hypothesis each difference is as likely as its negative.
    """
    from scipy import stats

    gaps = np.asarray(differences, dtype=np.float64)
    gaps = gaps[np.isfinite(gaps)]
    n = len(gaps)
    if n < 2:  # scipy requires two; a single difference always has p = 1
        return PairedTest(1.0, 1.0, 1) if n else PairedTest(float("nan"), float("nan"), 0)
    # Flips may give the same sum in another order, up to rounding. scipy's tolerance for such ties is relative to the
    # observed sum, which can be far smaller than the differences, so the statistic itself decides whether a sum is as
    # large as the observed one.
    observed = np.abs(gaps.sum()) - 1e-12 * np.abs(gaps).sum()

    def as_large(flipped: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        return np.asarray(np.abs(flipped.sum(axis)) >= observed, dtype=np.float64)

    exact = n <= EXACT_UP_TO
    test = stats.permutation_test(
        (gaps,),
        as_large,
        permutation_type="samples",
        alternative="greater",
        n_resamples=2**n if exact else FLIPS,
        rng=np.random.default_rng(seed),
    )
    return PairedTest(float(test.pvalue), 2.0 / 2**n if exact else 1 / (FLIPS + 1), n)


def holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Holm's adjustment of the p values of one family; NaN stays NaN and does not count."""
    from statsmodels.stats.multitest import multipletests

    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full_like(p, np.nan)
    known = np.isfinite(p)
    if known.any():
        adjusted[known] = multipletests(p[known], method="holm")[1]
    return adjusted


def probability_of_improvement(ours: NDArray[np.float64], base: NDArray[np.float64]) -> float:
    """P(a run of ours scores above a run of the baseline), ties count half; NaN without values."""
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


class VarianceShares(NamedTuple):
    """Variance components of a crossed design, in squared units of the score; never below zero.

    With one run per cell the residual is the interaction of the two seeds.
    """

    pretrain: float
    finetune: float
    residual: float


def variance_components(scores: NDArray[np.float64]) -> VarianceShares | None:
    """Components of pre-training seed, fine-tuning seed and residual, from a full table (pre-training seeds, fine-tuning seeds).

    Two random factors, method of moments. None if a factor has fewer than two levels or a cell is missing; nothing is imputed.
    """
    table = _full_table(scores)
    if table is None:
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


def nested_components(scores: NDArray[np.float64]) -> VarianceShares | None:
    """Components from a full table (pre-training seeds, fine-tunings of each) whose pre-trainings share no fine-tuning seed.

    The effect of a fine-tuning seed is then part of the residual and is returned as NaN. Method of moments; None as
    `variance_components`.
    """
    table = _full_table(scores)
    if table is None:
        return None
    within = float(table.var(1, ddof=1).mean())
    between = float(table.mean(1).var(ddof=1)) - within / table.shape[1]
    return VarianceShares(max(0.0, between), float("nan"), within)


def _full_table(scores: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """The table in float64; None if it has fewer than two rows or columns, or a cell is missing."""
    table = np.asarray(scores, dtype=np.float64)
    return table if table.ndim == 2 and min(table.shape) >= 2 and np.isfinite(table).all() else None


class Ranking(NamedTuple):
    """Friedman's test over independent blocks, mean ranks (1 is best), and Nemenyi's critical difference if it rejects."""

    p: float
    mean_ranks: NDArray[np.float64]
    critical_difference: float | None


def ranking(scores: NDArray[np.float64], alpha: float = 0.05) -> Ranking | None:
    """Rank methods over independent blocks, such as seeds, from a complete table (blocks, methods). None below three methods
    or three blocks, or with missing cells.

    The critical difference comes from scipy's studentised range: scikit-posthocs has the p values of Nemenyi's test, but not the
    difference that a rank diagram draws.
    """
    from scipy import stats

    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] < 3 or table.shape[1] < 3 or not np.isfinite(table).all():
        return None
    blocks, methods = table.shape
    ranks = stats.rankdata(-table, axis=1)
    # If all blocks are ties there is nothing to test, and scipy would divide by zero.
    p = float(stats.friedmanchisquare(*table.T).pvalue) if np.ptp(ranks) else float("nan")
    if not p < alpha:
        return Ranking(p, ranks.mean(0), None)
    studentised = stats.studentized_range.ppf(1 - alpha, methods, np.inf) / np.sqrt(2)
    return Ranking(p, ranks.mean(0), float(studentised * np.sqrt(methods * (methods + 1) / (6 * blocks))))
