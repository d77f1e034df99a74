"""Gains of fine-tuning against probe scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pretrain_bench.reports.analysis.method_cards import colour_of, place_of
from pretrain_bench.reports.analysis.probe_prediction import PANEL, Prediction
from pretrain_bench.reports.analysis.sorting import ratio_key
from pretrain_bench.reports.figures.gains import finish_gain_axes
from pretrain_bench.reports.figures.style import add_legend, new_axes

if TYPE_CHECKING:
    import pandas as pd

PANEL_MARKERS = "os^DvP*X"


def prediction_words(prediction: Prediction) -> str:
    """The correlation with its interval, and its verdict."""
    if not np.isfinite(prediction.correlation):
        return prediction.verdict
    interval = f" [{prediction.low:.2f}, {prediction.high:.2f}]" if np.isfinite(prediction.low) else ""
    places = "one task and ratio" if prediction.panels == 1 else f"{prediction.panels} tasks and ratios"
    return (
        f"rank correlation {prediction.correlation:.2f}{interval} over {prediction.methods} methods, {places}, "
        f"at least {prediction.seeds} seed{'s' * (prediction.seeds > 1)} of each: {prediction.verdict}"
    )


def draw_prediction(prediction: Prediction, title: str) -> Any:
    """Plot gain over scratch of the fine-tuned backbone against its probe score: colours show methods, markers tasks and
    ratios."""
    points = prediction.points
    figure, axes = new_axes(5.2, 4.0)
    panels = sorted(set(points[PANEL].itertuples(index=False, name=None)), key=lambda p: (*p[:2], ratio_key(p[2])))
    for place, panel in enumerate(panels):
        marker = PANEL_MARKERS[place % len(PANEL_MARKERS)]
        mine: pd.DataFrame = points[(points[PANEL] == list(panel)).all(axis=1)]
        axes.scatter(
            mine["probe"], mine["gain"], c=[colour_of(m) for m in mine["method"]], marker=marker, s=26, zorder=3
        )
        axes.scatter([], [], color="#555555", marker=marker, label=f"{panel[0]}, {panel[2]}")
    for method in sorted(set(points["method"]), key=place_of):
        axes.scatter([], [], color=colour_of(method), marker="s", label=method)
    finish_gain_axes(axes, f"score of the {prediction.protocol} probe (%)", title)
    add_legend(axes, fontsize=7)
    return figure
