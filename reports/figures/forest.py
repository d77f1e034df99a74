"""Forest plot of differences from scratch with their intervals: one panel per task, one row per method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pretrain_bench.reports.analysis.families import Family, task_families
from pretrain_bench.reports.analysis.method_cards import colour_of
from pretrain_bench.reports.analysis.statistics import DECIDED
from pretrain_bench.reports.figures.gains import rows_in_order
from pretrain_bench.reports.figures.style import MARKERS, add_title, new_axes, ratio_marks, ratio_places

if TYPE_CHECKING:
    import pandas as pd

MOST_COLUMNS = 3
SPREAD = 0.6
"""Share of a row's height over which its label ratios are spread, the smallest ratio on top."""


def forest_rows(effects: pd.DataFrame) -> pd.DataFrame:
    """The effects with a known difference, plus `height` in the figure (rows count down from 0), `place` of the label ratio, and
    `decided`: whether a test supports a difference."""
    known = effects[effects["gain"].notna()]
    rows = {row: -place for place, row in enumerate(rows_in_order(known))}
    ratios = ratio_places(known["label_ratio"])
    place = known["label_ratio"].astype(str).map(ratios)
    offset = SPREAD * ((len(ratios) - 1) / 2 - place) / max(1, len(ratios))
    return known.assign(height=known["row"].map(rows) + offset, place=place, decided=known["verdict"].isin(DECIDED))


def draw_forest(known: pd.DataFrame, title: str) -> Any:
    """Draw each of the `forest_rows` as a mark, filled if a test supports the difference, with its 95 % interval if n allows one.
    The marker shows the label ratio. All panels have the same rows."""
    order = rows_in_order(known)
    panels = task_families(known)
    columns = min(MOST_COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    height = max(0.34, 0.13 * known["place"].nunique()) * len(order) * lines + 1.0 + 0.5 * lines
    figure, grid = new_axes(2.0 + 2.6 * columns if columns > 1 else 5.2, height, lines, columns)
    every = np.atleast_1d(grid).ravel()
    for number, (axes, panel) in enumerate(zip(every, panels, strict=False)):
        _draw_panel(axes, panel)
        axes.set_yticks([-place for place in range(len(order))], order)
        axes.set_ylim(0.5 - len(order), 0.5)
        axes.tick_params(labelleft=number % columns == 0)
        if number + columns >= len(panels):
            axes.set_xlabel("difference from scratch (points)")
    for axes in every[len(panels) :]:
        axes.remove()
    _add_key(figure, known)
    add_title(every[0] if len(panels) == 1 else figure, title)
    return figure


def _draw_panel(axes: Any, panel: Family) -> None:
    for effect in panel.effects.to_dict("records"):
        colour = colour_of(effect["method"])
        if np.isfinite(effect["gain_low"]):
            axes.plot([effect["gain_low"], effect["gain_high"]], [effect["height"]] * 2, color=colour, lw=1)
        axes.plot(
            effect["gain"], effect["height"], MARKERS[effect["place"] % len(MARKERS)], ms=5, color=colour,
            mfc=colour if effect["decided"] else "white", ls="",
        )  # fmt: skip
    axes.axvline(0, color="#555555", lw=0.8, ls="--", zorder=1)
    axes.set_title(panel.head, fontsize="small")
    axes.grid(axis="y", visible=False)


def _add_key(figure: Any, known: pd.DataFrame) -> None:
    """Explain the markers of label ratios and filled marks, once for all panels."""
    from matplotlib.lines import Line2D

    ratios = ratio_places(known["label_ratio"])
    fills = [Line2D([], [], marker="o", ls="", color="#444444", mfc=fill, ms=5) for fill in ("#444444", "white")]
    handles = [*ratio_marks(ratios), *fills]
    names = [*ratios, "interval excludes 0", "interval includes 0"]
    figure.legend(handles, names, frameon=False, ncols=3, loc="outside lower center", fontsize="small")
