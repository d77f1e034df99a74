"""A heat map of class scores by method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pretrain_bench.reports.analysis.scores import class_metric
from pretrain_bench.reports.figures.style import add_title, new_axes

if TYPE_CHECKING:
    import pandas as pd

HALF_LUMINANCE = 0.179
"""Luminance at which black and white letters have equal contrast (WCAG 2)."""


def draw_class_heat_map(table: pd.DataFrame, metric: str, title: str) -> Any:
    """Scores by method and class in per cent, means over pre-trainings; classes without labels are empty.

    `metric` is the headline metric of the task, the mean over these classes.
    """
    import seaborn as sns

    figure, axes = new_axes(0.42 * table.shape[1] + 2.4, 0.34 * len(table) + 1.9)
    sns.heatmap(
        table, annot=True, fmt=".0f", cmap="cividis", vmin=0, vmax=100, ax=axes, cbar_kws={"label": class_metric(metric)},
        annot_kws={"fontsize": 7},
    )  # fmt: skip
    known = np.isfinite(table.to_numpy()).ravel()
    for text, shade in zip(axes.texts, axes.collections[0].get_facecolors()[known], strict=True):
        text.set_color("#000000" if luminance(shade) > HALF_LUMINANCE else "#ffffff")
    axes.set_xlabel("class")
    axes.set_ylabel("")
    axes.tick_params(axis="x", rotation=60)
    add_title(axes, title)
    return figure


def luminance(colour: Any) -> float:
    """Relative luminance of an sRGB colour."""
    levels = np.asarray(colour[:3])
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))
