"""The forest plot, shapes of label ratios, mean curves, and figures for papers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pretrain_bench.reports.analysis.curves import Curve, mean_curve
from pretrain_bench.reports.analysis.statistics import estimate
from pretrain_bench.reports.figures.cost import draw_cost_against_gain
from pretrain_bench.reports.figures.forest import draw_forest, forest_rows
from pretrain_bench.reports.figures.style import COLUMN_INCHES, TEXT_INCHES, figures_for, save
from pretrain_bench.reports.page import plotly_figures
from tests.reports.figures.test_readability import effect

RATIOS = ("5%", "100%")


def planted(tasks: int = 2) -> pd.DataFrame:
    """Effects of two methods at two ratios: csc is better, ours not distinguishable."""
    return pd.DataFrame(
        [
            effect(method, method, gain, task=f"task{task}", family=f"f{task}", label_ratio=ratio, gain_low=gain - 2,
                   gain_high=gain + 2, verdict="better" if gain > 2 else "not distinguishable")
            for task in range(tasks)
            for method, gain in (("csc", 3.0), ("ours", 1.0))
            for ratio in RATIOS
        ]
    )  # fmt: skip


def test_a_forest_has_a_panel_a_task_a_row_a_method_and_fills_what_a_test_supports() -> None:
    figure = draw_forest(forest_rows(planted()), "SYNTHETIC DATA\ntitle")
    assert figure.get_suptitle() == "SYNTHETIC DATA\ntitle", "above all panels"
    assert [axes.get_title() for axes in figure.axes] == ["task0", "task1"]
    (axes, _) = figure.axes
    assert [t.get_text() for t in axes.get_yticklabels()] == ["csc", "ours"]
    marks = [line for line in axes.lines if line.get_marker() not in ("None", None)]
    assert {(m.get_xdata()[0], m.get_markerfacecolor() == "white") for m in marks} == {(3.0, False), (1.0, True)}
    assert {m.get_marker() for m in marks} == {"o", "s"}, "the shape is the label ratio"
    intervals = [
        line.get_xdata() for line in axes.lines if line.get_marker() in ("None", None) and len(line.get_xdata()) == 2
    ]
    assert [1.0, 5.0] in [list(x) for x in intervals]
    names = [t.get_text() for t in figure.legends[0].get_texts()]
    assert names == ["5%", "100%", "interval excludes 0", "interval includes 0"]


def test_every_panel_of_a_forest_has_its_own_scale() -> None:
    """Panels above others once had grid lines without numbers."""
    figure = draw_forest(forest_rows(planted(tasks=7)), "title")
    figure.canvas.draw()
    assert len(figure.axes) == 7
    for number, axes in enumerate(figure.axes):
        shown = [
            any(t.get_visible() and t.get_text() for t in labels)
            for labels in (axes.get_xticklabels(), axes.get_yticklabels())
        ]
        assert shown == [True, number % 3 == 0] and bool(axes.get_xlabel()) == (number >= 4)


def test_the_forest_of_the_page_shows_the_same() -> None:
    figure = plotly_figures.forest(forest_rows(planted()))
    rows = [t for t in figure["data"] if "customdata" in t]
    assert [(t["name"], t["x"], t["marker"]["symbol"]) for t in rows[:2]] == [
        ("csc", [3.0, 3.0], ["circle", "square"]),
        ("ours", [1.0, 1.0], ["circle-open", "square-open"]),
    ]
    assert {t["xaxis"] for t in rows} == {"x", "x2"} and rows[0]["error_x"]["array"] == [2.0, 2.0]
    assert [t["name"] for t in figure["data"] if t.get("meta") == "key"] == [
        *RATIOS,
        "interval excludes 0",
        "interval includes 0",
    ]


def test_cost_shows_ratios_as_shapes() -> None:
    priced = planted(1).assign(hours=[1.0, 1.0, 2.0, 2.0], hours_of="CPU-hours")
    figure = draw_cost_against_gain(priced, "t")
    marks = [line.get_marker() for line in figure.axes[0].lines if line.get_zorder() == 3]
    assert marks == ["o", "s", "o", "s"] and len(figure.legends) == 1, "one legend"
    symbols = [t["marker"]["symbol"] for t in plotly_figures.cost(priced)["data"] if t.get("meta") != "key"]
    assert symbols == [["circle", "square"]] * 2


def test_a_mean_curve_is_over_pretrainings_with_their_interval() -> None:
    runs = [
        Curve("ours", f"k{i}", seed, [10, 20], [score, score + 0.1])
        for i, (seed, score) in enumerate(((0, 0.2), (0, 0.4), (1, 0.5)))
    ]
    failed = Curve("ours", "f", 3, [5], [0.05], failed=True)
    mean = mean_curve([*runs, failed, Curve("ours", "k", 2, [10, 20, 30], [0.4, 0.5, 0.6])])
    known = estimate(np.array([30.0, 50.0, 40.0]))
    assert mean is not None
    assert mean.steps.tolist() == [10, 20], "where all successful runs were validated"
    assert [mean.scores[0], mean.low[0], mean.high[0]] == pytest.approx([known.mean, known.low, known.high])
    one = mean_curve(runs[:2])
    assert one is not None and np.isnan(one.low).all(), "one pre-training has no interval"
    assert mean_curve([failed]) is None


@pytest.mark.parametrize(("tasks", "inches"), [(1, COLUMN_INCHES), (3, TEXT_INCHES)])
def test_a_figure_for_a_paper_has_its_width_letters_of_8_points_and_no_title(
    tasks: int, inches: float, tmp_path: Path
) -> None:
    with figures_for("paper"):
        figure: Any = draw_forest(forest_rows(planted(tasks)), "SYNTHETIC DATA\na title")
        figure.draw_without_rendering()
        texts = [
            t for axes in figure.axes for t in (*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label)
        ]
        assert figure.get_figwidth() == inches and {t.get_fontsize() for t in texts} == {8.0}
        titles = [text for axes in figure.axes for text in (axes.get_title(), axes.get_title(loc="right"))]
        titles.append(figure.get_suptitle())
        assert "a title" not in "".join(titles) and titles.count("synthetic data") == 1
        save(figure, tmp_path / "f")
    pdf = (tmp_path / "f.pdf").read_bytes()
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf, "fonts are embedded whole"
    screen: Any = draw_forest(forest_rows(planted(tasks)), "a title")
    assert screen.get_figwidth() not in (COLUMN_INCHES, TEXT_INCHES), "and nothing of it stays"
