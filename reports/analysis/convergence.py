"""Steps of fine-tuning until a method is about as good as scratch in the end (the paper's Figure 5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pretrain_bench.reports.analysis.columns import ROW, UNIT
from pretrain_bench.reports.analysis.curves import Curve, Curves
from pretrain_bench.reports.analysis.failed_pretraining import FailedPretraining
from pretrain_bench.reports.analysis.method_cards import BASELINE
from pretrain_bench.reports.analysis.rows import by_row

if TYPE_CHECKING:
    import pandas as pd

WITHIN_POINTS = 1.0


def baseline_row(curves: Curves) -> str | None:
    """The row of the baseline; None where there is no curve of it or there are two kinds."""
    rows = [name for name, runs in curves.items() if runs[0].method == BASELINE]
    return rows[0] if len(rows) == 1 else None


def steps_to_reach(curves: Curves, without_run: Mapping[str, int] = {}) -> dict[str, list[float]]:
    """Row name to one number for each pre-training: the first validated step at which its runs are within 1 point of scratch's
    final mean (median over its runs), infinite for those that never are.

    `curves` are those of the successful runs; `without_run` counts the pre-trainings of a row that have none, which never reach
    it. Empty without scratch, with two kinds of it, and where scratch scores no more than a point, which any run reaches at once.
    """
    base = baseline_row(curves)
    if base is None:
        return {}
    goal = float(np.mean(_by_pretraining(curves[base], lambda c: c.scores[-1], np.mean))) - WITHIN_POINTS / 100
    if goal <= 0:
        return {}
    steps = {name: _by_pretraining(runs, partial(_first_step, goal=goal), np.median) for name, runs in curves.items()}
    for name, number in without_run.items():
        steps[name] = [*steps.get(name, ()), *[np.inf] * number]
    return {name: reached for name, reached in steps.items() if reached}


def pretrainings_without_run(group: pd.DataFrame, failed: Mapping[str, Sequence[FailedPretraining]]) -> dict[str, int]:
    """How many pre-trainings of each row have no successful fine-tuning. `failed`: those of the group that failed, by row."""
    counts = {}
    for name, mine in by_row(group[["row", *ROW, UNIT, "outcome"]]).items():
        counts[name] = len(set(mine[UNIT]) - set(mine.loc[mine["outcome"] == "ok", UNIT]))
    for name, pretrainings in failed.items():
        counts[name] = counts.get(name, 0) + len(pretrainings)
    return counts


def _first_step(curve: Curve, goal: float) -> float:
    return next((float(s) for s, v in zip(curve.steps, curve.scores, strict=True) if v >= goal), np.inf)


def _by_pretraining(
    runs: Sequence[Curve], value: Callable[[Curve], float], over: Callable[[list[float]], Any]
) -> list[float]:
    """One value for each pre-training, aggregated over its runs."""
    seeds: dict[int, list[float]] = {}
    for curve in runs:
        seeds.setdefault(curve.pretrain_seed, []).append(value(curve))
    return [float(over(values)) for values in seeds.values()]
