"""Validation curves of fine-tuning runs, from their events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.harness.contract.events import EVENTS_FILE, Eval, read_events
from pretrain_bench.harness.contract.stage import Kind
from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.analysis.columns import ROW, UNIT
from pretrain_bench.reports.analysis.rows import by_row
from pretrain_bench.reports.analysis.statistics import CONFIDENCE

if TYPE_CHECKING:
    import pandas as pd


class Curve(NamedTuple):
    """Scores of a run on the test split, from 0 to 1, at the steps where it was validated. `failed`: the run did not succeed, so
    means leave it out."""

    method: str
    key: str
    pretrain_seed: int
    steps: list[int]
    scores: list[float]
    failed: bool = False


Curves = Mapping[str, Sequence[Curve]]
"""Maps printed row names to the curves of their runs."""


def read_curves(store: Store, group: pd.DataFrame, metric: str) -> dict[str, list[Curve]]:
    """Map printed row names to the validation curves of their runs; runs without curves are omitted."""
    curves: dict[str, list[Curve]] = {}
    columns = ["method", "key", UNIT, "outcome"]
    for name, runs in by_row(group[["row", *ROW, UNIT, "key", "outcome"]]).items():
        for method, key, seed, outcome in runs[columns].itertuples(index=False, name=None):
            events = read_events(store.folder("finetune", key) / EVENTS_FILE)
            points = [(e.step, e.metrics.get(metric)) for e in events if isinstance(e, Eval) and e.split == "test"]
            known = [(step, score) for step, score in points if score is not None]
            if known:
                steps, scores = [step for step, _ in known], [score for _, score in known]
                curve = Curve(method, key, seed, steps, scores, failed=outcome != "ok")
                curves.setdefault(name, []).append(curve)
    return curves


class RunningStage(NamedTuple):
    """A stage that runs: its `title` with its seeds; `state`, `running` or `stalled`; the step that it has reached of `steps` (0:
    not known yet); the steps and values of its training loss; and its validation curve so far, of `metric`."""

    title: str
    method: str
    kind: Kind
    state: str
    step: int
    steps: int
    losses: tuple[list[int], list[float]]
    metric: str
    scores: Curve


class MeanCurve(NamedTuple):
    """Mean over pre-training seeds in per cent at each step, and its pointwise 95 % t interval, NaN with one seed."""

    steps: NDArray[np.int64]
    scores: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def mean_curve(curves: Sequence[Curve]) -> MeanCurve | None:
    """The mean of a row's successful runs over the steps at which all of them were validated; runs of a pre-training are averaged
    first. None without a successful run."""
    from scipy import stats

    runs = [curve for curve in curves if not curve.failed]
    if not runs:
        return None
    steps = np.array(sorted(set.intersection(*(set(curve.steps) for curve in runs))), dtype=np.int64)
    seeds: dict[int, list[list[float]]] = {}
    for curve in runs:
        at = dict(zip(curve.steps, curve.scores, strict=True))
        seeds.setdefault(curve.pretrain_seed, []).append([at[step] for step in steps])
    means = 100 * np.array([np.mean(several, axis=0) for several in seeds.values()])
    n, mean = len(means), means.mean(0)
    half = np.full(len(steps), np.nan)
    if n > 1:
        half = stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1) * means.std(0, ddof=1) / np.sqrt(n)
    return MeanCurve(steps, mean, mean - half, mean + half)


def curve_points(curves: Curves) -> pd.DataFrame:
    """One row per validation: `row`, `method`, `key`, `step` and `score` in per cent."""
    import pandas as pd

    rows = [
        (name, curve.method, curve.key, step, 100 * score)
        for name, runs in curves.items()
        for curve in runs
        for step, score in zip(curve.steps, curve.scores, strict=True)
    ]
    return pd.DataFrame(rows, columns=["row", "method", "key", "step", "score"])
