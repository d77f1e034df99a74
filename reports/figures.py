"""Figures: every run is a point, and nothing is drawn that n does not allow."""

from __future__ import annotations

import io
import textwrap
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
MIN_SPAN = 10.0


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
    figure, axes = plt.subplots(figsize=(max(4.6, 1.1 * len(methods) + 2.2), 3.6), layout="constrained")
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
    axes.set_ylabel(f"mIoU on voxels (%)\n{headline(runs)} checkpoint")
    axes.set_title(_wrapped(title), fontsize=9)
    axes.margins(y=0.2)
    low, high = axes.get_ylim()
    # A difference of a point shall not fill the picture.
    widen = max(0.0, MIN_SPAN - (high - low)) / 2
    axes.set_ylim(max(0.0, low - widen), high + widen)
    if BASELINE in methods and len(good[good["method"] == BASELINE]):
        axes.axhline(
            good[good["method"] == BASELINE]["score"].mean(), color=COLOURS[BASELINE], lw=0.8, ls="--", zorder=0
        )
    return figure


def validation_curves(curves: dict[str, list[tuple[str, list[int], list[float]]]], title: str) -> Any:
    """mIoU on the test split during fine-tuning, one thin line a run. `curves`: row name to (method, steps, mIoU)."""
    import matplotlib

    matplotlib.use("Agg")
    import seaborn as sns
    from matplotlib import pyplot as plt
    from matplotlib.ticker import MaxNLocator

    sns.set_theme(style="whitegrid", font_scale=0.85)
    figure, axes = plt.subplots(figsize=(5.2, 3.4), layout="constrained")
    for name, runs in curves.items():
        for number, (method, steps, scores) in enumerate(runs):
            colour = COLOURS.get(method, OTHER_COLOUR)
            label = name if number == 0 else None
            axes.plot(steps, [100 * s for s in scores], color=colour, lw=1.2, marker="o", ms=3, alpha=0.8, label=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("fine-tuning steps")
    axes.set_ylabel("mIoU on voxels (%)\ntest split")
    axes.set_title(_wrapped(title), fontsize=9)
    axes.set_ylim(bottom=0)
    if curves:
        axes.legend(frameon=False)
    return figure


def _wrapped(title: str) -> str:
    return "\n".join(line for part in title.split("\n") for line in textwrap.wrap(part, 52))


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
