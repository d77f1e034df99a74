"""Tests of the paper's statements: closed forms, planted differences, and stores that cannot tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.analysis.claims import (
    CANNOT_TELL,
    FAILS,
    HOLDS,
    better,
    claims,
    equivalent,
    leads,
    published_claims,
    rank_correlation,
    reached,
)
from pretrain_bench.reports.analysis.curves import Curve
from pretrain_bench.reports.analysis.failed_pretraining import FailedPretraining
from pretrain_bench.reports.analysis.frame import load_runs
from pretrain_bench.reports.analysis.statistics import holm
from pretrain_bench.reports.tables.claims_table import claims_table
from tests.conftest import REPOSITORY
from tests.reports.stores import add

NOISE = np.array([-0.4, -0.2, 0.0, 0.2, 0.4])


def test_gains_are_those_of_the_papers_table() -> None:
    table = pd.read_csv(REPOSITORY / "reports/published/table1_corrected.csv").set_index(["task", "method"])["delta"]
    titles = {"supervised": "Supervised", "pointcontrast": "PointContrast", "csc": "CSC", "ours": "Ours"}
    tasks = {"s3dis-sem": "S3DIS semantic", "s3dis-inst": "S3DIS instance"}
    stated = [c for c in published_claims() if c.gain is not None]
    assert len(stated) == 7
    for claim in stated:
        assert claim.method is not None and float(table[tasks[claim.task], titles[claim.method]]) == claim.gain


def test_better_follows_welchs_test_in_the_direction_of_the_difference() -> None:
    up = better(40 + NOISE, 39 + NOISE)
    exact = stats.ttest_ind(40 + NOISE, 39 + NOISE, equal_var=False).pvalue
    assert up.p == up.p_opposite == pytest.approx(exact) and up.value.mean == pytest.approx(1.0)
    down = better(39 + NOISE, 40 + NOISE)
    assert down.p == pytest.approx(exact) and down.value.mean == pytest.approx(-1.0)
    assert better(40 + NOISE, 40 + NOISE).verdict == FAILS, "equivalent within a point"
    assert better(40 + 5 * NOISE, 40 + 5 * NOISE).verdict == CANNOT_TELL


def test_equivalent_needs_both_one_sided_tests() -> None:
    same = equivalent(40 + NOISE / 4, 40 + NOISE / 4)
    assert same.p < 0.05 and same.p_opposite == 1.0
    far = equivalent(42 + NOISE, 40 + NOISE)
    one_sided = stats.ttest_ind(42 + NOISE, 40.5 + NOISE, equal_var=False, alternative="greater").pvalue
    assert far.p > 0.9 and far.p_opposite == pytest.approx(2 * one_sided) and far.p_opposite < 0.05
    assert equivalent(38 + NOISE, 40 + NOISE).p_opposite == pytest.approx(2 * one_sided), "in either direction"
    untested = equivalent(NOISE[:1], NOISE)
    assert np.isnan([untested.p, untested.p_opposite]).all()


def test_early_scores_may_be_a_point_lower() -> None:
    assert reached(39.9 + NOISE, 40 + NOISE).p < 0.05
    assert reached(37 + NOISE, 40 + NOISE).p_opposite < 0.05
    assert reached(39 + NOISE, 40 + NOISE).p == pytest.approx(0.5)


def test_a_method_leads_in_all_none_or_half_of_the_samples() -> None:
    seeds = NOISE[:, None]
    base, flat, steep = np.full((5, 3), 30.0), 31 + 0 * seeds + np.zeros(3), 31 + np.array([0.0, 3.0, 6.0]) + seeds
    assert leads([flat, steep, steep], base, by_spread=True) == 1.0
    assert leads([steep, flat, flat], base, by_spread=True) == 0.0
    assert leads([flat + 5, steep, steep], base, by_spread=False) == 1.0
    rng = np.random.default_rng(0)
    one, two = (31 + rng.normal(size=(400, 3)) for _ in range(2))
    two += one.mean(0) - two.mean(0)
    assert leads([one, two, two - 50], base, by_spread=False) == pytest.approx(0.5, abs=0.1)
    assert leads([flat, flat, flat], flat, by_spread=True) == 0.5, "equal scores decide nothing"


def test_the_rank_correlation_is_spearmans_over_separate_halves_of_the_seeds() -> None:
    rng = np.random.default_rng(1)
    pairs = [rng.normal(level, size=(5, 2)) for level in range(6)]
    value, low, high = rank_correlation(pairs)
    expected = []
    for _ in range(2000):
        split = [rng.permutation(5) for _ in pairs]
        early = [p[s[:3], 0].mean() for p, s in zip(pairs, split, strict=True)]
        final = [p[s[3:], 1].mean() for p, s in zip(pairs, split, strict=True)]
        expected.append(stats.spearmanr(early, final).statistic)
    assert value == pytest.approx(np.mean(expected), abs=0.01) and -1 <= low <= value <= high <= 1
    value, low, _ = rank_correlation([np.full((4, 2), level) for level in range(5)])
    assert (value, low) == (1.0, 1.0)
    value, _, high = rank_correlation([np.full((4, 2), 1.0) * [level, -level] for level in range(5)])
    assert (value, high) == (-1.0, -1.0)


def test_equal_methods_have_no_order_even_if_noise_lasts_from_early_to_late() -> None:
    rng = np.random.default_rng(4)
    lows = []
    for _ in range(12):
        lasting = rng.normal(size=(6, 5, 1))
        lows.append(rank_correlation(lasting + 0.3 * rng.normal(size=(6, 5, 2)))[1])
    assert max(lows) <= 0, lows


def test_a_seed_of_which_a_run_failed_is_left_out_and_counted(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    store = Store(tmp_path / "runs")
    for seed, noise in enumerate(NOISE):
        for finetune_seed in (0, 1):
            add(store, "scratch", (40 + noise) / 100, seed, finetune_seed, source="none")
            crashed = (seed, finetune_seed) == (4, 1)
            outcome = {"outcome": "crashed", "message": "no"} if crashed else {}
            add(store, "ours", (42 + noise) / 100, seed, finetune_seed, **outcome)
    runs = load_runs(store)
    lost = FailedPretraining("b", "p", False, "ours", "scannet", 9, "k", row="ours")
    for failed, count in ((), 1), ((lost,), 2):
        found = claims(runs, [], failed).set_index("test").loc["better"]
        assert (found["n"], found["failed"], found["verdict"]) == (4, count, HOLDS)
        assert found["value"] == pytest.approx(2 + NOISE[:4].mean() - NOISE.mean())
    assert claims_table(claims(runs, [], (lost,)))["failed"].tolist() == [2]


def test_a_failure_of_earlier_code_or_of_another_pretraining_does_not_count(tmp_path: Path) -> None:
    """A crashed run under other conditions, and one whose seed was repaired with another pre-training."""
    (tmp_path / "runs").mkdir()
    store = Store(tmp_path / "runs")
    for seed, noise in enumerate(NOISE):
        add(store, "scratch", (40 + noise) / 100, seed, source="none")
        add(store, "ours", (42 + noise) / 100, seed)
    add(store, "ours", 0.0, 0, voxel=0.2, outcome="crashed", message="no")
    add(store, "ours", 0.0, 4, pretrain_code="f" * 64, outcome="crashed", message="no")
    found = claims(load_runs(store), []).set_index("test").loc["better"]
    assert (found["n"], found["failed"], found["verdict"]) == (5, 0, HOLDS)


def test_the_p_of_an_equivalence_is_printed_where_it_decides(tmp_path: Path) -> None:
    runs, curves = made(tmp_path, {"scratch": 40.0, "csc": 40.1})
    found = claims(runs, curves)
    table = claims_table(found).set_index("statement")
    row = table.loc["csc better than scratch (+3.9)"]
    p = found.set_index("test").loc["better", "p_equivalent"]
    assert row["verdict"] == FAILS and row["p"] == f"{p:.3f}" and p < 0.05 and "failed" not in table


def made(
    tmp_path: Path, scores: dict[str, float], seeds: int = 5, noise: float = 0.2
) -> tuple[pd.DataFrame, list[Curve]]:
    """Runs of one task at all labels; each method's curve is at half of its final score at 5 % of the steps, at 80 % at 10 %."""
    (tmp_path / "runs").mkdir()
    store = Store(tmp_path / "runs")
    for method, score in scores.items():
        for seed in range(seeds):
            value = (score + noise * (seed - 2)) / 100
            add(store, method, value, seed, source="none" if method == "scratch" else "scannet")
    runs = load_runs(store)
    curves = []
    for run in runs.to_dict("records"):
        final = run["score_selected"]
        steps, values = [15, 30, 300], [final / 2, final * 0.8, final]
        curves.append(Curve(run["method"], run["key"], run["pretrain_seed"], steps, values))
    return runs, curves


def verdicts(found: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Verdicts by test and method."""
    return {(c["test"], c["method"]): c["verdict"] for c in found.to_dict("records")}


def test_each_statement_whose_cells_ran_has_a_verdict(tmp_path: Path) -> None:
    runs, curves = made(tmp_path, {"scratch": 30, "supervised": 35, "csc": 25, "ours": 30.01})
    found = claims(runs, curves)
    assert verdicts(found) == {
        ("better", "supervised"): HOLDS,
        ("better", "csc"): FAILS,
        ("better", "ours"): FAILS,
        ("early", "supervised"): FAILS,
        ("early", "csc"): FAILS,
        ("early", "ours"): FAILS,
        ("order", ""): HOLDS,
    }
    family = found[found["family"] == "A"]
    expected = holm(np.array([*family["p"], 1.0]))[:3]
    np.testing.assert_allclose(family["p_holm"], expected, err_msg="pointcontrast was not run, and counts")
    assert set(found["n"]) == {5}
    table = claims_table(found)
    assert max(map(len, table.to_string(index=False).splitlines())) <= 100
    (row,) = table[table["statement"] == "supervised better than scratch (+5.1)"].to_dict("records")
    assert row["verdict"] == HOLDS and row["here"].startswith("+5.0 [")


def test_without_enough_seeds_no_statement_is_judged(tmp_path: Path) -> None:
    runs, curves = made(tmp_path, {"scratch": 30, "supervised": 35, "csc": 25}, seeds=1)
    found = claims(runs, curves)
    assert len(found) == 5 and set(found["verdict"]) == {CANNOT_TELL}


def test_other_methods_have_no_say_in_the_papers_order(tmp_path: Path) -> None:
    runs, curves = made(tmp_path, {"scratch": 30, "csc": 25, "msc": 40})
    assert "order" not in set(claims(runs, curves)["test"])


def test_statements_on_scannet_are_judged(tmp_path: Path) -> None:
    """Also where no statement of the store has a published gain."""
    scores = {"scratch": 30, "ours": 31, "pointcontrast": 32, "depthcontrast": 30}
    runs, _ = made(tmp_path, scores, noise=0.05)
    parts = [runs.assign(task="scannet-sem")]
    for ratio, slope in (("5%", 2.0), ("20%", 1.0)):
        steep = runs["method"].map({"pointcontrast": slope, "depthcontrast": -slope}).fillna(0.0) / 100
        parts.append(parts[0].assign(label_ratio=ratio, score_selected=runs["score_selected"] + steep))
    found = claims(pd.concat(parts, ignore_index=True), [])
    assert verdicts(found) == {
        ("equivalent", "ours"): FAILS,
        ("equivalent", "pointcontrast"): FAILS,
        ("equivalent", "depthcontrast"): HOLDS,
        ("smallest_spread", "ours"): HOLDS,
        ("greatest_low", "ours"): FAILS,
    }
    here = dict(zip(claims_table(found)["statement"], claims_table(found)["here"], strict=True))
    assert here["ours: smallest spread of gains"] == "leads in 100 % of samples"


def test_equal_scores_decide_nothing(tmp_path: Path) -> None:
    runs, curves = made(tmp_path, {"scratch": 0, "csc": 0, "ours": 0}, noise=0.0)
    found = claims(runs, curves)
    assert set(found["verdict"]) == {CANNOT_TELL} and "no spread" in set(claims_table(found)["here"])


def test_without_scratch_there_is_nothing_to_judge(tmp_path: Path) -> None:
    runs, _ = made(tmp_path, {"supervised": 35})
    assert not len(claims(runs, []))
    assert not len(claims_table(claims(runs.iloc[:0], [])))
