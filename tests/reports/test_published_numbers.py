"""The paper's numbers are shown beside a row of the same protocol; otherwise they are listed with the differences."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.analysis import published
from pretrain_bench.reports.analysis.effects import effects
from pretrain_bench.reports.analysis.families import families
from pretrain_bench.reports.analysis.frame import load_runs
from pretrain_bench.reports.analysis.published_protocol import (
    BEST_AS_PAPER,
    difference,
    methods_as_published,
    pretrainings,
    protocols,
)
from pretrain_bench.reports.build import build_report
from pretrain_bench.reports.page.plotly_figures import plotly_source
from pretrain_bench.reports.tables.published_table import NUMBERS, published_table
from pretrain_bench.reports.tables.ratio_table import ratio_table
from pretrain_bench.reports.tables.table_one import table_one
from tests.reports.planted import plant

S3DIS = {
    "task": "s3dis-inst", "protocol": "finetune", "synthetic": False, "pretrain_dataset": "scannet", "pretrain_synthetic": False, "label_percent": 100.0,
    "train_scenes": 204, "held_out_scenes": 0, "test_scenes": 68, "checkpoint": "final", "metric": "ap50", "mean_over": 10,
    "voxel_metres": 0.05,
    "part_of_test_split": "", "network_width": 1.0, "published_as": "ours", "pretrain_steps": 40_000.0, "finetune_steps": 15_000,
}  # fmt: skip
"""A row of S3DIS instance segmentation under the paper's protocol."""
OF_FINAL = "paper: best on the test rooms, {}; here: final checkpoint, {}"


def test_the_same_protocol_has_no_difference() -> None:
    assert difference(S3DIS) == ""
    assert difference(S3DIS | {"pretrain_dataset": "none"}) == "", "scratch"
    detection = {
        "task": "sunrgbd-det",
        "train_scenes": 5285,
        "test_scenes": 5050,
        "metric": "map50",
        "voxel_metres": 0.025,
    }
    assert difference(S3DIS | detection | {"finetune_steps": 14_865}) == ""
    epochs = {"published_as": "depthcontrast", "pretrain_steps": 47_100.0}
    assert difference(S3DIS | epochs) == "", "some frames cannot be read"
    quarter = {"task": "scannet-inst", "label_percent": 5.0, "train_scenes": 61, "test_scenes": 312, "mean_over": 18}
    quarter["finetune_steps"] = 20_000
    assert difference(S3DIS | quarter) == ""
    assert difference(S3DIS | quarter | {"voxel_metres": 0.02}) == "", "the paper does not state its voxels on ScanNet"


def test_each_difference_is_a_sentence() -> None:
    held_out = {"train_scenes": 184, "held_out_scenes": 20, "checkpoint": "selected"}
    assert difference(S3DIS | held_out) == (
        "paper: best on the test rooms, trained on all 204 rooms; "
        "here: checkpoint selected on 20 held-out rooms, trained on 184"
    )
    few = {"task": "scannet-inst", "label_percent": 20.0, "train_scenes": 216, "test_scenes": 312, "mean_over": 18}
    few["finetune_steps"] = 20_000
    assert difference(S3DIS | few) == OF_FINAL.format("trained on 241 (20 %) of all 1,201 rooms", "trained on 216")
    for changed, there, here in (
        ({"synthetic": True}, "real data", "SYNTHETIC data"),
        ({"pretrain_dataset": "rgbd-folder"}, "pre-trained on ScanNet", "pre-trained on rgbd-folder"),
        ({"pretrain_synthetic": True}, "pre-trained on ScanNet", "pre-trained on SYNTHETIC data (scannet)"),
        ({"test_scenes": 5}, "tested on 68 rooms", "tested on 5"),
        (
            {"metric": "miou_point", "task": "s3dis-sem", "mean_over": 13, "finetune_steps": 20_000},
            "mIoU on voxels",
            "mIoU on points",
        ),
        ({"mean_over": 13}, "mean over 10 classes", "over 13"),
        ({"voxel_metres": 0.02}, "voxels of 5 cm", "of 2 cm"),
        ({"network_width": 0.25}, "full width of the network", "width 0.25"),
        ({"finetune_steps": 30}, "15,000 steps of fine-tuning", "30 steps"),
        ({"pretrain_steps": 600.0}, "40,000 steps of pre-training", "600 steps"),
        (
            {"published_as": "csc", "pretrain_steps": 40_000.0},
            "20,000 steps of pre-training (assumed, it does not say)",
            "40,000 steps",
        ),
    ):
        assert difference(S3DIS | changed) == OF_FINAL.format(there, here)
    kitti = {"task": "kitti-sem", "train_scenes": 14589, "test_scenes": 4071, "mean_over": 19, "metric": "miou_point"}
    assert "does not say whether mIoU is on voxels or points" in difference(S3DIS | kitti)


def test_every_task_with_a_number_has_a_protocol() -> None:
    assert {number.task for number in published.table1()} == set(protocols()) == set(published.TASKS.values())
    assert set(pretrainings()) == set(published.METHODS.values())


def test_methods_whose_labels_are_points_or_whose_task_is_unknown_have_none() -> None:
    row = S3DIS | {"row": "ours", "method": "ours", "dataset": "s3dis", "label_ratio": "100%"}
    row |= dict.fromkeys(("budget", "profile", "conditions"), "x")
    assert methods_as_published(pd.DataFrame([row])) == ["ours"]
    for changed in ({"label_percent": float("nan")}, {"task": "mine"}):
        assert methods_as_published(pd.DataFrame([row | changed])) == []
    assert methods_as_published(pd.DataFrame()) == []


def planted(folder: Path, *, synthetic: bool = False, as_paper: bool = False) -> Store:
    store, tasks = Store(folder / "runs"), ("s3dis-sem", "scannet-sem") if as_paper else ("s3dis-sem",)
    plant(store, 1, 1, synthetic=synthetic, fail=0, tasks=tasks, as_paper=as_paper)
    return store


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The data frame of a store with the paper's protocol; tests must not change it."""
    return load_runs(planted(tmp_path_factory.mktemp("frame"), as_paper=True))


def test_tables_show_the_paper_beside_best_of_the_same_protocol(runs: pd.DataFrame) -> None:
    final, best = effects(runs), effects(runs, checkpoint="best")
    table = table_one(final, best).set_index("method")
    (beside,) = [c for c in table.columns if c.startswith("s3dis") and BEST_AS_PAPER in c]
    (own,) = [c for c in table.columns if c.startswith("s3dis") and c.endswith("final)")]
    one = runs.query("task == 's3dis-sem' and label_ratio == '100%' and method == 'ours'")
    assert re.fullmatch(rf"{100 * one['score_best'].mean():.1f} .*\[paper 66\.5\]", table.loc["ours", beside])
    assert table.loc["ours", own].startswith(f"{100 * one['score_final'].mean():.1f} ")
    assert "paper" not in table.loc["ours", own]
    family, of_best = families(final)[1], families(best)[1]
    ratios = ratio_table(family, of_best).set_index("method")
    figure3 = dict(published.ratio_curve("scannet-sem", "csc"))
    for percent in (5.0, 10.0, 20.0, 40.0, 100.0):
        cell = ratios.loc["csc", f"{percent:g}%, {BEST_AS_PAPER}"]
        assert cell.endswith(f"[paper {figure3[percent]:.1f}]") and "paper" not in ratios.loc["csc", f"{percent:g}%"]
    assert published_table(final).empty, "every number stands beside a row"
    elsewhere = runs.assign(pretrain_dataset=runs["pretrain_dataset"].where(runs["method"] != "ours", "rgbd-folder"))
    table = table_one(effects(elsewhere), effects(elsewhere, checkpoint="best")).set_index("method")
    assert "paper" not in table.loc["ours", beside] and "[paper 69.0]" in table.loc["csc", beside]
    assert set(published_table(effects(elsewhere))[NUMBERS]) >= {"ours 66.5"}


def test_a_small_or_short_run_stands_beside_no_number(runs: pd.DataFrame) -> None:
    for changed in ({"network_width": 0.25}, {"finetune_steps": 30}, {"pretrain_steps": 600}):
        other = runs.assign(**changed)
        assert "paper" not in table_one(effects(other), effects(other, checkpoint="best")).to_string()
        assert methods_as_published(other) == []


def test_an_ablation_stands_beside_its_own_number(runs: pd.DataFrame) -> None:
    other = runs.assign(published_as=runs["method"].replace("csc", "csc (same scan)"))
    table = ratio_table(families(effects(other))[1], families(effects(other, checkpoint="best"))[1]).set_index("method")
    assert table.loc["csc", f"5%, {BEST_AS_PAPER}"].endswith("[paper 44.1]")
    one = table_one(effects(other), effects(other, checkpoint="best")).set_index("method")
    assert "[paper" not in " ".join(one.loc["csc"]) and "[paper" in " ".join(one.loc["pointcontrast"])


def test_runs_say_how_the_paper_would_call_them(tmp_path: Path) -> None:
    recipes = {"csc": {"views": "same_frame"}, "pointcontrast": {"min_overlap": 0.7}, "ours": {"steps": 5}}
    names = [published.published_name(method, [None, recipe]) for method, recipe in recipes.items()]
    assert names == ["csc (same scan)", "pointcontrast (>70% overlap)", "ours"]
    plant(Store(tmp_path), 1, 1, ratios=[5.0], recipe=recipes["csc"], network={"width": 0.25})
    frame = load_runs(Store(tmp_path)).set_index("method")
    assert frame.loc["csc", ["published_as", "network_width"]].tolist() == ["csc (same scan)", 0.25]


def test_tables_list_the_paper_and_what_differs(runs: pd.DataFrame) -> None:
    runs = runs.assign(train_scenes=184, held_out_scenes=20, checkpoint="selected", score_selected=runs["score_final"])
    found = effects(runs)
    assert "paper" not in table_one(found, effects(runs, checkpoint="best")).to_string()
    of_best = families(effects(runs, checkpoint="best"))
    for family, best in zip(families(found), of_best, strict=True):
        assert "paper" not in ratio_table(family, best).to_string()
    listed = published_table(found)
    (first,) = listed[(listed["task"] == "s3dis-sem") & listed["from"].str.startswith("Table I")].to_dict("records")
    assert first[NUMBERS].endswith("csc 69.0, depthcontrast 64.9, ours 66.5")
    words = first["why not shown beside these rows"]
    assert words.endswith("trained on all 204 rooms; here: checkpoint selected on 20 held-out rooms, trained on 184")
    assert first["from"] == "Table I, curves of Figure 5, values per class"
    assert {"Figure 3", "Figure 3, curves of Figure 5"} < set(listed["from"]) and not listed.duplicated().any()


@pytest.fixture(scope="module")
def as_paper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("as-paper")
    build_report(planted(folder, as_paper=True), folder / "out")
    return folder / "out"


@pytest.mark.slow
def test_numbers_of_one_protocol_stand_beside_best_in_every_format(as_paper: Path) -> None:
    for suffix in (".md", ".tex", ".csv", ".json"):
        text = (as_paper / "tables/table1").with_suffix(suffix).read_text()
        assert BEST_AS_PAPER in text and "[paper 66.5]" in text.replace("{[}", "[").replace("{]}", "]")
    assert published.PROTOCOL in (as_paper / "tables/table1.md").read_text()
    assert not list(as_paper.rglob("published.*")), "every number stands beside a row"


@pytest.mark.slow
def test_figures_show_the_paper_beside_best_and_nothing_else(as_paper: Path) -> None:
    classes = pd.read_csv(as_paper / "figures/classes2-best.csv").set_index("method")
    assert classes.loc["ours [paper]", ["ceiling", "chair"]].tolist() == [90.8, 88.48] and "ours" in classes.index
    assert "[paper]" not in (as_paper / "figures/classes2.csv").read_text()
    assert set(pd.read_csv(as_paper / "figures/ratios2-best.csv")["checkpoint"]) == {"best"}
    assert "paper" in (as_paper / "figures/ratios2-best.svg").read_text()
    assert "paper" not in (as_paper / "figures/ratios2.svg").read_text()
    page = (as_paper / "index.html").read_text().replace(plotly_source(), "")
    assert "ours (paper)" in page and "[paper 66.5]" in page and "best checkpoint; [paper]" in page


@pytest.mark.slow
def test_a_report_lists_numbers_of_another_protocol(tmp_path: Path) -> None:
    build_report(planted(tmp_path), tmp_path / "out")
    out = tmp_path / "out"
    for path in out.rglob("*.csv"):
        if path.name != "published.csv":
            assert "paper" not in path.read_text(), path.name
    page = (out / "index.html").read_text().replace(plotly_source(), "")
    assert "without a comparable row" in page and "trained on all 204 rooms" in page and "(paper)" not in page
    assert "69.0" in (out / "tables/published.tex").read_text() and "69.0" in (out / "table.md").read_text()


@pytest.mark.slow
def test_numbers_are_listed_for_synthetic_tasks_on_request_alone(tmp_path: Path) -> None:
    store = planted(tmp_path, synthetic=True)
    build_report(store, tmp_path / "out", page=False)
    assert not list((tmp_path / "out").rglob("*published*"))
    build_report(store, tmp_path / "out", page=False, published=True)
    listed = (tmp_path / "out/tables/synthetic-published.md").read_text()
    assert "SYNTHETIC DATA: " in listed and "real data" in listed and "csc 69.0" in listed
    assert "[paper" not in (tmp_path / "out/table.md").read_text()
