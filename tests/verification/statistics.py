"""`make verify-statistics`: coverage of intervals, false positives in null stores, and power, by seeded simulation."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from pretrain_bench.reports.analysis import claims
from pretrain_bench.reports.analysis import statistics as s
from pretrain_bench.reports.analysis.power import welch_power
from pretrain_bench.reports.analysis.sequential import RULES, SEEDS_A_LOOK, levels
from tests.verification.report import write_report

SEED, TRIALS, BOOTSTRAP_TRIALS, NULLS, MORE_NULLS = 20261123, 20_000, 2_000, 2_000, 20_000
SIZES = (3, 5, 10, 20)
PAIRED_TRIALS = 2_000
CLAIM_TRIALS = 900
DESIGNS = (
    "paired: common fine-tuning seeds",
    "unpaired: own fine-tuning seeds",
    "common seeds, effects of each method's own",
    "own seeds of each pre-training, effects of each method's own",
)
KINDS = {
    "gaussian": (lambda rng, shape: rng.normal(size=shape), 0.0),
    "log-normal, sigma 0.5": (lambda rng, shape: rng.lognormal(0, 0.5, shape), float(np.exp(0.125))),
    "log-normal, sigma 1": (lambda rng, shape: rng.lognormal(0, 1, shape), float(np.exp(0.5))),
    "one in ten fails (-20)": (lambda rng, shape: rng.normal(size=shape) - 20 * (rng.random(shape) < 0.1), -2.0),
}


def coverage() -> dict[str, dict[str, float]]:
    """Per cent of 95 % intervals that contain the true mean."""
    found: dict[str, dict[str, float]] = {}
    for name, (draw, truth) in KINDS.items():
        found[name] = {}
        for n in SIZES:
            rng = np.random.default_rng((SEED, n))
            # Below 20 values the interval is a fast t interval; from 20 it is a bootstrap.
            trials = TRIALS if n < s.BOOTSTRAP_FROM else BOOTSTRAP_TRIALS
            values = draw(rng, (trials, n))
            held = sum(e.low <= truth <= e.high for e in map(s.estimate, values))
            found[name][str(n)] = round(100 * held / trials, 1)
    return found


def false_positives() -> dict[str, float]:
    """False positives in null stores, crossed (pre-training x fine-tuning seeds), with an effect per pre-training: how often
    a difference is claimed, in per cent; with the pre-training as unit (`reports.analysis.scores`), and with runs taken as independent."""
    found = {}
    for seeds in (3, 5, 10):
        rng = np.random.default_rng((SEED, 1, seeds))
        claimed = naive = 0
        for store in range(1, MORE_NULLS + 1):
            one, two = (rng.normal(0, 1, (seeds, 1)) + rng.normal(0, 0.7, (seeds, 3)) for _ in range(2))
            claimed += s.verdict(s.difference(one.mean(1), two.mean(1))) in ("better", "worse")
            naive += stats.ttest_ind(one.ravel(), two.ravel(), equal_var=False).pvalue < 0.05
            if store == NULLS:
                found[f"{seeds} seeds, the first {NULLS:,} stores"] = round(100 * claimed / NULLS, 2)
        found[f"{seeds} seeds"] = round(100 * claimed / MORE_NULLS, 2)
        found[f"{seeds} seeds, runs counted as independent"] = round(100 * naive / MORE_NULLS, 2)
    return found


def power() -> dict[str, dict[str, float]]:
    """Planted effects of one and two standard deviations: predicted power against the rate of detection, in per cent."""
    found = {}
    for n in (3, 5, 10):
        for size in (1.0, 2.0):
            rng = np.random.default_rng((SEED, 2, n, int(size)))
            trials = 4000
            hits = sum(
                s.verdict(s.difference(rng.normal(size, 1, n), rng.normal(0, 1, n))) == "better" for _ in range(trials)
            )
            predicted = welch_power(size, n)
            found[f"{size:g} sd, {n} seeds"] = {
                "predicted": round(100 * predicted, 1),
                "found": round(100 * hits / trials, 1),
            }
    return found


def family() -> dict[str, float]:
    """Five methods without effect against scratch over seven tasks, three pre-trainings per method with effects shared by all tasks:
    how often any difference is claimed, in per cent. With the seed as unit (as in reports), without Holm, and with the task as unit."""
    rng = np.random.default_rng((SEED, 3))
    hits = {"with Holm": 0, "without": 0, "tasks counted as independent": 0}
    trials = 2000
    for _ in range(trials):
        scores = rng.normal(0, 1, (6, 3, 1)) + rng.normal(0, 0.7, (6, 3, 7))
        seeds, tasks = scores.mean(2), scores.mean(1)
        p = np.array([s.welch_p(one, seeds[0]) for one in seeds[1:]])
        wrong = np.array([s.sign_flip_test(one - tasks[0]).p for one in tasks[1:]])
        hits["with Holm"] += bool((s.holm(p) < 0.05).any())
        hits["without"] += bool((p < 0.05).any())
        hits["tasks counted as independent"] += bool((wrong < 0.05).any())
    return {name: round(100 * number / trials, 2) for name, number in hits.items()}


def common_seeds() -> dict[str, dict[str, float]]:
    """Intervals of the difference between two equal methods, whose pre-trainings have two fine-tuning seeds each: coverage and mean
    width. With fine-tuning seeds shared by both methods (paired: the effect of a seed cancels), with separate seeds for each unit
    (unpaired); with shared seeds whose effect differs between methods, so that the interval holds only for these seeds; and with
    such effects where each pre-training has seeds of its own, shared by both methods (`own_finetune_seeds`)."""
    found = {}
    for seeds in (3, 5, 10):
        rng = np.random.default_rng((SEED, 4, seeds))
        nested = np.random.default_rng((SEED, 6, seeds))
        held, width = dict.fromkeys(DESIGNS, 0), dict.fromkeys(DESIGNS, 0.0)
        for _ in range(PAIRED_TRIALS):
            units = [rng.normal(0, 1, (seeds, 1)) + rng.normal(0, 0.5, (seeds, 2)) for _ in range(2)]
            common = rng.normal(0, 1, (1, 2))
            effects = (
                [common, common],
                [rng.normal(0, 1, (seeds, 2)) for _ in range(2)],
                [common, rng.normal(0, 1, (1, 2))],
                list(nested.normal(0, 1, (seeds, 2)) + nested.normal(0, 1, (2, seeds, 2))),
            )
            for design, (one, two) in zip(DESIGNS, effects, strict=True):
                gap = s.difference((units[0] + one).mean(1), (units[1] + two).mean(1))
                held[design] += gap.low <= 0 <= gap.high
                width[design] += gap.high - gap.low
        for design in DESIGNS:
            coverage = round(100 * held[design] / PAIRED_TRIALS, 1)
            found[f"{design}, {seeds} seeds"] = {"coverage": coverage, "width": round(width[design] / PAIRED_TRIALS, 2)}
    return found


def sequential() -> dict[str, float]:
    """How often Welch's test claims a non-existing difference at any of several looks, two seeds apart, in per cent: at 5 % each
    time, and with both stopping rules; and how often, and after how many seeds, a difference of two standard deviations is detected."""
    found = {}
    for looks in (2, 3, 5):
        rng = np.random.default_rng((SEED, 5, looks))
        one, two = (rng.normal(0, 1, (TRIALS, looks * SEEDS_A_LOOK)) for _ in range(2))
        for shift, what in ((0.0, "error"), (2.0, "power")):
            p = np.stack(
                [
                    stats.ttest_ind(one[:, :n] + shift, two[:, :n], axis=1, equal_var=False).pvalue
                    for n in range(SEEDS_A_LOOK, looks * SEEDS_A_LOOK + 1, SEEDS_A_LOOK)
                ],
                1,
            )
            for rule, bounds in {"5 % each time": (0.05,) * looks, **{r: levels(r, looks) for r in RULES}}.items():
                hits = p < np.array(bounds)
                found[f"{what}, {looks} looks, {rule}"] = round(100 * float(hits.any(1).mean()), 2)
                if what == "power":
                    stopped = np.where(hits.any(1), hits.argmax(1) + 1, looks) * SEEDS_A_LOOK
                    found[f"seeds until it stops, {looks} looks, {rule}"] = round(float(stopped.mean()), 2)
    return found


def claims_of_the_study() -> dict[str, float]:
    """How often families D and F of `reports.analysis.claims` reach a verdict with five seeds, in per cent. D: `ours` against two
    equal rivals over three label ratios, with the same noise or twice as much. F: six methods that are equal, though the noise of a
    run lasts from early to late (correlation 0.7), or whose means spread twice as much as their seeds."""
    found: dict[str, float] = {}
    for noise in (1, 2):
        for statistic in ("spread", "lowest gain"):
            rng = np.random.default_rng((SEED, 7, noise))
            shares = np.empty(CLAIM_TRIALS)
            for trial in range(CLAIM_TRIALS):
                scratch, *methods = (rng.normal(0, scale, (5, 3)) for scale in (1, noise, 1, 1))
                shares[trial] = claims.leads(methods, scratch, statistic == "spread")
            of = f"D, {statistic}, noise of ours x {noise}"
            found[f"{of}: does not hold"] = round(100 * float((shares < s.ALPHA / 2).mean()), 1)
            found[f"{of}: holds"] = round(100 * float((shares >= 1 - s.ALPHA / 2).mean()), 1)
    for spread in (0, 2):
        rng = np.random.default_rng((SEED, 8, spread))
        holds = 0
        for _ in range(CLAIM_TRIALS // 3):
            lasting = rng.normal(0, 0.7**0.5, (6, 5, 1)) + rng.normal(0, 0.3**0.5, (6, 5, 2))
            holds += claims.rank_correlation(rng.normal(0, spread, (6, 1, 1)) + lasting)[1] > 0
        found[f"F, spread of methods x {spread}: holds"] = round(100 * holds / (CLAIM_TRIALS // 3), 1)
    return found


def misses(results: dict[str, Any]) -> list[str]:
    """Missed bounds, as messages."""
    found = []
    for n, held in results["coverage_per_cent"]["gaussian"].items():
        if abs(held - 95) > 2:
            found.append(f"coverage at n = {n}: {held} % of Gaussian intervals, nominal 95")
    for name, rate in results["false_positives_per_cent"].items():
        if "," not in name and rate > 6:
            found.append(f"false positives, {name}: {rate} %")
    for name, pair in results["power_per_cent"].items():
        if pair["predicted"] - pair["found"] > 8 or pair["found"] - pair["predicted"] > 4:
            found.append(f"power, {name}: predicted {pair['predicted']} %, found {pair['found']} %")
    for name, one in results["common_fine_tuning_seeds"].items():
        if not name.startswith(DESIGNS[2]) and one["coverage"] < 93:
            found.append(f"coverage, {name}: {one['coverage']} %")
    for name, rate in results["sequential_per_cent"].items():
        if name.startswith("error") and "each time" not in name and rate > 5.5:
            found.append(f"sequential {name}: {rate} %")
    for name, rate in results["claims_per_cent"].items():
        if ("x 1: " in name or "x 0: " in name) and rate > 8:  # a bootstrap of five seeds is approximate
            found.append(f"claims, {name}: {rate} % of studies without a difference")
    if results["family_wise_error_per_cent"]["with Holm"] > 6:
        found.append("family-wise error above 6 %")
    return found


def main() -> None:
    """Simulate, then write docs/verification/statistics.json."""
    results = {
        "coverage_per_cent": coverage(),
        "false_positives_per_cent": false_positives(),
        "power_per_cent": power(),
        "family_wise_error_per_cent": family(),
        "common_fine_tuning_seeds": common_seeds(),
        "sequential_per_cent": sequential(),
        "claims_per_cent": claims_of_the_study(),
    }
    short = misses(results)
    what = (
        "coverage of 95 % intervals (paired by fine-tuning seeds against unpaired too), false positives of null stores, power of planted "
        "effects, errors of sequential looks and of the study's claims, by simulation"
    )
    write_report("statistics", what, "failed" if short else "ok", seed=SEED, results=results, misses=short)
    raise SystemExit(1 if short else 0)


if __name__ == "__main__":
    main()
