"""Effects of pre-training: the difference from scratch of every method, in every group of runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pretrain_bench.reports.analysis.columns import ACROSS_RATIOS, CONDITIONS, CONTAMINATION, GROUP, OF_ROW, ROW, STEPS
from pretrain_bench.reports.analysis.failed_pretraining import FailedPretraining, failed_by_row
from pretrain_bench.reports.analysis.method_cards import BASELINE
from pretrain_bench.reports.analysis.power import detectable_difference, pooled_deviation, seeds_to_see_a_point
from pretrain_bench.reports.analysis.rows import baseline_rows, by_row, row_names
from pretrain_bench.reports.analysis.scores import headline_checkpoint, per_unit
from pretrain_bench.reports.analysis.statistics import (
    Estimate,
    estimate,
    holm,
    interquartile_mean,
    judge,
    probability_of_improvement,
    welch_p,
)

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]


def effects(
    runs: pd.DataFrame, failed_pretrainings: Iterable[FailedPretraining] = (), checkpoint: str | None = None
) -> pd.DataFrame:
    """One row per method in each group: mean and interval, difference from scratch with interval, verdict; all in per cent.

    `checkpoint`: the one to report everywhere, such as `best`; None for the headline checkpoint of each group.
    `failed` counts the runs of a row that failed or have no score, `lost_pretrainings` its failed pre-trainings, whose
    fine-tunings never ran. `could_show` is the smallest difference detectable with this number of seeds at 80 % power,
    `seeds_for_1` the number of seeds that would detect 1 point. `p` is Welch's; `p_holm` is p with Holm's correction for all
    comparisons of the task (methods by label ratios).
    """
    import pandas as pd

    rows: list[Row] = []
    for names, group in runs.groupby(GROUP, sort=True, dropna=False) if len(runs) else []:
        named = dict(zip(GROUP, names, strict=True))
        failed = failed_by_row(group, failed_pretrainings)
        rows += _group_effects(named, group, failed, checkpoint or headline_checkpoint(group))
    frame = pd.DataFrame(rows)
    if len(frame):
        adjusted = frame.groupby(ACROSS_RATIOS, dropna=False)["p"].transform(lambda p: holm(p.to_numpy()))
        frame = frame.assign(p_holm=adjusted)
    return frame


def _group_effects(
    group: Mapping[str, Any], runs: pd.DataFrame, failed: dict[str, list[FailedPretraining]], checkpoint: str
) -> list[Row]:
    """The rows of one group: those with runs in table order, then those with only failed pre-trainings."""
    group = {**group, **{name: runs[name].iloc[0] for name in CONDITIONS}, "checkpoint": checkpoint}
    column = f"score_{checkpoint}"
    parts = by_row(runs[["row", *ROW, "outcome", *OF_ROW, *STEPS, *CONTAMINATION, column]])
    values = {name: 100 * means for name, means in per_unit(runs, column).items()}
    base = baseline_rows(runs)
    scratch = values[base[0]] if len(base) == 1 else np.array([])
    rows: list[Row] = []
    for name, (method, pretrain_dataset, _) in row_names(runs).items():
        mine = parts[name]
        scored = mine[(mine["outcome"] == "ok") & mine[column].notna()]
        rows.append(
            {
                **group,
                "row": name,
                "method": method,
                "pretrain_dataset": pretrain_dataset,
                **{c: mine[c].iloc[0] for c in OF_ROW},
                **{c: scored[c].min() for c in STEPS},
                **{c: " / ".join(dict.fromkeys(filter(None, mine[c]))) for c in CONTAMINATION},
                "n": len(values[name]),
                "runs": len(mine),
                "failed": len(mine) - len(scored),
                "lost_pretrainings": len(failed.get(name, [])),
                **_statistics(values[name], scratch, method == BASELINE),
            }
        )
    for name, pretrainings in failed.items():
        if name not in parts:
            rows.append(_row_without_runs(name, pretrainings, group))
    return rows


def _statistics(units: np.ndarray, scratch: np.ndarray, is_baseline: bool) -> Row:
    """Estimates of one row from the values of its and scratch's pre-training seeds, in per cent; NaN if unknown."""
    value, gap, words = estimate(units), Estimate(np.nan, np.nan, np.nan, 0), "-"
    improvement = could_show = seeds = p = np.nan
    fewest = min(len(units), len(scratch))
    if not is_baseline:
        if fewest:
            gap, words = judge(units, scratch)
            p = welch_p(units, scratch)
        if fewest > 1:  # with one run each it would be 0 or 1, without meaning
            improvement = probability_of_improvement(units, scratch)
        deviation = pooled_deviation(units, scratch)
        if np.isfinite(deviation):
            could_show = detectable_difference(deviation, fewest)
        seeds = seeds_to_see_a_point(units, scratch)
    return {
        "mean": value.mean,
        "iqm": interquartile_mean(units),
        "low": value.low,
        "high": value.high,
        "gain": gap.mean,
        "gain_low": gap.low,
        "gain_high": gap.high,
        "verdict": words,
        "p": p,
        "probability_of_improvement": improvement,
        "could_show": could_show,
        "seeds_for_1": seeds,
    }


def _row_without_runs(name: str, pretrainings: Sequence[FailedPretraining], group: Mapping[str, Any]) -> Row:
    """A row of which every pre-training failed; its estimates are NaN."""
    return {
        **group,
        "row": name,
        "method": pretrainings[0].method,
        "pretrain_dataset": pretrainings[0].pretrain_dataset,
        "pretrain_synthetic": bool(pretrainings[0].pretrain_synthetic),
        "published_as": pretrainings[0].method,
        **dict.fromkeys(STEPS, np.nan),
        **dict.fromkeys(CONTAMINATION, ""),
        "n": 0,
        "runs": 0,
        "failed": 0,
        "lost_pretrainings": len(pretrainings),
        "verdict": "-",
    }
