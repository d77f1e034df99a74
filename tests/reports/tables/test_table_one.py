"""Table I, and published numbers in tables."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.analysis import published
from pretrain_bench.reports.analysis.effects import effects
from pretrain_bench.reports.analysis.families import families
from pretrain_bench.reports.analysis.frame import load
from pretrain_bench.reports.build import build_report
from pretrain_bench.reports.tables.ratio_table import ratio_table
from pretrain_bench.reports.tables.table_one import table_one
from tests.reports.planted import plant


def test_table_one_says_what_may_be_said(planted_store: Store) -> None:
    table = table_one(effects(load(planted_store).runs), with_published=False).set_index("method")
    (column,) = [c for c in table.columns if c != "group"]
    assert column == "s3dis-sem (s3dis, b, p, selected)"
    assert re.fullmatch(
        r"\d+\.\d ±\d+\.\d \(\+\d\.\d \[\d\.\d, \d\.\d\] better\) n=4(, \d of 8 failed)?",
        table.loc["supervised", column],
    )
    one = load(planted_store).runs.query("pretrain_seed == 0")
    assert re.fullmatch(
        r"\d+\.\d \(\+\d\.\d\) n=1(, \d of 2 failed)?",
        table_one(effects(one), with_published=False).set_index("method").loc["supervised", column],
    )
    assert effects(one)["probability_of_improvement"].isna().all(), "one run is above or below another, and that is all"


def test_published_numbers_stand_beside_real_results_and_only_on_request_beside_synthetic_ones(tmp_path: Path) -> None:
    real = Store(tmp_path / "real")
    plant(real, 2, 1, synthetic=False)
    found = effects(load(real).runs)
    assert "[paper 66.5]" in table_one(found, with_published=False).to_string()
    made_up = found.assign(synthetic=True)
    assert "[paper" not in table_one(made_up, with_published=False).to_string()
    assert "[paper 69.0]" in table_one(made_up, with_published=True).to_string()
    (ratios,) = (ratio_table(family) for family in families(found))
    assert "[paper" not in ratios.to_string(), "the paper has no ratios of this task, and its Table I is of all labels"
    (ratios,) = (ratio_table(f) for f in families(found.assign(task="scannet-sem", dataset="scannet")))
    cells = ratios.set_index("method").loc["ours"]
    figure3 = dict(published.ratio_curve("scannet-sem", "ours"))
    assert all(cells[f"{r:g}%"].endswith(f"[paper {figure3[r]:.1f}]") for r in (5.0, 10.0, 20.0, 40.0, 100.0))
    assert "[paper" not in ratio_table(families(made_up.assign(task="scannet-sem"))[0]).to_string()
    elsewhere = found.assign(pretrain_dataset="semantickitti")
    assert "[paper" not in table_one(elsewhere, with_published=False).to_string(), "the paper pre-trained on ScanNet"
    assert published.methods_as_published(found) == [
        "scratch",
        "supervised",
        "pointcontrast",
        "csc",
        "depthcontrast",
        "ours",
    ]
    assert published.methods_as_published(elsewhere) == [] and published.methods_as_published(made_up.head(0)) == []
    built = build_report(real, tmp_path / "out")
    assert published.PROTOCOL in (tmp_path / "out/table.md").read_text() and "SYNTHETIC" not in built.text
    (classes,) = (pd.read_csv(p).set_index("method") for p in (tmp_path / "out").glob("figure-classes*.csv"))
    assert classes.loc["ours [paper]", ["ceiling", "chair"]].tolist() == [90.8, 88.48] and "ours" in classes.index
    assert (
        ">paper</" in (tmp_path / "out/index.html").read_text()
        or "ours (paper)" in (tmp_path / "out/index.html").read_text()
    )
