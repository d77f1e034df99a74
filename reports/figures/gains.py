"""Gains over scratch across tasks and label ratios (the paper's Figure 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pretrain_bench.reports.analysis.method_cards import colour_of, place_of
from pretrain_bench.reports.figures.style import new_axes, tick_labels, wrap_title

if TYPE_CHECKING:
    import pandas as pd

BOX_FROM, VIOLIN_FROM = 5, 20


def draw_gains(effects: pd.DataFrame, title: str) -> Any:
    """Gains over scratch, one column a row: every cell a point, with a box from 5 cells on and a violin from 20."""
    import seaborn as sns

    known = effects[effects["gain"].notna()]
    methods = dict(zip(known["row"], known["method"], strict=True))
    order = rows_in_order(known)
    figure, axes = new_axes(max(3.4, 0.9 * len(order) + 1.6))
    palette = {name: colour_of(m) for name, m in methods.items()}
    sizes = known["row"].value_counts()
    boxed = known[known["row"].map(sizes) >= BOX_FROM]
    wide = known[known["row"].map(sizes) >= VIOLIN_FROM]
    common = {"x": "row", "y": "gain", "order": order, "ax": axes}
    if len(wide):
        sns.violinplot(wide, color="#dddddd", inner=None, cut=0, linewidth=0, **common)
    if len(boxed):
        sns.boxplot(boxed, width=0.35, showfliers=False, fill=False, color="#888888", linewidth=0.9, **common)
    sns.stripplot(known, hue="row", palette=palette, legend=False, size=5, jitter=0.12, **common)
    axes.set_xticks(range(len(order)), tick_labels(order))
    finish_gain_axes(axes, "pre-training method", title)
    return figure


def rows_in_order(known: pd.DataFrame) -> list[str]:
    """The rows of these effects by the place of their method, methods without a card after them, each by name."""
    methods = dict(zip(known["row"], known["method"], strict=True))
    return sorted(methods, key=lambda row: (place_of(methods[row]), methods[row], row))


def finish_gain_axes(axes: Any, x_label: str, title: str) -> None:
    """Label axes of gains over scratch, and draw a line at zero."""
    axes.axhline(0, color="#555555", lw=0.8, ls="--", zorder=1)
    axes.set_xlabel(x_label)
    axes.set_ylabel("gain over scratch\n(points of the metric)")
    axes.set_title(wrap_title(title, axes), fontsize=9)
