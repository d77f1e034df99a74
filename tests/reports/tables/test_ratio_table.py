"""Tables of label ratios."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from pretrain_bench.benchmarks.specs.cell import LabelRatio
from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.analysis.effects import effects
from pretrain_bench.reports.analysis.families import families
from pretrain_bench.reports.analysis.frame import load_runs
from pretrain_bench.reports.build import build_report
from pretrain_bench.reports.tables.ratio_table import ratio_table
from tests.reports.stores import SPLIT, add

pytestmark = pytest.mark.usefixtures("undrawn")


def test_versions_of_a_split_share_no_table_of_label_ratios(tmp_path: Path) -> None:
    """Runs on two test sets form two families, and no cell overwrites another."""
    store = Store(tmp_path / "runs")
    for version, score in ((1, 0.5), (2, 0.2)):
        split = SPLIT | {"version": version, "test": [f"scene{version}"]}
        for percent in (5.0, 100.0):
            add(store, "ours", score, percent=percent, split=split)
    one, two = families(effects(load_runs(store)))
    cells = [ratio_table(family).set_index("method").loc["ours", ["5%", "100%"]].tolist() for family in (one, two)]
    assert sorted(cells) == [["20.0 n=1"] * 2, ["50.0 n=1"] * 2] and one.title != two.title


def test_a_table_of_label_ratios_and_its_figure_have_one_number(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    for points in (20, 100):
        add(store, "ours", 0.4, budget="a", labels=LabelRatio(points=points))
    for percent in (20.0, 100.0):
        add(store, "ours", 0.5, budget="b", percent=percent)
    build_report(store, tmp_path / "out", page=False)
    tables, figures = tmp_path / "out/tables", tmp_path / "out/figures"
    assert "budget a" in (tables / "ratios1.md").read_text() and "budget b" in (tables / "ratios2.md").read_text()
    assert not (figures / "ratios1.csv").exists(), "limited points have no axis of shares"
    assert set(pd.read_csv(figures / "ratios2.csv")["budget"]) == {"b"}
