"""The paper's numeric statements, tested on runs of the same cells (docs/study/design.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import TypeAdapter

from pretrain_bench.benchmarks.specs.base import Name, Spec
from pretrain_bench.benchmarks.specs.probes import FINETUNE
from pretrain_bench.reports.analysis.columns import ROW, UNIT
from pretrain_bench.reports.analysis.convergence import WITHIN_POINTS
from pretrain_bench.reports.analysis.curves import Curve
from pretrain_bench.reports.analysis.failed_pretraining import FailedPretraining, failed_by_row
from pretrain_bench.reports.analysis.method_cards import BASELINE
from pretrain_bench.reports.analysis.scores import by_seed
from pretrain_bench.reports.analysis.statistics import (
    ALPHA,
    BOOTSTRAP_SEED,
    EQUIVALENCE_MARGIN,
    Estimate,
    difference,
    holm,
    tost,
    welch_greater_p,
    welch_p,
)

if TYPE_CHECKING:
    import pandas as pd

FILE = Path(__file__).parent.parent / "published" / "claims.yaml"
HOLDS, FAILS, CANNOT_TELL = "holds", "does not hold", "cannot tell"
SAME_DATA_MARGIN = 0.5
"""Points within which the paper's differences on ScanNet with all labels lie."""
OVER_RATIOS = ("smallest_spread", "greatest_low")
RATIOS = ("5%", "20%", "100%")
"""Label ratios over which a gain's spread and lowest value are compared."""
EARLY, ORDERED = 0.05, 0.1
"""Shares of the fine-tuning steps at which curves are read: 1,000 and 2,000 of the paper's 20,000."""
DRAWS = 10_000
LEAST_SEEDS, LEAST_METHODS = 3, 3
ONE_SETTING = ["budget", "profile"]

Units = Mapping[str, Mapping[int, float]]
"""Method to pre-training seed to the mean score of its fine-tunings, in per cent."""


class Claim(Spec):
    """A statement of the paper, and how it is tested here."""

    family: Literal["A", "B", "C", "D", "E", "F"]
    test: Literal["better", "equivalent", "smallest_spread", "greatest_low", "early", "order"]
    task: Name
    method: Name | None = None
    rivals: tuple[Name, ...] = ()
    gain: float | None = None


class Tested(NamedTuple):
    """The result of a test: the estimate; p for the claim and for its opposite, without correction, NaN if the verdict does not
    rest on p values; `p_equivalent`, of the equivalence test that can decide against the claim; and the verdict that holds unless
    a corrected p decides. Of a two-sided test p counts for the side of the estimate."""

    value: Estimate
    p: float = float("nan")
    p_opposite: float = float("nan")
    p_equivalent: float = float("nan")
    verdict: str = CANNOT_TELL


@cache
def published_claims() -> tuple[Claim, ...]:
    """The statements of `reports/published/claims.yaml`, in order."""
    return TypeAdapter(tuple[Claim, ...]).validate_python(yaml.safe_load(FILE.read_text()))


def claims(
    runs: pd.DataFrame, curves: Iterable[Curve], failed_pretrainings: Collection[FailedPretraining] = ()
) -> pd.DataFrame:
    """One row for each statement whose cells these fine-tunings cover, for each budget and profile.

    Columns: `family`, `test`, `task`, `method` (empty: all); `published`, the difference that the paper states, if any;
    `value` with `low` and `high`, a difference in points, a share of bootstrap samples or a rank correlation; `n`, the number of
    pre-training seeds, the fewest of a method; `failed`, the number of seeds of these methods that are left out since their
    pre-training or one of their runs failed; `p` for the statement and `p_opposite` against it, each with Holm's correction for
    the whole family in `p_holm` and `p_opposite_holm`; `p_equivalent`; `verdict`; `p_of_verdict`, of the test behind it.

    A statement about a method is left out without runs of it or of scratch, and if its cells were run under two conditions or the
    method was pre-trained in two ways, which are never averaged. `curves` are the validation curves of these runs.
    """
    import pandas as pd

    tuned = runs[runs["protocol"] == FINETUNE] if len(runs) else runs
    tables, by_key = [], {curve.key: curve for curve in curves}
    for (budget, profile), mine in tuned.groupby(ONE_SETTING) if len(tuned) else []:
        rows = []
        for claim in published_claims():
            groups = _groups(claim, mine)
            found = _tested(claim, groups, by_key)
            if found is not None:
                named = {**claim.model_dump(exclude={"rivals"}), "method": claim.method or ""}
                named |= {"budget": budget, "profile": profile, "failed": _failed(claim, groups, failed_pretrainings)}
                rows.append({**named, **found._asdict()})
        if rows:
            tables.append(_with_verdicts(pd.DataFrame(rows)))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _with_verdicts(rows: pd.DataFrame) -> pd.DataFrame:
    """The corrected p values, and the verdicts that follow from them."""
    values: list[Estimate] = rows.pop("value").tolist()
    rows = rows.assign(**{name: [getattr(v, name) for v in values] for name in ("low", "high", "n")})
    rows.insert(0, "value", [v.mean for v in values])
    rows["gain"] = rows["gain"].astype(float)  # None if no statement of this table has one
    for column in ("p", "p_opposite"):
        rows[f"{column}_holm"] = rows.groupby("family")[column].transform(_corrected)
    two_sided = rows["test"] == "better"
    opposite = (rows["p_opposite_holm"] < ALPHA) & (~two_sided | (rows["value"] < 0))
    rows.loc[(rows["p_holm"] < ALPHA) & (~two_sided | (rows["value"] > 0)), "verdict"] = HOLDS
    rows.loc[opposite, "verdict"] = FAILS
    against = rows["p_opposite_holm"].where(opposite, rows["p_equivalent"])
    rows["p_of_verdict"] = against.where(rows["verdict"] == FAILS, rows["p_holm"])
    return rows.rename(columns={"gain": "published"})


def _corrected(p: pd.Series) -> NDArray[np.float64]:
    """Holm's correction for all statements of the family `p.name`, also those that were not or cannot be tested."""
    size = sum(claim.family == p.name for claim in published_claims())
    known = p.notna().to_numpy()
    corrected = np.full(len(p), np.nan)
    corrected[known] = holm(np.append(p[known], np.ones(size - known.sum())))[: known.sum()]
    return corrected


def _tested(claim: Claim, groups: Sequence[pd.DataFrame], curves: Mapping[str, Curve]) -> Tested | None:
    if claim.test in OVER_RATIOS:
        return _over_ratios(claim, [_units(group) for group in groups])
    (mine,) = groups
    units = _units(mine)
    own = [curve for curve in (curves[key] for key in mine["key"] if key in curves) if _is_used(curve, units)]
    if claim.test == "order":
        return _order(units, own)
    if claim.method not in units or BASELINE not in units:
        return None
    ours, base = _values(units[claim.method]), _values(units[BASELINE])
    if claim.test == "better":
        return better(ours, base)
    if claim.test == "equivalent":
        return equivalent(ours, base)
    early = _at_share(own, EARLY).get(claim.method)
    return None if early is None else reached(_values(early), base)


def _groups(claim: Claim, runs: pd.DataFrame) -> list[pd.DataFrame]:
    """The runs that a statement is about, by label ratio. Failed runs of other conditions than those of the good ones are left
    out, such as those of earlier code."""
    mine = runs[runs["task"] == claim.task]
    found = []
    for ratio in RATIOS if claim.test in OVER_RATIOS else ("100%",):
        group = mine[mine["label_ratio"] == ratio]
        good = group.loc[group["outcome"] == "ok", "conditions"]
        found.append(group[group["conditions"].isin(good)])
    return found


def _units(runs: pd.DataFrame) -> dict[str, dict[int, float]]:
    """Empty if the runs have several conditions; without methods that have several rows, and seeds of which a run failed."""
    if runs["conditions"].nunique() != 1:
        return {}
    rows, lost = by_seed(runs), _seeds_of_failed_runs(runs)
    counts = Counter(method for method, *_ in rows)
    return {
        row[0]: {seed: score for seed, score in seeds.items() if (row, seed) not in lost}
        for row, seeds in rows.items()
        if counts[row[0]] == 1
    }


def _seeds_of_failed_runs(runs: pd.DataFrame) -> set[tuple[tuple[str, ...], int]]:
    """Row (ROW, of which the first is the method) and pre-training seed of every run that failed, for rows with good runs."""
    good = set(map(tuple, runs.loc[runs["outcome"] == "ok", ROW].astype(str).to_numpy()))
    failed = runs.loc[runs["outcome"] != "ok", [*ROW, UNIT]]
    lost = {(tuple(map(str, row)), int(seed)) for *row, seed in failed.itertuples(index=False, name=None)}
    return {(row, seed) for row, seed in lost if row in good}


def _failed(claim: Claim, groups: Iterable[pd.DataFrame], failed_pretrainings: Collection[FailedPretraining]) -> int:
    """The number of pre-training seeds of the methods that a statement compares that failed, or of which a run failed."""
    lost: set[tuple[str, int]] = set()
    for group in (g for g in groups if len(g)):
        lost |= {(row[0], seed) for row, seed in _seeds_of_failed_runs(group)}
        lost |= {
            (one.method, one.seed) for several in failed_by_row(group, failed_pretrainings).values() for one in several
        }
    compared = {claim.method, *claim.rivals, BASELINE} if claim.method else _papers_methods()
    return sum(method in compared for method, _ in lost)


def _papers_methods() -> set[str]:
    """Scratch and the methods of the statements."""
    return {BASELINE, *(claim.method for claim in published_claims() if claim.method)}


def _is_used(curve: Curve, units: Units) -> bool:
    return curve.pretrain_seed in units.get(curve.method, {})


def _values(scores: Mapping[int, float]) -> NDArray[np.float64]:
    return np.array([scores[seed] for seed in sorted(scores)])


def better(ours: NDArray[np.float64], base: NDArray[np.float64]) -> Tested:
    """Whether `ours` is better than `base` (two-sided); not so if it is worse, or else equivalent within a point."""
    p = welch_p(ours, base)
    within = tost(ours, base, EQUIVALENCE_MARGIN)
    return Tested(difference(ours, base), p, p, within.p, FAILS if within.equivalent else CANNOT_TELL)


def equivalent(ours: NDArray[np.float64], base: NDArray[np.float64], margin: float = SAME_DATA_MARGIN) -> Tested:
    """Whether two means differ by less than `margin`; not so if they differ by more, in either direction."""
    outside = min(welch_greater_p(ours, base + margin), welch_greater_p(base, ours + margin))
    return Tested(difference(ours, base), tost(ours, base, margin).p, float(np.minimum(1.0, 2 * outside)))


def reached(early: NDArray[np.float64], final: NDArray[np.float64], within: float = WITHIN_POINTS) -> Tested:
    """Whether early scores are not lower than final ones less `within` points (one-sided); the estimate is their difference."""
    goal = final - within
    return Tested(difference(early, final), welch_greater_p(early, goal), welch_greater_p(goal, early))


def _over_ratios(claim: Claim, ratios: Sequence[Units]) -> Tested | None:
    """The share of bootstrap samples of the seeds in which the method leads its rivals."""
    assert claim.method is not None
    named = (claim.method, *claim.rivals)
    if any(method not in units for method in (*named, BASELINE) for units in ratios):
        return None
    tables = []  # for each method (seeds, ratios): the ratios share a pre-training, so a seed is drawn with all of them
    for method in (*named, BASELINE):
        seeds = sorted(set.intersection(*(set(units[method]) for units in ratios)))
        tables.append(np.array([[units[method][s] for units in ratios] for s in seeds]).reshape(-1, len(ratios)))
    n = min(len(table) for table in tables)
    if n < LEAST_SEEDS:
        return _untested(n)
    share = leads(tables[:-1], tables[-1], claim.test == "smallest_spread")
    verdict = HOLDS if share >= 1 - ALPHA / 2 else FAILS if share < ALPHA / 2 else CANNOT_TELL
    return Tested(Estimate(share, float("nan"), float("nan"), n), verdict=verdict)


def _untested(n: int) -> Tested:
    return Tested(Estimate(float("nan"), float("nan"), float("nan"), n))


def leads(methods: Sequence[NDArray[np.float64]], base: NDArray[np.float64], by_spread: bool) -> float:
    """The share of bootstrap samples of the seeds in which the first of `methods`, each (seeds, ratios) in per cent, has the
    smallest standard deviation over ratios of its mean gains, or else the greatest lowest gain; a tie counts half. Seeded."""
    rng = np.random.default_rng(BOOTSTRAP_SEED)

    def means(table: NDArray[np.float64]) -> NDArray[np.float64]:
        return table[rng.integers(len(table), size=(DRAWS, len(table)))].mean(1)

    scratch = means(base)
    gains = [means(table) - scratch for table in methods]
    values = np.array([-g.std(1, ddof=1) if by_spread else g.min(1) for g in gains])
    best = values[1:].max(0)
    return float((values[0] > best).mean() + (values[0] == best).mean() / 2)


def _at_share(curves: Iterable[Curve], share: float) -> dict[str, dict[int, float]]:
    """Method to pre-training seed to the mean score at this share of the steps, in per cent; without runs that were not validated
    there."""
    at: dict[str, dict[int, list[float]]] = {}
    for curve in curves:
        score = _score_at(curve, share)
        if score is not None:
            at.setdefault(curve.method, {}).setdefault(curve.pretrain_seed, []).append(100 * score)
    return {m: {s: float(np.mean(v)) for s, v in seeds.items()} for m, seeds in at.items()}


def _score_at(curve: Curve, share: float) -> float | None:
    wanted = round(share * curve.steps[-1])
    return next((v for s, v in zip(curve.steps, curve.scores, strict=True) if s == wanted), None)


def _order(final: Units, curves: Iterable[Curve]) -> Tested | None:
    """The rank correlation of the means of scratch and the paper's methods early and in the end, with its interval."""
    early = _at_share(curves, ORDERED)
    methods = [m for m in sorted(_papers_methods() & set(final)) if m in early]
    pairs = [np.array([(early[m][s], final[m][s]) for s in sorted(early[m]) if s in final[m]]) for m in methods]
    n = min((len(p) for p in pairs), default=0)
    if len(methods) < LEAST_METHODS:
        return None
    if n < LEAST_SEEDS or (np.ptp([p.mean(0) for p in pairs], axis=0) == 0).any():
        return _untested(n)
    value, low, high = rank_correlation(pairs)
    return Tested(Estimate(value, low, high, n), verdict=HOLDS if low > 0 else FAILS if high < 0 else CANNOT_TELL)


def rank_correlation(pairs: Iterable[NDArray[np.float64]]) -> tuple[float, float, float]:
    """Spearman's correlation of the methods' mean early and final scores, each (seeds, 2), and its 95 % interval: a seeded
    bootstrap of the seeds of each method.

    In every draw one half of a method's seeds gives its early mean and the other half its final one. If both were of the same
    seeds, noise that lasts from early to late would count as an order, and in up to half of all studies methods without any
    difference would correlate. The correlation is the mean over the splits.
    """
    from scipy.stats import rankdata

    rng, pairs = np.random.default_rng(BOOTSTRAP_SEED), list(pairs)

    def correlation(means: NDArray[np.float64]) -> NDArray[np.float64]:
        ranks = rankdata(means, axis=-2)
        centred = ranks - ranks.mean(-2, keepdims=True)
        with np.errstate(invalid="ignore"):  # all methods equal in a sample: NaN
            return np.asarray(centred.prod(-1).sum(-1) / np.sqrt((centred**2).sum(-2).prod(-1)))

    halves = [_halves(pair, rng) for pair in pairs]
    of_halves, drawn = (np.stack([half[kind] for half in halves], axis=1) for kind in (0, 1))
    low, high = np.nanquantile(correlation(drawn), [ALPHA / 2, 1 - ALPHA / 2])
    return float(np.nanmean(correlation(of_halves))), float(low), float(high)


def _halves(pairs: NDArray[np.float64], rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(DRAWS, 2) means of early scores of one random half of the seeds and final scores of the other, of `pairs` (seeds, 2); and
    the same with the seeds of each half drawn again with replacement."""
    order = rng.permuted(np.tile(np.arange(len(pairs)), (DRAWS, 1)), axis=1)
    plain, drawn = np.empty((DRAWS, 2)), np.empty((DRAWS, 2))
    for column, seeds in enumerate(np.array_split(order, 2, axis=1)):
        plain[:, column] = pairs[seeds, column].mean(1)
        again = np.take_along_axis(seeds, rng.integers(seeds.shape[1], size=seeds.shape), axis=1)
        drawn[:, column] = pairs[again, column].mean(1)
    return plain, drawn
