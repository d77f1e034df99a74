"""Scores by method, one point per run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pretrain_bench.reports.analysis.method_cards import BASELINE, colour_of
from pretrain_bench.reports.analysis.rows import row_names
from pretrain_bench.reports.analysis.scores import headline_checkpoint, per_unit, score_axis
from pretrain_bench.reports.analysis.statistics import estimate
from pretrain_bench.reports.figures.style import (
    FAILURE_COLOUR,
    MANY_POINTS,
    MIN_SPAN,
    add_title,
    new_axes,
    tick_labels,
)

if TYPE_CHECKING:
    import pandas as pd


def draw_scores(runs: pd.DataFrame, title: str, failed_pretrainings: Mapping[str, int] = {}) -> Any:
    """Draw scores by method, one point per run, with mean and 95 % interval from two pre-training seeds.

    `failed_pretrainings`: the number of failed pre-trainings by printed row name.
    """
    column = f"score_{headline_checkpoint(runs)}"
    names = row_names(runs)
    units = {name: 100 * values for name, values in per_unit(runs, column).items()}
    rows = [*names, *(row for row in failed_pretrainings if row not in names)]
    figure, axes = new_axes(max(4.6, 1.1 * len(rows) + 2.2), 3.6)
    palette = {row: colour_of(names[row][0] if row in names else row.split(" ")[0]) for row in rows}
    _draw_points(axes, runs, column, palette)
    for place, row in enumerate(rows):
        mean = estimate(units.get(row, np.array([])))  # the same arguments as in the tables, so that it is cached
        if np.isfinite(mean.low):
            error = [[mean.mean - mean.low], [mean.high - mean.mean]]
            axes.errorbar(place + 0.25, mean.mean, yerr=error, fmt="_", color=palette[row], capsize=3)
        mine = runs[runs["row"] == row]
        failed = int(((mine["outcome"] != "ok") | mine[column].isna()).sum())
        _note_failures(axes, place, failed, failed_pretrainings.get(row, 0))
    axes.set_xticks(range(len(rows)), tick_labels(rows))
    axes.set_xlim(-0.5, len(rows) - 0.5)  # even if the last row has no run
    axes.set_xlabel("pre-training method")
    axes.set_ylabel(score_axis(runs))
    add_title(axes, title)
    axes.margins(y=0.2)
    low, high = axes.get_ylim()
    widen = max(0.0, MIN_SPAN - (high - low)) / 2
    axes.set_ylim(max(0.0, low - widen), high + widen)
    if len(units.get(BASELINE, ())):  # the same mean as in the tables, over pre-training seeds
        axes.axhline(units[BASELINE].mean(), color=colour_of(BASELINE), lw=0.8, ls="--", zorder=1)
    return figure


def _draw_points(axes: Any, runs: pd.DataFrame, column: str, palette: Mapping[str, str]) -> None:
    import seaborn as sns

    good = runs[runs["outcome"] == "ok"].assign(method=lambda r: r["row"], score=lambda r: 100 * r[column])
    many = len(good) > MANY_POINTS
    sns.stripplot(
        good,
        x="method",
        y="score",
        hue="method",
        order=list(palette),
        palette=palette,
        size=3 if many else 7,
        jitter=0.16 if many else 0.08,
        ax=axes,
        legend=False,
        rasterized=many,
    )


def _note_failures(axes: Any, place: int, runs: int, pretrainings: int) -> None:
    words = [f"{runs} failed"] if runs else []
    if pretrainings:
        words.append(f"{pretrainings} pre-training{'s' * (pretrainings > 1)}\nfailed")
    if words:
        axes.annotate(
            "\n".join(words), (place, 0.02), xycoords=("data", "axes fraction"), ha="center", color=FAILURE_COLOUR
        )
