"""Validation curves of fine-tuning: means of rows with intervals as bands, and one thin line per run."""

from __future__ import annotations

from typing import Any

from pretrain_bench.reports.analysis.curves import Curves, mean_curve
from pretrain_bench.reports.analysis.method_cards import colour_of
from pretrain_bench.reports.analysis.scores import METRIC_NAMES
from pretrain_bench.reports.figures.style import (
    DASHES,
    Overlays,
    add_legend,
    add_title,
    draw_overlays,
    new_axes,
    places_within_method,
)


def draw_validation_curves(
    curves: Curves,
    metric: str,
    title: str,
    overlays: Overlays | None = None,
) -> Any:
    """Plot scores on the test split against fine-tuning steps: mean over pre-training seeds, with its pointwise 95 % interval
    as a band. Failed runs are thin lines only.

    `overlays`: method to published (step, per cent) pairs, drawn thin and grey over the range of our own runs.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_axes(5.2, 3.4)
    places = places_within_method({name: runs[0].method for name, runs in curves.items()})
    for name, runs in curves.items():
        colour, mean = colour_of(runs[0].method), mean_curve(runs)
        thin: dict[str, Any] = {"color": colour, "lw": 0.5, "alpha": 0.35, "zorder": 1.5}
        lines = [axes.plot(curve.steps, [100 * s for s in curve.scores], **thin)[0] for curve in runs]
        if mean is None:
            lines[0].set_label(name)
            continue
        axes.fill_between(mean.steps, mean.low, mean.high, color=colour, alpha=0.12, lw=0)
        axes.plot(mean.steps, mean.scores, color=colour, lw=1.6, ls=DASHES[places[name] % len(DASHES)], label=name)
    if curves:
        own = axes.get_xlim()
        draw_overlays(axes, overlays)
        axes.set_xlim(own)
    else:
        axes.text(0.5, 0.5, "no validation during training", transform=axes.transAxes, ha="center", color="#555555")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("fine-tuning steps")
    axes.set_ylabel(f"{METRIC_NAMES[metric]}\ntest split")
    add_title(axes, title)
    axes.set_ylim(bottom=0)
    if curves:
        add_legend(axes)
    return figure
