"""Do probes predict fine-tuned gains? Rank correlation of probe scores with fine-tuned gains.

A panel is one task and label ratio under one budget. Scores of different panels are not comparable, so ranks are taken within
each. The statistic is Spearman's correlation, over methods, of mean probe score with mean fine-tuned score, averaged over
panels; gains over scratch have the same ranks. The interval is a two-level percentile bootstrap: methods are drawn with
replacement, and for each method its pre-training seeds, the same ones in every panel, since all scores of a seed come from one
pre-training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.specs.probes import FINETUNE
from pretrain_bench.reports.analysis.columns import ROW
from pretrain_bench.reports.analysis.method_cards import BASELINE
from pretrain_bench.reports.analysis.scores import by_seed
from pretrain_bench.reports.analysis.statistics import BOOTSTRAP_SEED, CONFIDENCE

if TYPE_CHECKING:
    import pandas as pd

PANEL = ["task", "dataset", "label_ratio"]
LIMITS = ["budget", "profile"]
LEAST_METHODS, LEAST_SEEDS = 5, 2
DRAWS = 2000
CANNOT_TELL = "cannot tell"

Scores = Mapping[tuple[str, ...], Mapping[int, float]]
"""Method (ROW) to scores in per cent by pre-training seed."""


class Panel(NamedTuple):
    """Probe and fine-tuned scores of the methods that have both, on one task and label ratio."""

    name: tuple[str, ...]
    probe: Scores
    finetuned: Scores


class Prediction(NamedTuple):
    """Agreement of one probing protocol with fine-tuning on the order of methods. `correlation`, `low` and `high` are
    NaN where unknown. `points` has a row for each panel and method: `probe` (per cent) and `gain` (points over
    scratch)."""

    protocol: str
    budget: str
    profile: str
    methods: int
    panels: int
    seeds: int
    correlation: float
    low: float
    high: float
    points: pd.DataFrame

    @property
    def verdict(self) -> str:
        """The conclusion as text; `cannot tell` if methods or seeds are too few or the interval includes zero."""
        if not np.isfinite([self.low, self.high]).all():
            return f"{CANNOT_TELL}: needs {LEAST_METHODS} methods and {LEAST_SEEDS} seeds of each"
        if self.low > 0:
            return "probes order these methods as fine-tuning does, more than by chance"
        if self.high < 0:
            return "probes order these methods in the opposite way"
        return f"{CANNOT_TELL}: the interval includes zero"


def predictions(runs: pd.DataFrame) -> list[Prediction]:
    """One result for each probing protocol, budget and profile with fine-tunings of the same pre-trainings."""
    found = []
    probes = runs[runs["protocol"] != FINETUNE] if len(runs) else runs
    for (protocol, budget, profile), mine in probes.groupby(["protocol", *LIMITS]) if len(probes) else []:
        tuned = runs[(runs["protocol"] == FINETUNE) & (runs[LIMITS] == [budget, profile]).all(axis=1)]
        panels = list(_panels(mine, tuned))
        if panels:
            found.append(_prediction(str(protocol), str(budget), str(profile), panels))
    return found


def _panels(probes: pd.DataFrame, tuned: pd.DataFrame) -> Iterator[Panel]:
    """Panels with runs under two conditions (recipe, data or code) are excluded, since neither condition takes precedence."""
    for name, mine in probes.groupby(PANEL):
        same = tuned[(tuned[PANEL] == list(name)).all(axis=1)]
        if mine["conditions"].nunique() != 1 or same["conditions"].nunique() != 1:
            continue
        probe, finetuned = by_seed(mine), by_seed(same)
        both = [m for m in probe if m in finetuned and set(probe[m]) & set(finetuned[m])]
        if len(both) > 1:
            shared = {m: sorted(set(probe[m]) & set(finetuned[m])) for m in both}
            sides = ({m: {s: side[m][s] for s in shared[m]} for m in both} for side in (probe, finetuned))
            yield Panel(tuple(map(str, name)), *sides)


def _prediction(protocol: str, budget: str, profile: str, panels: Sequence[Panel]) -> Prediction:
    methods = sorted({m for panel in panels for m in panel.probe})
    seeds = {m: sorted({s for p in panels for s in p.probe.get(m, ())}) for m in methods}
    fewest = min(len(own) for own in seeds.values())
    observed = _correlation(panels, [(m, seeds[m]) for m in methods])
    low = high = float("nan")
    if len(methods) >= LEAST_METHODS and fewest >= LEAST_SEEDS:
        rng = np.random.default_rng(BOOTSTRAP_SEED)
        drawn = np.array([_correlation(panels, _drawn(methods, seeds, rng)) for _ in range(DRAWS)])
        low, high = np.nanquantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Prediction(
        protocol, budget, profile, len(methods), len(panels), fewest, observed, float(low), float(high), _points(panels)
    )


def _drawn(
    methods: Sequence[tuple[str, ...]], seeds: Mapping[tuple[str, ...], Sequence[int]], rng: np.random.Generator
) -> list[tuple[tuple[str, ...], Sequence[int]]]:
    # A method drawn twice counts as a tie: two draws of its seeds would add the correlation of its noise.
    own = {m: [seeds[m][i] for i in rng.integers(len(seeds[m]), size=len(seeds[m]))] for m in methods}
    return [(methods[i], own[methods[i]]) for i in rng.integers(len(methods), size=len(methods))]


def _correlation(panels: Sequence[Panel], drawn: Sequence[tuple[tuple[str, ...], Sequence[int]]]) -> float:
    """Mean over panels of Spearman's correlation; NaN where no panel has two methods that differ."""
    known = [c for panel in panels if np.isfinite(c := _correlation_of_panel(panel, drawn))]
    return float(np.mean(known)) if known else float("nan")


def _correlation_of_panel(panel: Panel, drawn: Sequence[tuple[tuple[str, ...], Sequence[int]]]) -> float:
    from scipy.stats import rankdata

    pairs = []
    for method, seeds in drawn:
        own = [s for s in seeds if s in panel.probe.get(method, ())]
        if own:
            pairs.append([float(np.mean([side[method][s] for s in own])) for side in (panel.probe, panel.finetuned)])
    table: NDArray[np.float64] = np.array(pairs).reshape(-1, 2)
    if len(table) < 2 or (np.ptp(table, axis=0) == 0).any():
        return float("nan")
    ranks = rankdata(table, axis=0)
    return float(np.corrcoef(ranks, rowvar=False)[0, 1])


def _points(panels: Sequence[Panel]) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for panel in panels:
        base = [float(np.mean(list(v.values()))) for m, v in panel.finetuned.items() if m[0] == BASELINE]
        for method in panel.probe if len(base) == 1 else ():
            tuned = float(np.mean(list(panel.finetuned[method].values())))
            rows.append(
                {
                    **dict(zip(PANEL, panel.name, strict=True)),
                    **dict(zip(ROW, method, strict=True)),
                    "probe": float(np.mean(list(panel.probe[method].values()))),
                    "gain": tuned - base[0],
                    "n": len(panel.probe[method]),
                }
            )
    return pd.DataFrame(rows, columns=[*PANEL, *ROW, "probe", "gain", "n"])
