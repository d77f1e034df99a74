"""Tables and figures across groups, on a store with planted effects."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.analysis.sources import OTHER, SAME
from pretrain_bench.reports.build import build_report
from pretrain_bench.reports.page.plotly_figures import plotly_source
from tests.conftest import Bench
from tests.reports.planted import CLASSES, plant
from tests.reports.stores import add


@pytest.mark.slow
def test_a_report_of_planted_effects(planted_store: Store, tmp_path: Path) -> None:
    """One report, drawn once; each function below checks one aspect."""
    out = tmp_path / "report"
    build_report(planted_store, out)
    failures_show_in_every_table(planted_store, out)
    every_table_and_figure_is_written_in_every_format(out)
    values_per_class_are_means_of_pretrainings_in_per_cent(planted_store, out)
    the_data_of_scores_and_curves_lie_beside_them(planted_store, out)


def failures_show_in_every_table(planted_store: Store, out: Path) -> None:
    text = (out / "tables/synthetic-table1.md").read_text()
    ratios = (out / "tables/synthetic-ratios1.md").read_text()
    failed = [r for r in planted_store.records() if r.outcome != "ok"]
    assert failed and ("of 8 failed" in text or "of 8 failed" in ratios)
    assert sum(int(c.split(" of ")[0].split()[-1]) for c in ratios.split("|") if "failed" in c) == len(failed)


def every_table_and_figure_is_written_in_every_format(out: Path) -> None:
    for name in ("table1", "ratios1", "cost", "datasets"):
        stem = out / f"tables/synthetic-{name}"
        assert all("SYNTHETIC" in stem.with_suffix(suffix).read_text() for suffix in (".md", ".tex"))
        table = pd.read_csv(stem.with_suffix(".csv"))
        assert list(table.columns) == list(pd.read_parquet(stem.with_suffix(".parquet")).columns)
        assert len(json.loads(stem.with_suffix(".json").read_text())) == len(table) > 1
    for kind in ("table", "reach"):
        for suffix in ("md", "tex", "csv", "json", "parquet"):
            assert len(list(out.glob(f"groups/synthetic-s3dis-sem-*/{kind}.{suffix}"))) == 5
    for name in ("forest", "ratios1", "gains", "cost", "variance", "classes2"):
        stem = out / f"figures/synthetic-{name}"
        assert stem.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
        assert stem.with_suffix(".pdf").read_bytes()[:5] == b"%PDF-"
        assert "SYNTHETIC" in stem.with_suffix(".svg").read_text()
        assert len(stem.with_suffix(".csv").read_text().splitlines()) > 3
    rows = json.loads((out / "synthetic-effects.json").read_text())
    assert len(rows) == 30 and {"mean", "gain_low", "verdict", "n", "could_show"} <= set(rows[0])
    page = (out / "index.html").read_text().replace(plotly_source(), "")
    assert page.count("<figure") == 6 + 2 * 5 and not re.search(r"(src|href)=.https?:", page)


def values_per_class_are_means_of_pretrainings_in_per_cent(planted_store: Store, out: Path) -> None:
    """Some runs have crashed, so a mean over runs would differ."""
    shown = pd.read_csv(out / "figures/synthetic-classes2.csv").set_index("method")
    rows = [
        {"method": r.method, "seed": r.cell.pretrain_seed, **{c: r.metrics[f"iou_voxel/{i}_selected"] for i, c in enumerate(CLASSES)}}
        for r in planted_store.records()
        if r.cell and r.outcome == "ok" and str(r.cell.label_ratio) == "100%"
    ]  # fmt: skip
    expected = 100 * pd.DataFrame(rows).groupby(["method", "seed"]).mean().groupby("method").mean()
    assert shown["ceiling"].between(60, 100).all()
    assert np.allclose(shown.loc[expected.index, list(CLASSES)], expected)
    over_runs = 100 * pd.DataFrame(rows).drop(columns="seed").groupby("method").mean()
    assert not np.allclose(over_runs, expected)


def the_data_of_scores_and_curves_lie_beside_them(planted_store: Store, out: Path) -> None:
    scores = pd.concat([pd.read_csv(p) for p in out.glob("groups/*/scores.csv")]).set_index("key")
    curves = pd.concat([pd.read_csv(p) for p in out.glob("groups/*/curves.csv")])
    records = [r for r in planted_store.records() if r.kind == "finetune"]
    assert len(scores) == len(records) and set(scores["checkpoint"]) == {"selected"}
    for record in records:
        score = record.metrics.get("miou_voxel_selected")
        assert np.isclose(scores.loc[record.key, "score"], np.nan if score is None else 100 * score, equal_nan=True)
    assert set(curves["key"]) <= set(scores.index) and set(curves["step"]) == set(range(30, 301, 30))


@pytest.mark.slow
def test_figures_over_tasks_and_sources_are_of_a_store_with_both(tmp_path: Path) -> None:
    several = Store(tmp_path / "runs")
    plant(several, pretrain_seeds=6, finetune_seeds=1, fail=0, tasks=("s3dis-sem", "scannet-sem"), ratios=(20.0, 100.0))
    built = build_report(several, tmp_path / "out")
    assert {"figure-synthetic-datasets", "figure-synthetic-ranks1", "synthetic-tasks1"} <= set(built.files)
    gains = pd.read_csv(tmp_path / "out/figures/synthetic-datasets.csv")
    assert set(gains["pre-trained on"]) == {SAME, OTHER}
    assert set(gains.loc[gains["method"] == "supervised", "pre-trained on"]) == {OTHER}
    ranks = pd.read_csv(tmp_path / "out/figures/synthetic-ranks1.csv").set_index("method")
    assert float(ranks.loc["csc", "mean rank"]) < float(ranks.loc["depthcontrast", "mean rank"])
    assert ranks.loc["supervised", "mean rank"] == "-", "it is not applicable to one task"
    table = pd.read_csv(tmp_path / "out/tables/synthetic-table1.csv").set_index("method")
    assert '<span class="soft">not applicable</span>' in (tmp_path / "out/index.html").read_text()
    assert (table == "not applicable").sum().sum() == 1 and not (table == "not run").any().any()
    assert table.loc["supervised", "scannet-sem (scannet, b, p, selected)"] == "not applicable"


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_gains_under_two_budgets_are_two_figures(tmp_path: Path) -> None:
    two = Store(tmp_path / "runs")
    two.root.mkdir()
    for seed in range(2):
        for budget in ("b", "large"):
            add(two, "scratch", 0.4 + 0.01 * seed, seed, source="none", budget=budget)
            add(two, "ours", 0.5 + 0.02 * seed, seed, budget=budget)
    build_report(two, tmp_path / "out", page=False)
    assert {p.name for p in (tmp_path / "out/figures").glob("gains*.csv")} == {"gains1.csv", "gains2.csv"}
    assert set(pd.read_csv(tmp_path / "out/figures/gains2.csv")["budget"]) == {"large"}
    assert set(pd.read_csv(tmp_path / "out/figures/cost2.csv")["budget"]) == {"large"}


@pytest.mark.usefixtures("undrawn")
def test_the_command(planted_store: Store, bench: Bench, tmp_path: Path) -> None:
    done = bench("report", "--runs", str(planted_store.root), "--no-page", "--published", "--json")
    files = json.loads(done.stdout)
    assert "page" not in files and Path(tmp_path / files["synthetic-table1"]).is_file()
    assert "paper" not in (tmp_path / files["synthetic-table1"]).read_text()
    for suffix in (".md", ".tex", ".csv"):
        listed = (tmp_path / files["synthetic-published"]).with_suffix(suffix).read_text()
        assert "scratch 65.1" in listed and "here: selected checkpoint, SYNTHETIC data" in listed.replace(
            "checkpoint selected on 1 held-out rooms", "selected checkpoint"
        )
    said = bench("report", "--runs", str(planted_store.root), "--watch", "--json", code=2).stderr
    assert "leave out --json" in said
    empty = bench("report", "--runs", str(planted_store.root), "--suite", "smoke", "--out", "none").stdout
    assert "none of them of this suite" in empty, "no run of the planted store is of the suite"


@pytest.mark.usefixtures("undrawn")
def test_every_run_is_a_row_of_numbers(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    add(store, "scratch", 0.4, 3, 1, source="none")
    add(store, "ours", 0.5, outcome="crashed", message="no")
    build_report(store, tmp_path / "out", page=False)
    runs = pd.read_csv(tmp_path / "out/runs.csv").set_index("method")
    assert runs.loc["scratch", ["pretrain_seed", "finetune_seed", "score_best"]].tolist() == [3, 1, 0.4]
    assert runs.loc["ours", "outcome"] == "crashed" and np.isnan(runs.loc["ours", "score_final"])
