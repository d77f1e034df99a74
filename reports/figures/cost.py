"""Hours of pre-training against the gain over scratch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pretrain_bench.reports.analysis.method_cards import colour_of
from pretrain_bench.reports.figures.gains import finish_gain_axes
from pretrain_bench.reports.figures.style import MARKERS, add_legend, new_axes, places_among_rows

if TYPE_CHECKING:
    import pandas as pd


def draw_cost_against_gain(effects: pd.DataFrame, title: str) -> Any:
    """Gain over scratch over the hours of one pre-training, with its interval where n allows. `effects`: as from `with_hours`."""
    known = effects[effects["gain"].notna()]
    places = places_among_rows(known)
    figure, axes = new_axes()
    for row in known.to_dict("records"):
        colour, marker = colour_of(row["method"]), MARKERS[places[row["row"]] % len(MARKERS)]
        if np.isfinite(row["gain_low"]):
            axes.plot([row["hours"]] * 2, [row["gain_low"], row["gain_high"]], color=colour, lw=1, alpha=0.6)
        axes.scatter(row["hours"], row["gain"], color=colour, marker=marker, s=26, zorder=3)
    for name, method in dict(zip(known["row"], known["method"], strict=True)).items():
        axes.scatter([], [], color=colour_of(method), marker=MARKERS[places[name] % len(MARKERS)], label=name)
    if len(known):
        axes.set_xlim(0, 1.08 * known["hours"].max() or 1)
        axes.locator_params(axis="x", nbins=5)  # cheap ones need many digits
    finish_gain_axes(axes, f"{effects['hours_of'].iloc[0]} of one pre-training", title)
    add_legend(axes, fontsize=8)
    return figure
