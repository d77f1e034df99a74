"""Gains over scratch across tasks and label ratios (the paper's Figure 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pretrain_bench.reports.analysis.method_cards import colour_of, place_of
from pretrain_bench.reports.figures.style import MARKERS, add_legend, add_title, new_axes, ratio_places, tick_labels

if TYPE_CHECKING:
    import pandas as pd

BOX_FROM, VIOLIN_FROM = 5, 20
BOX_WIDTH, MOST_INTERVALS = 0.35, 20
"""Rows with more cells than this show no intervals, which would overlap."""


def draw_gains(effects: pd.DataFrame, title: str) -> Any:
    """Draw gains over scratch, one column per row: every cell a point with its interval and the marker of its label ratio,
    plus a box from 5 cells and a violin from 20."""
    import seaborn as sns

    known = effects[effects["gain"].notna()]
    order = rows_in_order(known)
    figure, axes = new_axes(max(3.4, 0.9 * len(order) + 1.6))
    sizes = known["row"].value_counts()
    boxed = known[known["row"].map(sizes) >= BOX_FROM]
    wide = known[known["row"].map(sizes) >= VIOLIN_FROM]
    common = {"x": "row", "y": "gain", "order": order, "ax": axes}
    if len(wide):
        sns.violinplot(wide, color="#dddddd", inner=None, cut=0, linewidth=0, **common)
    if len(boxed):
        sns.boxplot(boxed, width=BOX_WIDTH, showfliers=False, fill=False, color="#888888", linewidth=0.9, **common)
    ratios = ratio_places(known["label_ratio"])
    for place, row in enumerate(order):
        _draw_points(axes, place, known[known["row"] == row], ratios)
    axes.set_xticks(range(len(order)), tick_labels(order))
    axes.set_xlim(-0.5, len(order) - 0.5)
    finish_gain_axes(axes, "pre-training method", title)
    if len(ratios) > 1:
        add_legend(axes, ratios, fontsize=8)
    return figure


def _draw_points(axes: Any, place: int, mine: pd.DataFrame, ratios: dict[str, int]) -> None:
    """The cells of one row side by side, by label ratio."""
    cells = sorted(mine.to_dict("records"), key=lambda cell: ratios[str(cell["label_ratio"])])
    for x, cell in zip(place + spread(len(cells)), cells, strict=True):
        colour = colour_of(cell["method"])
        if len(cells) <= MOST_INTERVALS and np.isfinite(cell["gain_low"]):
            axes.plot([x, x], [cell["gain_low"], cell["gain_high"]], color=colour, lw=0.8, alpha=0.6)
        axes.plot(x, cell["gain"], MARKERS[ratios[str(cell["label_ratio"])] % len(MARKERS)], color=colour, ms=5)


def spread(count: int) -> Any:
    """Horizontal offsets of the cells of a row, at most the width of its box apart."""
    return (np.arange(count) - (count - 1) / 2) * min(0.12, 2 * BOX_WIDTH / max(1, count))


def rows_in_order(known: pd.DataFrame) -> list[str]:
    """The rows of these effects in the order of their methods, methods without a card last, each by name."""
    methods = dict(zip(known["row"], known["method"], strict=True))
    return sorted(methods, key=lambda row: (place_of(methods[row]), methods[row], row))


def finish_gain_axes(axes: Any, x_label: str, title: str) -> None:
    """Label axes of gains over scratch, and draw a line at zero."""
    axes.axhline(0, color="#555555", lw=0.8, ls="--", zorder=1)
    axes.set_xlabel(x_label)
    axes.set_ylabel("gain over scratch\n(points of the metric)")
    add_title(axes, title)
