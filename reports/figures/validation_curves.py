"""Validation curves of fine-tuning: one thin line a run."""

from __future__ import annotations

from typing import Any

from pretrain_bench.reports.analysis.curves import Curves
from pretrain_bench.reports.analysis.method_cards import colour_of
from pretrain_bench.reports.analysis.scores import METRIC_NAMES
from pretrain_bench.reports.figures.style import (
    DASHES,
    Overlays,
    add_legend,
    draw_overlays,
    new_axes,
    places_within_method,
    wrap_title,
)


def draw_validation_curves(
    curves: Curves,
    metric: str,
    title: str,
    overlays: Overlays | None = None,
) -> Any:
    """Score on the test split over fine-tuning steps.

    `overlays`: method to published (step, per cent) pairs, drawn thin and grey over the range of our own runs.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_axes(5.2, 3.4)
    places = places_within_method({name: runs[0].method for name, runs in curves.items()})
    for name, runs in curves.items():
        for number, curve in enumerate(runs):
            label = name if number == 0 else None
            scores = [100 * s for s in curve.scores]
            look = {"color": colour_of(curve.method), "ls": DASHES[places[name] % len(DASHES)], "lw": 1.2, "alpha": 0.8}
            axes.plot(curve.steps, scores, marker="o", ms=3, label=label, **look)
    if curves:
        own = axes.get_xlim()
        draw_overlays(axes, overlays)
        axes.set_xlim(own)
    else:
        axes.text(0.5, 0.5, "not validated while it trained", transform=axes.transAxes, ha="center", color="#555555")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("fine-tuning steps")
    axes.set_ylabel(f"{METRIC_NAMES[metric]}\ntest split")
    axes.set_title(wrap_title(title, axes), fontsize=9)
    axes.set_ylim(bottom=0)
    if curves:
        add_legend(axes)
    return figure
