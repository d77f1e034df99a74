"""Gains by the source of the pre-training data."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pretrain_bench.benchmarks.metrics.names import CHECKPOINTS
from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.analysis.effects import effects
from pretrain_bench.reports.analysis.frame import load
from pretrain_bench.reports.analysis.sources import OTHER, SAME, with_source
from pretrain_bench.reports.analysis.variance import variances
from pretrain_bench.reports.build import build_report
from pretrain_bench.reports.figures.sources import draw_source_gains
from pretrain_bench.reports.figures.style import save
from pretrain_bench.reports.figures.variance import draw_variances
from pretrain_bench.reports.tables.source_table import source_table
from tests.reports.stores import add, rewrite

pytestmark = pytest.mark.usefixtures("undrawn")


def test_gains_of_the_same_and_of_another_dataset_are_separate(tmp_path: Path) -> None:
    rows = [
        {
            "method": m,
            "row": m,
            "pretrain_dataset": "synth-scannet",
            "dataset": d,
            "gain": g,
            "task": "t",
            "label_ratio": "100%",
            "protocol": "finetune",
            "budget": "b",
            "profile": "p",
        }
        for m in ("ours", "csc")
        for d, g in (("synth-scannet", 3.0), ("synth-s3dis", 1.0), ("scannet", 2.0), ("s3dis", np.nan))
    ]
    known = with_source(pd.DataFrame(rows).dropna())
    assert list(known[known["method"] == "ours"]["pre-trained on"]) == [SAME, OTHER, SAME]
    paths = save(draw_source_gains(known, "Gains"), tmp_path / "same")
    assert all(path.stat().st_size > 1000 for path in paths)
    table = source_table(pd.DataFrame(rows)).set_index(["method", "pre-trained on", "budget", "profile"])
    assert (
        table.loc[("ours", SAME, "b", "p"), "gain"] == "+2.5"
        and table.loc[("ours", OTHER, "b", "p"), "cells"] == "1 of 2"
    )
    assert not len(source_table(pd.DataFrame(rows).assign(gain=np.nan)))
    both = pd.concat([pd.DataFrame(rows), pd.DataFrame(rows).assign(budget="large", gain=9.0)])
    assert source_table(both).set_index(list(table.index.names)).loc[("ours", SAME, "b", "p"), "gain"] == "+2.5"


@pytest.mark.slow
def test_runs_under_two_conditions_are_separate(tmp_path: Path) -> None:
    """For example before and after a change of the fine-tuning code: no table merges them into one cell."""
    store = Store(tmp_path / "runs")
    for seed, of, (voxel, more) in itertools.product(range(2), range(2), ((0.1, 0.0), (0.2, 0.1))):
        add(store, "scratch", 0.4 + 0.01 * seed + 0.002 * of, seed, of, source="none", voxel=voxel)
        add(store, "ours", 0.5 + 0.013 * seed + 0.003 * of + more, seed, of, voxel=voxel)
    loaded = load(store)
    found = effects(loaded.runs)
    (row,) = source_table(found).to_dict("records")
    assert (row["gain"], row["cells"]) == ("-", "0 of 1, 1 under two conditions")
    add(store, "scratch", 0.4, source="none", percent=5.0)
    add(store, "ours", 0.6, percent=5.0)
    (row,) = source_table(effects(load(store).runs)).to_dict("records")
    assert (row["gain"], row["cells"]) == ("+20.0", "1 of 2, 1 under two conditions")
    spread = variances(loaded.runs)
    assert not spread.duplicated(["method", "task", "label_ratio", "conditions"]).any() and len(spread) == 4
    names = [t.get_text() for t in draw_variances(spread, "t").axes[0].get_yticklabels()]
    assert len(set(names)) == 4 and all("#" in name for name in names)
    one = spread[spread["conditions"] == spread["conditions"].iloc[0]]
    assert [t.get_text() for t in draw_variances(one, "t").axes[0].get_yticklabels()] == ["scratch, 100%", "ours, 100%"]
    runs = Store(tmp_path / "planted")
    for voxel in (0.1, 0.2):
        add(runs, "ours", 0.5, voxel=voxel)
    for record in list(runs.records()):
        if record.cell:
            metrics = {**record.metrics, **{f"iou_voxel/{i}_{c}": 0.5 for i in range(2) for c in CHECKPOINTS}}
            rewrite(runs, record, metrics=metrics)
    text = build_report(runs, tmp_path / "out").files["page"].read_text()
    titles = set(
        re.findall(
            r"IoU on voxels \(%\) per class: s3dis-sem on s3dis, 100%, budget b, profile p, conditions #\w{6}", text
        )
    )
    assert len(titles) == 2
