"""Figures: every run is a point, and nothing is drawn that n does not allow."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reports.frame import ROW
from reports.statistics import estimate
from reports.tables import BASELINE, UNIT, headline, row_names

if TYPE_CHECKING:
    import pandas as pd

# The colour-blind-safe palette of Okabe and Ito, one colour a method everywhere.
COLOURS = {
    "scratch": "#777777",
    "supervised": "#000000",
    "pointcontrast": "#E69F00",
    "csc": "#56B4E9",
    "depthcontrast": "#009E73",
    "ours": "#D55E00",
}
OTHER_COLOUR = "#CC79A7"
SYNTHETIC_MARK = "SYNTHETIC DATA"


def by_method(runs: pd.DataFrame, title: str) -> Any:
    """mIoU by method, one point a run, with mean and 95 % interval where there are two pre-training seeds or more."""
    import matplotlib

    matplotlib.use("Agg")
    import seaborn as sns
    from matplotlib import pyplot as plt

    sns.set_theme(style="whitegrid", font_scale=0.85)
    column = f"miou_voxel_{headline(runs)}"
    names = row_names(runs)
    methods = list(names)
    label = {which: name for name, which in names.items()}
    runs = runs.assign(method=[label[tuple(row)] for row in runs[ROW].itertuples(index=False)])
    good = runs[runs["outcome"] == "ok"].assign(score=lambda frame: 100 * frame[column])
    figure, axes = plt.subplots(figsize=(max(3.5, 1.1 * len(methods) + 1.5), 3.4), layout="constrained")
    palette = {name: COLOURS.get(which[0], OTHER_COLOUR) for name, which in names.items()}
    sns.stripplot(
        good,
        x="method",
        y="score",
        hue="method",
        order=methods,
        palette=palette,
        size=7,
        jitter=0.08,
        ax=axes,
        legend=False,
    )
    for place, method in enumerate(methods):
        units = good[good["method"] == method].groupby(UNIT)["score"].mean().to_numpy()
        found = estimate(units)
        if np.isfinite(found.low):
            error = [[found.mean - found.low], [found.high - found.mean]]
            axes.errorbar(place + 0.25, found.mean, yerr=error, fmt="_", color=palette[method], capsize=3)
        failed = int((runs[runs["method"] == method]["outcome"] != "ok").sum())
        if failed:
            axes.annotate(
                f"{failed} failed", (place, 0.02), xycoords=("data", "axes fraction"), ha="center", color="#B00020"
            )
    axes.set_xlabel("pre-training method")
    axes.set_ylabel(f"mIoU on voxels, {headline(runs)} checkpoint (%)")
    axes.set_title(title, fontsize=9)
    axes.margins(y=0.2)
    if BASELINE in methods and len(good[good["method"] == BASELINE]):
        axes.axhline(
            good[good["method"] == BASELINE]["score"].mean(), color=COLOURS[BASELINE], lw=0.8, ls="--", zorder=0
        )
    return figure


def save(figure: Any, stem: Path) -> list[Path]:
    """Write PNG (200 dpi) and SVG beside each other, and close the figure. Equal input gives equal files."""
    from matplotlib import pyplot as plt

    paths = []
    with plt.rc_context({"svg.hashsalt": "bench"}):
        for suffix, options in ((".png", {"dpi": 200}), (".svg", {"metadata": {"Date": None}})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=suffix[1:], **options)
            paths.append(stem.with_suffix(suffix))
            paths[-1].write_bytes(buffer.getvalue())
    plt.close(figure)
    return paths
