"""The headline score of a run, its axis label, and its mean over the unit of inference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pretrain_bench.benchmarks.metrics.names import TITLES
from pretrain_bench.reports.analysis.columns import ROW, UNIT
from pretrain_bench.reports.analysis.rows import row_names

if TYPE_CHECKING:
    import pandas as pd

METRIC_NAMES = {name: f"{title} (%)" for name, title in TITLES.items()}
"""The headline metric of a task (column `metric`) as axes name it; `score_final`, `score_selected` and `score_best` hold it."""


def class_metric(metric: str) -> str:
    """Axis label of per-class values, whose mean is the headline metric."""
    return METRIC_NAMES[metric].removeprefix("m")


def headline_checkpoint(runs: pd.DataFrame) -> str:
    """The checkpoint whose scores count, one kind per table. Failed runs have none."""
    checkpoints = set(runs.loc[runs["outcome"] == "ok", "checkpoint"]) if len(runs) else set()
    return "selected" if checkpoints == {"selected"} else "final"


def score_axis(runs: pd.DataFrame, checkpoint: str | None = None) -> str:
    """Axis label of scores: metric and checkpoint on separate lines; None means the headline checkpoint."""
    return f"{METRIC_NAMES[runs['metric'].iloc[0]]}\n{checkpoint or headline_checkpoint(runs)} checkpoint"


def per_unit(runs: pd.DataFrame, column: str) -> dict[str, np.ndarray]:
    """(n,) values of each row's successful runs, one for each pre-training seed, by the row's printed name."""
    good = runs.loc[runs["outcome"] == "ok", ["row", UNIT, column]]
    means = good.groupby(["row", UNIT])[column].mean().dropna()
    values: dict[Any, np.ndarray] = {name: v.to_numpy() for name, v in means.groupby(level="row", sort=False)}
    return {name: values.get(name, np.array([])) for name in row_names(runs)}


def by_seed(runs: pd.DataFrame) -> dict[tuple[str, ...], dict[int, float]]:
    """Rows (ROW) to pre-training seeds to the mean score of their successful runs, at the headline checkpoint and in per cent."""
    column = f"score_{headline_checkpoint(runs)}"
    good = runs[(runs["outcome"] == "ok") & runs[column].notna()]
    rows: dict[tuple[str, ...], dict[int, float]] = {}
    means = good.groupby([*ROW, UNIT], as_index=False)[column].mean()
    for *row, seed, value in means.itertuples(index=False, name=None):
        rows.setdefault(tuple(map(str, row)), {})[int(seed)] = 100 * float(value)
    return rows
