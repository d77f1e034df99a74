"""Scores over label ratios (the paper's Figure 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pretrain_bench.reports.analysis.method_cards import colour_of
from pretrain_bench.reports.analysis.scores import score_axis
from pretrain_bench.reports.figures.style import (
    DASHES,
    MANY_POINTS,
    Overlays,
    add_legend,
    add_title,
    draw_overlays,
    new_axes,
    places_among_rows,
)

if TYPE_CHECKING:
    import pandas as pd

DODGE = 0.035
"""Offset between the points of neighbouring methods, as a share of their label ratio, so that they do not hide each other."""


def draw_ratio_curves(runs: pd.DataFrame, effects: pd.DataFrame, title: str, overlays: Overlays) -> Any:
    """Plot score against label ratio: runs as points, means as a line, the 95 % interval as a band if n allows.

    `effects` are those of one family; each method's points are shifted slightly from their ratio. `overlays` maps methods to
    published (ratio, per cent) pairs, drawn thin and grey.
    """
    figure, axes = new_axes()
    middle = (effects["row"].nunique() - 1) / 2
    within = places_among_rows(effects)
    for place, (name, mine) in enumerate(effects.groupby("row", sort=False)):
        colour = colour_of(mine["method"].iloc[0])
        mine = mine.sort_values("label_percent")
        x = mine["label_percent"].to_numpy()
        dash = DASHES[within[str(name)] % len(DASHES)]
        axes.plot(x, mine["mean"], color=colour, lw=1.4, ls=dash, label=str(name))
        if np.isfinite(mine["low"]).any():
            axes.fill_between(x, mine["low"], mine["high"], color=colour, alpha=0.1, lw=0)
        column = f"score_{mine['checkpoint'].iloc[0]}"
        points = runs[(runs["row"] == name) & (runs["outcome"] == "ok")]
        axes.scatter(
            points["label_percent"] * (1 + DODGE) ** (place - middle), 100 * points[column], color=colour,
            s=5 if len(points) > MANY_POINTS else 12, alpha=0.7, lw=0, zorder=1.5, rasterized=len(points) > MANY_POINTS,
        )  # fmt: skip
    draw_overlays(axes, overlays)
    axes.set_xscale("log")
    ticks = sorted(effects["label_percent"].dropna().unique())
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.set_xlabel("labelled training scenes (%)")
    axes.set_ylabel(score_axis(runs, effects["checkpoint"].iloc[0]))
    add_title(axes, title)
    add_legend(axes, fontsize=8)
    return figure
