"""Gains by the source of the pre-training data (the paper's section V-A)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pretrain_bench.reports.figures.gains import finish_gain_axes, rows_in_order
from pretrain_bench.reports.figures.style import add_legend, new_axes, tick_labels

if TYPE_CHECKING:
    import pandas as pd


def draw_source_gains(known: pd.DataFrame, title: str) -> Any:
    """Draw gains after pre-training on the task's own dataset beside those after pre-training on another. `known` comes from
    `with_source`."""
    import seaborn as sns

    order = rows_in_order(known)
    figure, axes = new_axes(max(3.8, 1.0 * len(order) + 1.6))
    kinds = sorted(set(known["pre-trained on"]), reverse=True)
    shades = dict(zip(kinds, ("#0072B2", "#E69F00"), strict=False))
    common = {
        "x": "row",
        "y": "gain",
        "hue": "pre-trained on",
        "order": order,
        "hue_order": kinds,
    }
    sns.stripplot(known, palette=shades, dodge=len(kinds) > 1, jitter=0.08, size=5, ax=axes, **common)
    axes.set_xticks(range(len(order)), tick_labels(order))
    finish_gain_axes(axes, "pre-training method", title)
    add_legend(axes, fontsize=7, title="pre-trained on", title_fontsize=7)
    return figure
