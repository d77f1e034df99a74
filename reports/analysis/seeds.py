"""The number of seeds that a difference needs, from the spread of existing runs, and their cost.

A unit is one pre-training with its F fine-tunings. From the variance split (`analysis.variance`) its standard deviation is
sqrt(p^2 + r^2 / F) if all units share their fine-tuning seeds: the effect of a seed (same batches, same head) is then in both
means and cancels in their difference. If each pre-training has seeds of its own, it is sqrt(p^2 + (f^2 + r^2) / F). Here p, f and
r are the standard deviations over pre-training seeds, over fine-tuning seeds, and of the residual. With one fine-tuning seed
there is no split, and the deviation is that of the units themselves, conditional on that seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pretrain_bench.reports.analysis.columns import GROUP, UNIT
from pretrain_bench.reports.analysis.power import detectable_difference, pooled_deviation, seeds_needed
from pretrain_bench.reports.analysis.rows import baseline_rows, by_row
from pretrain_bench.reports.analysis.scores import headline_checkpoint, per_unit
from pretrain_bench.reports.analysis.sorting import group_key
from pretrain_bench.reports.analysis.variance import have_own_seeds, seeds_of, variances

if TYPE_CHECKING:
    import pandas as pd

SPLIT = ("pre-training seed", "fine-tuning seed", "residual")
COLUMNS = (
    *GROUP, "method", "n", "finetune_seeds", "deviation", *SPLIT, "seeds", "deviation_own", "seeds_own", "could_show", "hours",
    "hours_of",
)  # fmt: skip
"""Columns of `seeds_for`."""


def seeds_for(runs: pd.DataFrame, effect: float, tasks: Iterable[str] = ()) -> pd.DataFrame:
    """One row per method of each group with a successful run of scratch: the seeds that each of the two needs to detect a true
    difference of `effect` points at 80 % power, and the hours for that number of both.

    Columns: GROUP, `method`, `n` (the smaller number of pre-training seeds of the two), `finetune_seeds`, `deviation` (points, of
    the units as they ran), the three of SPLIT (NaN without two seeds of both kinds), `seeds`, `deviation_own` and `seeds_own`
    (if each pre-training had fine-tuning seeds of its own; NaN if that cannot be told), `could_show` (the difference
    detectable with n), `hours` and `hours_of`. `seeds` is NaN if the spread is unknown or 1,000 are not enough. `tasks`: names
    to keep, empty for all.
    """
    import pandas as pd

    wanted = set(tasks)
    kept = runs[runs["task"].isin(wanted)] if wanted else runs
    split = variances(kept)
    rows: list[dict[str, Any]] = []
    for names, group in sorted(kept.groupby(GROUP), key=lambda part: group_key(part[0])) if len(kept) else []:
        own = split[(split[GROUP] == list(names)).all(axis=1)].set_index("method") if len(split) else split
        rows += _rows_of_group(dict(zip(GROUP, names, strict=True)), group, own, effect)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _rows_of_group(
    named: dict[str, Any], group: pd.DataFrame, split: pd.DataFrame, effect: float
) -> Iterable[dict[str, Any]]:
    base = baseline_rows(group)
    if len(base) != 1:
        return
    values = {name: 100 * v for name, v in per_unit(group, f"score_{headline_checkpoint(group)}").items()}
    parts = by_row(group[group["outcome"] == "ok"])
    if base[0] not in parts:  # every run of scratch failed
        return
    for name, units in values.items():
        if name == base[0] or not len(units) or name not in parts:
            continue
        both = (parts[name], parts[base[0]])
        shares = [_shares(split, one) for one in (name, base[0])]
        pooled = np.sqrt(np.mean(np.square(shares), axis=0))  # of method and scratch; NaN if one has no split
        finetunings = float(min(mine.groupby(UNIT)["finetune_seed"].nunique().min() for mine in both))
        deviation = pooled_deviation(units, values[base[0]])
        own = all(have_own_seeds(seeds_of(mine)) for mine in both)
        apart = deviation if own else float(np.sqrt(deviation**2 + pooled[1] ** 2 / finetunings))
        n = min(len(units), len(values[base[0]]))
        seeds = _seeds(deviation, effect)
        hours, hours_of = _hours_of_a_seed(both)
        yield {
            **named,
            "method": name,
            "n": n,
            "finetune_seeds": int(finetunings),
            "deviation": deviation,
            **dict(zip(SPLIT, map(float, pooled), strict=True)),
            "seeds": seeds,
            "deviation_own": apart,
            "seeds_own": _seeds(apart, effect),
            "could_show": detectable_difference(deviation, n) if np.isfinite(deviation) else np.nan,
            "hours": seeds * hours,
            "hours_of": hours_of,
        }


def _shares(split: pd.DataFrame, row: str) -> list[float]:
    if row not in split.index:
        return [np.nan] * len(SPLIT)
    return [float(value) for value in split.loc[row, list(SPLIT)].to_numpy()]


def _seeds(deviation: float, effect: float) -> float:
    return float(seeds_needed(deviation, effect) or np.nan) if np.isfinite(deviation) else np.nan


def _hours_of_a_seed(both: Sequence[pd.DataFrame]) -> tuple[float, str]:
    """Hours of one more pre-training seed of both methods in this group: pre-training, features and evaluations. GPU-hours if
    every evaluation used a GPU, else CPU-hours."""
    on_gpu = all((mine["finetune_gpu_seconds"] + mine["features_gpu_seconds"] > 0).all() for mine in both)
    kind = "gpu" if on_gpu else "cpu"
    seconds = 0.0
    for mine in both:
        units = mine.drop_duplicates("pretrain_keys")
        shared = (units[f"pretrain_{kind}_seconds"] + units[f"features_{kind}_seconds"]).mean()
        seconds += float(shared + mine.groupby(UNIT)[f"finetune_{kind}_seconds"].sum().mean())
    return seconds / 3600, f"{kind.upper()}-hours"
