"""Measurable faults of figures: overlapping or cut labels, hidden points, low-contrast text."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pretrain_bench.harness.contract.events import EVENTS_FILE
from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.analysis.curves import Curve, read_curves
from pretrain_bench.reports.analysis.frame import load_runs
from pretrain_bench.reports.analysis.method_cards import colour_of
from pretrain_bench.reports.figures.class_heat_map import draw_class_heat_map, luminance
from pretrain_bench.reports.figures.cost import draw_cost_against_gain
from pretrain_bench.reports.figures.gains import draw_gains
from pretrain_bench.reports.figures.ratio_curves import draw_ratio_curves
from pretrain_bench.reports.figures.scores import draw_scores
from pretrain_bench.reports.figures.validation_curves import draw_validation_curves
from pretrain_bench.reports.page import plotly_figures
from tests.reports.stores import add, only_group

TITLE = "SYNTHETIC DATA\nscannet-sem on synth-scannet, 100% of the labels, budget smoke, profile smoke and more"


def effect(method: str, row: str, gain: float, **more: Any) -> dict[str, Any]:
    """One row of effects, without an interval."""
    group = {
        "task": "t",
        "dataset": "d",
        "synthetic": False,
        "protocol": "finetune",
        "label_ratio": "5%",
        "budget": "b",
    }
    group |= {"profile": "b", "conditions": "c", "family": "f", "checkpoint": "final", "verdict": "not distinguishable"}
    return {
        **group,
        "method": method,
        "row": row,
        "n": 3,
        "gain": gain,
        "gain_low": np.nan,
        "gain_high": np.nan,
        **more,
    }


def drawn(figure: Any) -> Any:
    """The renderer of a figure, after layout."""
    figure.draw_without_rendering()
    return figure.canvas.get_renderer()


@pytest.mark.parametrize("methods", [("scratch",), ("scratch", "depthcontrast", "supervised", "pointcontrast")])
def test_names_of_methods_do_not_overlap_and_no_title_is_cut(tmp_path: Path, methods: tuple[str, ...]) -> None:
    (tmp_path / "runs").mkdir()
    store = Store(tmp_path / "runs")
    for method in methods:
        for source in ("synth-scannet", "rgbd-folder"):
            add(store, method, 0.5, source=source, synthetic=True)
    figure = draw_scores(load_runs(store), TITLE)
    renderer = drawn(figure)
    axes = figure.axes[0]
    boxes = [label.get_window_extent(renderer) for label in axes.get_xticklabels()]
    assert len(boxes) == 2 * len(methods)
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
    title = axes.title.get_window_extent(renderer)
    assert title.x0 >= 0 and title.x1 <= figure.bbox.x1 and title.y1 <= figure.bbox.y1


def test_points_of_methods_stand_side_by_side_at_a_ratio() -> None:
    found = pd.DataFrame(
        [
            {"row": m, "method": m, "label_percent": p, "mean": 50.0, "low": 49.0, "high": 51.0, "checkpoint": "final"}
            for m in ("scratch", "csc", "ours")
            for p in (5.0, 100.0)
        ]
    )
    runs = found.assign(outcome="ok", score_final=0.5, metric="miou_voxel")
    figure = draw_ratio_curves(runs, found, "t", {})
    places = np.concatenate(
        [np.asarray(c.get_offsets())[:, 0] for c in figure.axes[0].collections if len(c.get_offsets()) == 2]
    )
    assert len(set(places.round(4))) == 6
    assert (np.abs(places.reshape(3, 2) / (5, 100) - 1) < 0.1).all(), "and near to it"


def test_numbers_on_a_heat_map_can_be_read() -> None:
    table = pd.DataFrame([[5.0, 30.0, 50.0, 62.0], [71.0, 85.0, 99.0, np.nan]], index=["a", "b"], columns=list("wxyz"))
    figure = draw_class_heat_map(table, "ap50", "t")
    drawn(figure)
    assert figure.axes[1].get_ylabel() == "AP50 of instances (%)"
    axes = figure.axes[0]
    shades = axes.collections[0].get_facecolors()
    assert [t.get_text() for t in axes.texts] == ["5", "30", "50", "62", "71", "85", "99"]
    for text, shade in zip(axes.texts, shades, strict=False):
        light = luminance(shade)
        ratio = (light + 0.05) / 0.05 if text.get_color() == "#000000" else 1.05 / (light + 0.05)
        assert ratio >= 4.5, text.get_text()


@pytest.mark.parametrize("hours", [[0.010312], [0.2327, 0.2838], [0.233, 1.4, 12.0], [1.36e-5, 2e-4]])
def test_numbers_along_the_cost_stand_apart_and_begin_at_nothing(hours: list[float]) -> None:
    found = pd.DataFrame(
        [
            {
                "method": "csc",
                "row": "csc",
                "hours": h,
                "hours_of": "CPU-hours",
                "label_ratio": "5%",
                "gain": 1.0,
                "gain_low": np.nan,
                "gain_high": np.nan,
            }
            for h in hours
        ]
    )
    figure = draw_cost_against_gain(found, "t")
    renderer = drawn(figure)
    axes = figure.axes[0]
    low, high = axes.get_xlim()
    assert low == 0 and high > max(hours), "no method looks free beside one that is hardly dearer"
    boxes = [label.get_window_extent(renderer) for label in axes.get_xticklabels() if label.get_text()]
    assert all(left.x1 + left.height / 2 < right.x0 for left, right in pairwise(boxes)), "half a letter between two"


def test_the_legend_of_many_methods_hides_nothing() -> None:
    methods = ("scratch", "supervised", "pointcontrast", "csc", "depthcontrast", "ours (another profile)")
    figure = draw_validation_curves({m: [Curve(m, "k", 0, [10, 20], [0.1, 0.4])] for m in methods}, "miou_voxel", "t")
    renderer = drawn(figure)
    (axes,) = figure.axes
    (legend,) = figure.legends
    box = legend.get_window_extent(renderer)
    assert [t.get_text() for t in legend.get_texts()] == list(methods)
    assert box.y1 < axes.xaxis.label.get_window_extent(renderer).y0, "below the axes and their title"
    assert box.y0 >= 0 and box.x0 >= 0 and box.x1 <= figure.bbox.x1, "and whole"
    assert axes.get_window_extent(renderer).height > 0.5 * figure.bbox.height


def test_a_legend_of_long_names_is_whole() -> None:
    names = [f"ours ({source})" for source in ("synth-scannet", "synth-kitti", "a-data-set-with-quite-a-long-name")]
    curves = {n: [Curve(n.split(" ")[0], "k", 0, [10, 20], [0.1, 0.4])] for n in [*names, "csc", "x" * 64, "y" * 64]}
    figure = draw_validation_curves(curves, "miou_voxel", "t")
    renderer = drawn(figure)
    box = figure.legends[0].get_window_extent(renderer)
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0
    texts = [t.get_text() for t in figure.legends[0].get_texts()]
    assert texts[:4] == list(curves)[:4] and texts[4].startswith("x" * 40) and texts[4].endswith("…")


def test_long_names_below_an_axis_do_not_meet() -> None:
    methods = (
        "scratch",
        "ours (a-source-with-a-name-of-its-own)",
        "a-method-with-quite-a-long-name-of-its-own",
        "y" * 64,
    )
    found = pd.DataFrame([effect(m, m, float(i)) for i, m in enumerate(methods)])
    figure = draw_gains(found, "t")
    renderer = drawn(figure)
    boxes = [label.get_window_extent(renderer) for label in figure.axes[0].get_xticklabels()]
    assert len(boxes) == 4 and all(left.x1 < right.x0 for left, right in pairwise(boxes))
    assert min(box.y0 for box in boxes) >= 0


def test_gains_have_a_column_for_each_way_of_pretraining() -> None:
    rows = [(m, r, i) for m, r in (("mine", "mine"), ("ours", "ours (b)"), ("ours", "ours (a)")) for i in range(6)]
    found = pd.DataFrame([effect(m, r, 1.0 * i) for m, r, i in rows])
    drawn_names = [t.get_text() for t in draw_gains(found, "t").axes[0].get_xticklabels()]
    assert drawn_names == ["ours\n(a)", "ours\n(b)", "mine"], "the paper's methods first, ways of one side by side"
    traces = plotly_figures.gains(found)["data"]
    points = [t for t in traces if t["type"] == "scatter"]
    assert {t["name"]: len(t["y"]) for t in points} == {"mine": 6, "ours (b)": 6, "ours (a)": 6}
    (box,) = [t for t in traces if t["type"] == "box" and t["name"] == "mine"]
    own = [line.get_ydata() for line in draw_gains(found, "t").axes[0].lines if len(line.get_ydata()) == 5]
    assert [box["q1"][0], box["q3"][0]] == [1.25, 3.75] == sorted(set(own[0]))[:2], (
        "one rule of quartiles in page and file"
    )


def test_rows_of_one_method_share_a_colour_and_differ_in_their_lines() -> None:
    curves = {
        n: [Curve(n.split(" ")[0], "k", 0, [10, 20], [0.1, 0.4])] for n in ("ours (a)", "ours (b)", "mine", "theirs")
    }
    lines = draw_validation_curves(curves, "miou_voxel", "t").axes[0].lines
    one, two, mine, theirs = [line for line in lines if not line.get_label().startswith("_")]
    assert one.get_color() == two.get_color() and one.get_linestyle() != two.get_linestyle()
    assert len({one.get_color(), mine.get_color(), theirs.get_color()}) == 3, "own methods have colours of their own"
    assert colour_of("mine") == mine.get_color(), "the same in every figure"


def test_the_line_of_scratch_is_the_mean_that_the_tables_have(tmp_path: Path) -> None:
    """One run at 40 from one pre-training, four at 50 from another: the unit is the pre-training, so the mean is 45."""
    uneven = Store(tmp_path / "uneven")
    uneven.root.mkdir()
    add(uneven, "scratch", 0.4, 0, 0, source="none")
    for seed in range(4):
        add(uneven, "scratch", 0.5, 1, seed, source="none")
    figure = draw_scores(load_runs(uneven), TITLE)
    dashed = [line for line in figure.axes[0].lines if line.get_linestyle() == "--"]
    assert np.allclose(dashed[-1].get_ydata(), 45.0)


def test_failed_runs_are_thin_lines_that_cut_no_mean(store: Store) -> None:
    add(store, "ours", 0.4, 0, 0)
    add(store, "ours", 0.4, 1, 0, outcome="crashed")
    add(store, "csc", 0.4, 0, 0, outcome="crashed")
    runs = only_group(store)
    for key, outcome in zip(runs["key"], runs["outcome"], strict=True):
        steps = (10, 20, 30) if outcome == "ok" else (10,)
        lines = [{"event": "eval", "step": s, "split": "test", "metrics": {"miou_voxel": 0.01 * s}} for s in steps]
        (store.folder("finetune", key) / EVENTS_FILE).write_text("\n".join(map(json.dumps, lines)) + "\n")
    curves = read_curves(store, runs, "miou_voxel")
    axes = draw_validation_curves(curves, "miou_voxel", "t").axes[0]
    longest = {"ours": [10, 20, 30], "csc": [10]}
    named = {line.get_label(): line.get_xdata().tolist() for line in axes.lines if line.get_label() in longest}
    assert named == longest and len(axes.lines) == 4, "three runs and the mean of ours"
    traces = plotly_figures.validation_curves(curves, "miou_voxel")["data"]
    assert {t["name"]: list(t["x"])[: len(longest[t["name"]])] for t in traces if t.get("showlegend", True)} == longest


def test_the_papers_curves_are_not_drawn_alone() -> None:
    overlays = {"ours": ((0, 10.0), (9000, 60.0))}
    assert not len(draw_validation_curves({}, "miou_voxel", TITLE, overlays).axes[0].lines)
    own = {"ours": [Curve("ours", "k", 0, [10, 20], [0.3, 0.4])]}
    axes = draw_validation_curves(own, "miou_voxel", TITLE, overlays).axes[0]
    assert len(axes.lines) == 3 and axes.get_xlim()[1] < 30, "run, mean and paper, as far as ours go"
