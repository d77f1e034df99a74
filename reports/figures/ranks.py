"""Critical-difference diagram of mean ranks."""

from __future__ import annotations

from typing import Any

import numpy as np

from pretrain_bench.reports.analysis.method_cards import colour_of
from pretrain_bench.reports.analysis.statistics import Ranking
from pretrain_bench.reports.figures.style import add_title, new_axes


def draw_ranks(methods: list[str], ranks: Ranking, title: str) -> Any:
    """Draw mean ranks on a line, best on the left; bars join methods closer than the critical difference (Nemenyi).

    Raises ValueError without a critical difference, which means that no ranking is supported.
    """
    if ranks.critical_difference is None:
        raise ValueError("Friedman's test supports no ranking")
    order = np.argsort(ranks.mean_ranks, kind="stable")
    places = ranks.mean_ranks[order]
    figure, axes = new_axes(5.2, 0.18 * len(methods) + 1.4)
    axes.axis("off")
    count = len(methods)
    half = (count + 1) // 2
    axes.set_xlim(-0.35 * count, 1.35 * count + 1)
    axes.set_ylim(-half - 0.6, 1.6)
    axes.plot([1, count], [0, 0], color="#333333", lw=1)
    for rank in range(1, count + 1):
        axes.plot([rank, rank], [0, 0.25], color="#333333", lw=1)
        axes.text(rank, 0.35, str(rank), ha="center", fontsize=7)
    for number, (index, place) in enumerate(zip(order, places, strict=True)):
        # The better half is labelled on the left and the rest on the right, so that no line crosses a name.
        left = number < half
        name, line = methods[index], number + 1 if left else count - number
        colour = colour_of(name.split(" ")[0])
        depth, end = -0.5 - 0.75 * line, 0.8 if left else count + 0.2
        axes.plot([place, place, end], [0, depth, depth], color=colour, lw=1.2)
        where = {"ha": "right", "x": end - 0.08} if left else {"ha": "left", "x": end + 0.08}
        axes.text(y=depth, s=f"{name} ({place:.1f})", va="center", fontsize=7, **where)
    level, reached = -0.22, -np.inf
    for first in range(count):
        last = int(np.flatnonzero(places - places[first] < ranks.critical_difference).max())
        if last > first and places[last] > reached:
            axes.plot(
                [places[first] - 0.04, places[last] + 0.04],
                [level, level],
                color="#333333",
                lw=3,
                solid_capstyle="butt",
            )
            level, reached = level - 0.22, places[last]
    axes.plot([1, 1 + ranks.critical_difference], [1.15, 1.15], color="#333333", lw=1)
    axes.text(1, 1.25, f"critical difference {ranks.critical_difference:.2f}", fontsize=7)
    add_title(axes, title)
    return figure
