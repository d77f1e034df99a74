"""Paired runs of a comparison, one point per pair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pretrain_bench.reports.analysis.method_cards import colour_of
from pretrain_bench.reports.figures.style import MARKERS, MIN_SPAN, add_legend, add_title, new_axes, places_among_rows

if TYPE_CHECKING:
    import pandas as pd


def draw_paired_scores(pairs: pd.DataFrame, names: tuple[str, str], title: str) -> Any:
    """Plot score of B against score of A; points on the dashed line are unchanged. `pairs` comes from `compare.paired`."""
    known = pairs[pairs["score_a"].notna() & pairs["score_b"].notna()]
    figure, axes = new_axes(4.4, 3.9)
    places = places_among_rows(known)
    for row, mine in known.groupby("row", sort=False):
        colour, marker = colour_of(mine["method"].iloc[0]), MARKERS[places[str(row)] % len(MARKERS)]
        look = {"color": colour, "marker": marker, "s": 16, "alpha": 0.75, "lw": 0}
        axes.scatter(mine["score_a"], mine["score_b"], label=str(row), **look)
    scores = known[["score_a", "score_b"]].to_numpy()
    low, high = (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 100.0)
    margin = max(MIN_SPAN - (high - low), 0.1 * (high - low)) / 2
    limits = (low - margin, high + margin)
    axes.plot(limits, limits, color="#555555", lw=0.8, ls="--", zorder=0)
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    axes.set_xlabel(f"A: {names[0]}, score (%)")
    axes.set_ylabel(f"B: {names[1]}, score (%)")
    add_title(axes, title)
    if len(known):
        add_legend(axes, fontsize=7)
    return figure
