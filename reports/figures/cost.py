"""Gain over scratch against hours of pre-training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pretrain_bench.reports.analysis.method_cards import colour_of
from pretrain_bench.reports.figures.gains import finish_gain_axes
from pretrain_bench.reports.figures.style import (
    FILLS,
    MARKERS,
    add_legend,
    new_axes,
    places_among_rows,
    ratio_places,
)

if TYPE_CHECKING:
    import pandas as pd


def draw_cost_against_gain(effects: pd.DataFrame, title: str) -> Any:
    """Plot gain over scratch against the hours of one pre-training, with intervals if n allows; the marker shows the label ratio.
    `effects` comes from `with_hours`."""
    known = effects[effects["gain"].notna()]
    places, ratios = places_among_rows(known), ratio_places(known["label_ratio"])
    figure, axes = new_axes()
    for row in known.to_dict("records"):
        colour, marker = colour_of(row["method"]), MARKERS[ratios[str(row["label_ratio"])] % len(MARKERS)]
        fill = FILLS[places[row["row"]] % len(FILLS)]
        if np.isfinite(row["gain_low"]):
            axes.plot([row["hours"]] * 2, [row["gain_low"], row["gain_high"]], color=colour, lw=1, alpha=0.6)
        axes.plot(row["hours"], row["gain"], marker, color=colour, fillstyle=fill, ms=5, zorder=3)
    for name, method in dict(zip(known["row"], known["method"], strict=True)).items():
        axes.plot([], [], "o", color=colour_of(method), fillstyle=FILLS[places[name] % len(FILLS)], ms=5, label=name)
    if len(known):
        axes.set_xlim(0, 1.08 * known["hours"].max() or 1)
        axes.locator_params(axis="x", nbins=5)  # small values need many digits
    finish_gain_axes(axes, f"{effects['hours_of'].iloc[0]} of one pre-training", title)
    add_legend(axes, ratios, fontsize=8)
    return figure
