"""Rows of one method with different pre-training data, beside scratch, which has none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from pretrain_bench.harness.contract.records import Outcome
from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.analysis.compare import Side
from pretrain_bench.reports.analysis.effects import effects
from pretrain_bench.reports.analysis.frame import load
from pretrain_bench.reports.analysis.sources import OTHER, SAME
from pretrain_bench.reports.build import build_report
from pretrain_bench.reports.comparison import build_comparison
from pretrain_bench.reports.figures.sources import draw_source_gains
from pretrain_bench.reports.page.plotly_figures import plotly_source
from tests.reports.stores import add, rewrite

FRAMES, STAND_IN = "ours (rgbd-folder)", "ours (synth-scannet, SYNTHETIC)"
ROWS = ["scratch", FRAMES, STAND_IN]
SCORES = {"scratch": (0.40, 0.42), FRAMES: (0.50, 0.54), STAND_IN: (0.30, 0.36)}


def fill(store: Store, percents: tuple[float, ...] = (20.0, 100.0)) -> None:
    """A real task: scratch without data, ours on a user's frames, and ours with --pretrain-data forgotten; two seeds each."""
    store.root.mkdir()
    for percent in percents:
        for pretrain_seed in range(2):
            for finetune_seed in range(2):
                which = {"pretrain_seed": pretrain_seed, "finetune_seed": finetune_seed, "percent": percent}
                scores = {row: both[pretrain_seed] for row, both in SCORES.items()}
                add(store, "scratch", scores["scratch"], source="none", **which)
                add(store, "ours", scores[FRAMES], source="rgbd-folder", **which)
                add(
                    store,
                    "ours",
                    scores[STAND_IN],
                    source="synth-scannet",
                    synthetic=True,
                    task_synthetic=False,
                    **which,
                )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    fill(Store(folder / "runs"))
    build_report(Store(folder / "runs"), folder / "out")
    return folder / "out"


def test_one_table_compares_every_row_with_the_same_scratch(written: Path) -> None:
    found = pd.read_csv(written / "effects.csv")
    assert not list(written.rglob("*synthetic*")), "the task's data are real, so nothing is a table of synthetic data"
    for ratio in ("20%", "100%"):
        mine = found[found["label_ratio"] == ratio].set_index("row")
        assert list(mine.index) == ROWS and set(mine["n"]) == {2} and mine["failed"].sum() == 0
        gains = mine["gain"].dropna()
        assert gains.round(6).to_dict() == {FRAMES: 11.0, STAND_IN: -8.0}, "means over seeds, minus those of scratch"
    tables = list(written.glob("groups/*/table.csv"))
    assert all(list(pd.read_csv(path)["method"]) == ROWS for path in tables)
    assert len(tables) == 2, "one for each label ratio"
    text = (written / "table.md").read_text()
    assert "SYNTHETIC in the name of a row: pre-trained on procedural scenes" in text and "SYNTHETIC DATA" not in text


def test_no_export_mixes_rows_of_one_method(written: Path) -> None:
    assert len(pd.read_csv(written / "runs.csv")) == 24
    for name in ("runs", "effects", "figures/ratios1", "figures/gains", "figures/cost"):
        rows = set(pd.read_csv(written / f"{name}.csv")["row"])
        assert rows | {"scratch"} == set(ROWS), name
    for name in ("tables/table1", "tables/ratios1", "tables/cost", "tables/datasets", "figures/variance"):
        rows = set(pd.read_csv(written / f"{name}.csv")["method"])
        assert rows | {"scratch"} == set(ROWS), name
    assert {r["row"] for r in json.loads((written / "effects.json").read_text())} == set(ROWS)
    spread = pd.read_csv(written / "figures/variance.csv")
    assert list(spread["method"]) == [row for row in ROWS for _ in range(2)], "rows stand together, in table order"


def test_figures_and_the_page_name_every_row(written: Path) -> None:
    page = (written / "index.html").read_text().replace(plotly_source(), "")
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    named = [{trace["name"] for trace in figure["data"] if trace.get("meta") != "key"} for figure in data["figures"]]
    assert named and all(names | {"scratch"} == set(ROWS) for names in named)
    for name in ("gains", "cost", "ratios1"):
        svg = (written / f"figures/{name}.svg").read_text()
        assert "rgbd-folder" in svg and "SYNTHETIC" in svg, name


def test_gains_by_source_have_a_column_for_each_row() -> None:
    known = pd.DataFrame(
        [
            {"row": row, "method": "ours", "pre-trained on": source, "gain": gain}
            for row in (FRAMES, STAND_IN)
            for source, gain in ((SAME, 1.0), (OTHER, 2.0))
        ]
    )
    figure = draw_source_gains(known, "t")
    figure.draw_without_rendering()
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert len(labels) == 2 and "rgbd-folder" in labels[0] and "SYNTHETIC" in labels[1]


def test_a_failure_on_synthetic_data_is_a_row_of_the_real_table(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    fill(store, percents=(100.0,))
    for record in [r for r in store.records() if r.cell and r.cell.pretrain_dataset == "synth-scannet"]:
        shutil.rmtree(store.folder("finetune", record.key))
    for record in [r for r in store.records() if r.kind == "pretrain" and r.synthetic]:
        rewrite(store, record, outcome=Outcome.crashed, metrics={})
    loaded = load(store)
    found = effects(loaded.runs, loaded.failed_pretrainings).set_index("row")
    assert set(found.index) == set(ROWS) and found.loc[STAND_IN, "lost_pretrainings"] == 2


def test_a_comparison_of_two_stores_pairs_rows_by_their_data(tmp_path: Path) -> None:
    stores = [Store(tmp_path / name) for name in "ab"]
    for store in stores:
        fill(store, percents=(100.0,))
    table = build_comparison(Side("a", stores[0]), Side("b", stores[1]), tmp_path / "out").table
    assert (
        set(table["row"]) == set(ROWS) and set(table["synthetic"]) == {False} and set(table["verdict"]) == {"the same"}
    )


def test_what_a_method_hands_on_is_part_of_its_row_and_not_of_the_conditions(tmp_path: Path) -> None:
    """DepthContrast transfers only its encoder, scratch all weights, and they are compared; two transfers of one method are two rows."""
    store = Store(tmp_path / "runs")
    store.root.mkdir()
    for seed in range(3):
        add(store, "scratch", 0.40 + seed / 100, seed, source="none")
        add(store, "depthcontrast", 0.50 + seed / 100, seed, transfer="encoder")
    table = effects(load(store).runs, []).set_index("row")
    assert set(table.index) == {"scratch", "depthcontrast"}
    assert table.loc["depthcontrast", "gain"] == pytest.approx(10.0)
    for seed in range(3):
        add(store, "depthcontrast", 0.45 + seed / 100, seed, transfer="all")
    rows = effects(load(store).runs, []).set_index("row")["n"]
    assert rows.to_dict()["scratch"] == 3 and len(rows) == 3 and set(rows) == {3}
