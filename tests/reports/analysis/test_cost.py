"""Hours of pre-training behind effects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from pretrain_bench.reports.analysis.cost import with_hours
from tests.reports.frames import planted_scores, runs_of


def test_hours_in_the_cost_figure_are_those_of_the_cost_table(tmp_path: Path) -> None:
    """One pre-training of 1 h has two fine-tunings, one of 9 h has one: 5 h, not 3.67."""
    runs = runs_of({"ours": np.array([[40.0, 41.0]])})
    runs = pd.concat([runs, runs[:1].assign(finetune_seed=1)]).assign(
        pretrain_keys=["a", "b", "a"], pretrain_cpu_seconds=[3600.0, 9 * 3600.0, 3600.0], pretrain_gpu_seconds=0.0
    )
    found = runs[["budget", "profile", "row"]].drop_duplicates()
    assert with_hours(found, runs)["hours"].tolist() == [5.0]


def test_hours_of_a_pretraining_are_those_of_its_budget() -> None:
    scores = planted_scores(2, 2, {}, 0.3)
    runs = pd.concat(
        [
            runs_of(scores, b).assign(pretrain_cpu_seconds=3600.0 * hours, pretrain_gpu_seconds=0.0)
            for b, hours in (("small", 0.01), ("large", 10.0))
        ]
    ).assign(pretrain_keys=lambda r: r["method"] + r["pretrain_seed"].astype(str))
    found = runs[["budget", "profile", "row"]].drop_duplicates()
    assert set(with_hours(found, runs)[["budget", "hours"]].itertuples(index=False, name=None)) == {
        ("small", 0.01),
        ("large", 10.0),
    }
    with_gpu = with_hours(found, runs.assign(pretrain_gpu_seconds=7200.0))
    assert set(with_gpu["hours"]) == {2.0} and set(with_gpu["hours_of"]) == {"GPU-hours"}
    mixed = runs.assign(pretrain_gpu_seconds=[0.0, *[7200.0] * (len(runs) - 1)])
    assert set(with_hours(found, mixed)["hours_of"]) == {"CPU-hours"}
