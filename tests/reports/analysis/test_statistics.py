"""Each statistic against scipy, closed forms, or small seeded simulations; `make verify-statistics` runs large ones."""

from __future__ import annotations

import itertools
import json
import time
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pretrain_bench.reports.analysis import statistics as s
from pretrain_bench.reports.analysis.columns import ROW
from pretrain_bench.reports.analysis.power import pooled_deviation, seeds_to_see_a_point
from pretrain_bench.reports.analysis.scores import per_unit
from pretrain_bench.reports.analysis.statistics import difference, estimate, verdict
from tests.verification.report import ROOT

RNG = np.random.default_rng(20261123)

OWN = "own seeds of each pre-training"


def test_an_estimate_of_the_gaps_of_pairs_is_the_paired_t_test() -> None:
    one, two = RNG.normal(size=8), RNG.normal(size=8)
    found = s.estimate(one - two)
    interval = stats.ttest_rel(one, two).confidence_interval(0.95)
    assert np.allclose([found.low, found.high], [interval.low, interval.high]) and found.n == 8


def test_runs_are_averaged_over_finetuning_seeds_first() -> None:
    """As simulated by `make verify-statistics`: the unit is the pre-training seed, even if a run is missing."""
    one, two = RNG.normal(size=(3, 4)), RNG.normal(size=(5, 4))
    rows = [
        {"row": name, **dict.fromkeys(ROW, name), "method": name, "pretrain_seed": i, "outcome": "ok", "score": score}
        for name, table in (("ours", one), ("scratch", two))
        for i, of_seed in enumerate(table)
        for score in of_seed
    ]
    runs = pd.DataFrame(rows)
    runs.loc[1, "outcome"] = "crashed"
    one[0, 1] = np.nan
    values = per_unit(runs, "score")
    means = np.nanmean(one, axis=1)
    assert np.allclose(values["ours"], means) and np.allclose(values["scratch"], two.mean(1))
    interval = stats.ttest_ind(means, two.mean(1), equal_var=False).confidence_interval(0.95)
    gap, _ = s.judge(values["ours"], values["scratch"])
    assert np.allclose([gap.low, gap.high], [interval.low, interval.high]) and gap.n == 3


def test_tost_is_two_one_sided_tests() -> None:
    one, two = RNG.normal(0, 1, 40), RNG.normal(0.05, 1, 40)
    found = s.tost(one, two, 0.8)
    both = [
        stats.ttest_ind(one, two - 0.8, equal_var=False, alternative="greater").pvalue,
        stats.ttest_ind(one, two + 0.8, equal_var=False, alternative="less").pvalue,
    ]
    assert found.p == pytest.approx(max(both)) and found.equivalent
    assert not s.tost(one, two + 1, 0.8).equivalent and not s.tost(one[:1], two, 0.8).equivalent
    with pytest.raises(ValueError, match="positive"):
        s.tost(one, two, 0)


@pytest.mark.parametrize("n", [2, 5, 8])
def test_the_sign_flip_test_is_exact(n: int) -> None:
    gaps = RNG.normal(0.7, 1, n)
    sums = [
        abs(sum(sign * g for sign, g in zip(signs, gaps, strict=True)))
        for signs in itertools.product((1, -1), repeat=n)
    ]
    found = s.sign_flip_test(gaps)
    assert found.p == pytest.approx(np.mean(np.array(sums) >= abs(gaps.sum()) - 1e-12)) and found.least_p == 2 / 2**n
    assert s.sign_flip_test(np.abs(gaps)).p == pytest.approx(found.least_p)


def test_too_few_pairs_cannot_be_tested() -> None:
    assert s.sign_flip_test(np.array([1.0, 2, 3, 4, 5])).words() == "cannot be tested with this n"
    assert s.sign_flip_test(np.arange(1.0, 7)).words() == "differs"
    assert s.sign_flip_test(np.array([1.0, -1, 2, -2, 3, -3])).words() == "not distinguishable"
    assert s.sign_flip_test(np.array([])).words() == "cannot be tested with this n"
    many = s.sign_flip_test(RNG.normal(1, 1, 30))
    assert many.words() == "differs" and many == s.sign_flip_test(np.asarray(RNG.normal(1, 1, 30)) * 0 + 1)._replace(
        p=many.p
    )


def test_holm_by_hand() -> None:
    assert np.allclose(s.holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06])
    found = s.holm(np.array([0.5, np.nan, 0.6]))
    assert np.allclose(found[[0, 2]], [1.0, 1.0]) and np.isnan(found[1])


def test_probability_of_improvement_is_mann_whitneys() -> None:
    one, two = RNG.integers(0, 5, 12).astype(float), RNG.integers(0, 5, 9).astype(float)
    assert s.probability_of_improvement(one, two) == pytest.approx(stats.mannwhitneyu(one, two).statistic / (12 * 9))
    assert s.probability_of_improvement(np.array([2.0]), np.array([1.0])) == 1
    assert np.isnan(s.probability_of_improvement(np.array([]), one))


def test_interquartile_mean() -> None:
    assert s.interquartile_mean(np.array([0.0, 1, 3, 100])) == 2
    assert np.isnan(s.interquartile_mean(np.array([1.0, 2, 3])))


def test_variance_components_are_found_again() -> None:
    rng = np.random.default_rng(3)
    found = []
    for _ in range(400):
        table = rng.normal(0, 2, (4, 1)) + rng.normal(0, 1, (1, 5)) + rng.normal(0, 0.5, (4, 5))
        shares = s.variance_components(table)
        assert shares is not None
        found.append(shares[:3])
    assert np.allclose(np.mean(found, 0), [4, 1, 0.25], rtol=0.12)
    assert s.variance_components(np.ones((1, 5))) is None
    table[0, 0] = np.nan
    assert s.variance_components(table) is None, "a missing cell is not imputed"


def test_nested_components_are_found_again() -> None:
    rng = np.random.default_rng(3)
    found = []
    for _ in range(400):
        found.append(s.nested_components(rng.normal(0, 2, (5, 1)) + rng.normal(0, 1, (5, 3))))
    assert np.allclose([np.mean([f.pretrain for f in found]), np.mean([f.residual for f in found])], [4, 1], rtol=0.12)
    assert all(np.isnan(f.finetune) for f in found)
    assert s.nested_components(np.ones((1, 5))) is None and s.nested_components(np.full((3, 2), np.nan)) is None


def test_a_ranking_needs_a_test_that_supports_it() -> None:
    clear = np.arange(4.0) + RNG.normal(0, 0.1, (8, 4))
    found = s.ranking(clear)
    assert found is not None and np.allclose(found.mean_ranks, [4, 3, 2, 1])
    # Demsar 2006, table 5: q = 2.569 for four methods.
    assert found.critical_difference == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 8)), abs=1e-3)
    noise = s.ranking(RNG.normal(size=(5, 4)))
    assert noise is not None and noise.critical_difference is None
    assert s.ranking(clear[:2]) is None and s.ranking(clear[:, :2]) is None


def test_the_critical_difference_joins_the_pairs_of_nemenyis_test() -> None:
    """scikit-posthocs gives a p value per pair; a rank diagram needs the difference at which p = 0.05."""
    import scikit_posthocs

    for seed in range(5):
        scores = np.random.default_rng(seed).normal(size=(12, 5)) + 0.6 * np.arange(5)
        ranks = s.ranking(scores)
        assert ranks is not None and ranks.critical_difference is not None
        apart = np.abs(ranks.mean_ranks[:, None] - ranks.mean_ranks) > ranks.critical_difference
        assert np.array_equal(apart, scikit_posthocs.posthoc_nemenyi_friedman(scores).to_numpy() < 0.05)


def test_flips_that_give_one_sum_in_another_order_are_ties() -> None:
    """The observed sum is a thousandth of the differences: rounding must not separate equal sums."""
    gaps = np.array([0.1, 0.2, -0.3, 0.4, -0.4, 0.7, -0.7, 1e-3])
    counts = np.array([abs(sum(sign * round(1000 * g) for sign, g in zip(signs, gaps, strict=True))) for signs in
                       itertools.product((1, -1), repeat=8)])  # fmt: skip
    assert s.sign_flip_test(gaps).p == (counts >= 1).mean()
    assert s.sign_flip_test(np.array([2.5])) == s.PairedTest(1.0, 1.0, 1)


def test_ten_thousand_replicates_of_a_table() -> None:
    """For each of 40 rows of 20 values: equal to scipy's seeded bootstrap, and reproducible."""
    values = RNG.normal(size=(40, 20))
    s._estimate.cache_clear()
    began = time.process_time()
    found = [s.estimate(row) for row in values]
    print(f"{time.process_time() - began:.2f} CPU-s")
    s._estimate.cache_clear()
    assert found == [s.estimate(row) for row in values]
    half = np.array([(e.high - e.low) / 2 for e in found])
    assert np.allclose(half, 1.96 * values.std(1) / np.sqrt(20), rtol=0.15)


def test_the_documentation_prints_what_was_simulated() -> None:
    import json

    from tests.conftest import REPOSITORY

    text = (REPOSITORY / "docs/reports.md").read_text()
    results = json.loads((REPOSITORY / "docs/verification/statistics.json").read_text())["results"]
    for name, held in results["coverage_per_cent"].items():
        assert f"| {name} | {' | '.join(str(held[n]) for n in ('3', '5', '10', '20'))} |" in text
    few, many = (results["power_per_cent"][f"2 sd, {n} seeds"] for n in (3, 10))
    power = (
        f"{few['found']} % of studies at 3 seeds (predicted {few['predicted']} %), and in {many['found']} % at 10 seeds (predicted "
        f"{many['predicted']} %)"
    )
    assert power in " ".join(text.split())
    false = results["false_positives_per_cent"]
    for seeds in (3, 5, 10):
        row = [
            false[f"{seeds} seeds{more}"] for more in ("", ", the first 2,000 stores", ", runs counted as independent")
        ]
        assert f"| {seeds} | {' | '.join(map(str, row))} |" in text


def test_a_difference_within_the_margin_is_called_equivalent_only_where_it_is_shown() -> None:
    rng = np.random.default_rng(3)
    tight = rng.normal(50, 0.2, 8), rng.normal(50, 0.2, 8)
    loose = rng.normal(50, 3, 4), rng.normal(50, 3, 4)
    assert s.judge(*tight)[1] == "equivalent within 1"
    assert s.judge(*loose)[1] == "not distinguishable"
    assert s.judge(tight[0] + 5, tight[1])[1] == "better" and s.judge(tight[0] - 5, tight[1])[1] == "worse"
    assert s.judge(tight[0][:1], tight[1])[1] == "cannot be tested with this n"
    assert s.judge(*tight, margin=0.01)[1] == "not distinguishable"
    assert s.judge(*tight)[0] == s.difference(*tight)


def test_values_without_spread_allow_no_test() -> None:
    """Such as AP after a few steps, which is 0.0 in every run: neither equivalence nor a difference can be claimed."""
    nothing, little, some = np.zeros(3), np.full(3, 1.2), np.array([1.0, 2.0, 1.4])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for base in (nothing, little + np.array([0, 1e-13, -1e-13])):
            gap, words = s.judge(little, base)
            assert words == "cannot be tested without spread" and gap.n == 3 and np.isnan([gap.low, gap.high]).all()
            assert np.isnan(s.welch_p(little, base)) and not s.tost(little, base, 1.0).equivalent
            assert np.isnan(pooled_deviation(little, base)) and np.isnan(seeds_to_see_a_point(little, base))
        assert np.isnan(s.estimate(nothing).low) and s.estimate(nothing).mean == 0
        assert np.isnan(s.estimate(np.full(30, 7.0)).low)
        one_sided = s.judge(some, nothing)
        ranks = s.ranking(np.zeros((4, 3)))
    assert one_sided[1] in ("better", "not distinguishable") and np.isfinite(one_sided[0].low)
    assert ranks is not None and ranks.critical_difference is None
    assert s.judge(little[:1], nothing)[1] == "cannot be tested with this n"


def test_the_docs_print_the_family_wise_errors_that_were_simulated() -> None:
    found = json.loads((ROOT / "docs/verification/statistics.json").read_text())["results"][
        "family_wise_error_per_cent"
    ]
    text = " ".join((ROOT / "docs/reports.md").read_text().split())
    assert (
        f"at least one is said to differ in {found['with Holm']} % of 2,000 studies, in {found['without']} % without Holm's correction, "
        f"and in {found['tasks counted as independent']} % with tasks counted as independent"
    ) in text


def test_the_docs_print_the_coverages_that_were_simulated() -> None:
    found = json.loads((ROOT / "docs/verification/statistics.json").read_text())["results"]["common_fine_tuning_seeds"]
    text = " ".join((ROOT / "docs/reports.md").read_text().split())
    common, own = (
        found[f"{kind}, effects of each method's own, 5 seeds"]["coverage"] for kind in ("common seeds", OWN)
    )
    assert f"for other seeds its coverage is {common:.0f} % at five pre-training seeds" in text
    assert f"part of the spread over pre-training seeds, and coverage is {own} % at five" in text


def test_one_run_has_no_interval() -> None:
    one = estimate(np.array([0.5]))
    assert one.mean == 0.5 and np.isnan([one.low, one.high]).all() and one.n == 1
    assert verdict(difference(np.array([0.5]), np.array([0.4, 0.3]))) == "cannot be tested with this n"
    assert estimate(np.array([])).n == 0


def test_few_runs_have_a_t_interval() -> None:
    from scipy import stats

    values = np.array([1.0, 2.0, 4.0])
    found = estimate(values)
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert np.allclose([found.low, found.high], [low, high])


def test_many_runs_have_a_seeded_bootstrap() -> None:
    values = np.random.default_rng(0).exponential(size=40)
    one, two = estimate(values), estimate(values)
    assert one == two and one.low < values.mean() < one.high


@pytest.mark.parametrize(("shift", "said"), [(3.0, "better"), (-3.0, "worse"), (0.05, "not distinguishable")])
def test_verdicts(shift: float, said: str) -> None:
    rng = np.random.default_rng(1)
    base, ours = rng.normal(0, 0.5, 6), rng.normal(shift, 0.5, 6)
    assert verdict(difference(ours, base)) == said
