"""Power of the tests, by simulation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pretrain_bench.reports.analysis import power
from pretrain_bench.reports.analysis.seeds import seeds_for
from tests.reports.frames import runs_of


def test_the_detectable_difference_is_detected_so_often() -> None:
    size = power.detectable_difference(2.0, 5)
    rng = np.random.default_rng(1)
    p = stats.ttest_ind(rng.normal(0, 2, (4000, 5)), rng.normal(size, 2, (4000, 5)), axis=1, equal_var=False).pvalue
    assert (p < 0.05).mean() == pytest.approx(0.8, abs=0.02)
    n = power.seeds_needed(1.0, 1.0)
    assert n == 17, "the textbook's 17 for one standard deviation at 80 % power"
    assert power.detectable_difference(1.0, 17) <= 1 < power.detectable_difference(1.0, 16)
    assert (
        power.seeds_needed(10, 0.01) is None
        and power.detectable_difference(1, 1) == np.inf
        and power.detectable_difference(0, 3) == 0
    )


def test_seeds_follow_from_the_variance_split() -> None:
    """Fine-tuning seeds shared by both methods cancel; separate seeds would not, and more of them would be needed."""
    runs = crossed_runs(8, 4, pretrain=1.0, finetune=2.0, rest=0.5)
    found = seeds_for(runs, 1.0).iloc[0]
    assert found["deviation"] == pytest.approx(np.sqrt(1.0 + 0.25 / 4), abs=0.4)
    assert found["fine-tuning seed"] > found["pre-training seed"] and found["n"] == 8 and found["finetune_seeds"] == 4
    assert found["seeds_own"] > 1.3 * found["seeds"] >= 8
    assert found["seeds"] == power.seeds_needed(found["deviation"], 1.0)
    assert seeds_for(runs, 2.0).iloc[0]["seeds"] < found["seeds"]
    # 100 s for each pre-training and 10 s for each of 4 fine-tunings, of the method and of scratch.
    assert found["hours"] == pytest.approx(found["seeds"] * 2 * (100 + 40) / 3600) and found["hours_of"] == "CPU-hours"


def test_seeds_without_a_split_or_without_spread_say_less() -> None:
    one_seed = seeds_for(crossed_runs(8, 1, pretrain=1.0, finetune=2.0, rest=0.5), 1.0).iloc[0]
    assert np.isnan(one_seed["pre-training seed"]) and np.isnan(one_seed["seeds_own"]) and one_seed["seeds"] > 2
    single = seeds_for(crossed_runs(1, 1, pretrain=1.0, finetune=0.0, rest=0.0), 1.0).iloc[0]
    assert np.isnan(single["seeds"]) and np.isnan(single["hours"])
    assert seeds_for(crossed_runs(3, 1, 1.0, 0.0, 0.0, methods=("ours",)), 1.0).empty, "no scratch to compare with"


def test_a_group_without_a_successful_run_of_scratch_has_no_seeds() -> None:
    runs = crossed_runs(3, 2, 1.0, 0.5, 0.5)
    failed = runs["method"].eq("scratch")
    crashed = runs.assign(outcome=runs["outcome"].where(~failed, "crashed"), conditions="other")
    assert seeds_for(crashed, 1.0).empty
    assert len(seeds_for(pd.concat([runs, crashed]), 1.0)) == len(seeds_for(runs, 1.0)) == 1


def crossed_runs(
    pretrainings: int,
    finetunings: int,
    pretrain: float,
    finetune: float,
    rest: float,
    methods: tuple[str, ...] = ("scratch", "ours"),
) -> pd.DataFrame:
    """Runs of a crossed design with planted standard deviations in points; effects of fine-tuning seeds are shared by all."""
    rng = np.random.default_rng(5)
    common = rng.normal(0, finetune, finetunings)
    frames = []
    for seed in range(finetunings):
        scores = {m: np.zeros((1, pretrainings)) for m in methods}
        frames.append(runs_of(scores).assign(finetune_seed=seed))
    runs = pd.concat(frames, ignore_index=True)
    own = {(m, s): rng.normal(50, pretrain) for m in methods for s in range(pretrainings)}
    values = [
        own[m, p] + common[f] + rng.normal(0, rest)
        for m, p, f in runs[["method", "pretrain_seed", "finetune_seed"]].itertuples(index=False)
    ]
    columns = {
        f"{half}_{kind}_seconds": 0.0 for half in ("pretrain", "finetune", "features") for kind in ("cpu", "gpu")
    }
    columns |= {"pretrain_cpu_seconds": 100.0, "finetune_cpu_seconds": 10.0}
    keys = [(f"{m}-{p}",) for m, p in runs[["method", "pretrain_seed"]].itertuples(index=False)]
    return runs.assign(score_selected=np.array(values) / 100, pretrain_keys=keys, **columns)
