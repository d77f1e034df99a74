"""Split the spread into shares of pre-training seeds, fine-tuning seeds and the residual.

If each pre-training has fine-tuning seeds of its own, their share is part of the residual.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from pretrain_bench.reports.analysis.columns import GROUP, ROW
from pretrain_bench.reports.analysis.failed_pretraining import FailedPretraining, failed_by_row
from pretrain_bench.reports.analysis.method_cards import place_of
from pretrain_bench.reports.analysis.rows import by_row
from pretrain_bench.reports.analysis.scores import headline_checkpoint
from pretrain_bench.reports.analysis.sorting import ratio_key
from pretrain_bench.reports.analysis.statistics import nested_components, variance_components

if TYPE_CHECKING:
    import pandas as pd


def variances(runs: pd.DataFrame, failed_pretrainings: Iterable[FailedPretraining] = ()) -> pd.DataFrame:
    """Standard deviations in points of the metric, for each row (column `method`) of each group with at least two seeds of
    both kinds.

    `missing` counts the runs that the table of seeds lacks, including those of failed pre-trainings; if there are any, the
    standard deviations are NaN. If no two pre-trainings share a fine-tuning seed, the standard deviation over fine-tuning
    seeds is NaN.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    places: dict[str, int] = {}
    for names, group in runs.groupby(GROUP, sort=True, dropna=False) if len(runs) else []:
        column = f"score_{headline_checkpoint(group)}"
        failed = failed_by_row(group, failed_pretrainings)
        for name, mine in by_row(group[["row", *ROW, "outcome", "pretrain_seed", "finetune_seed", column]]).items():
            places[name] = place_of(str(mine["method"].iloc[0]))
            nested = have_own_seeds(seeds_of(mine))
            table = _seed_table(mine, column, nested)
            if min(table.shape) < 2:
                continue
            never_run = len(failed.get(name, ()))
            components = nested_components if nested else variance_components
            shares = components(table) if not never_run else None
            rows.append(
                {
                    **dict(zip(GROUP, names, strict=True)),
                    "method": name,
                    "seeds": f"{table.shape[0] + never_run} x {table.shape[1]}",
                    "pre-training seed": np.sqrt(shares.pretrain) if shares else np.nan,
                    "fine-tuning seed": np.sqrt(shares.finetune) if shares else np.nan,
                    "residual": np.sqrt(shares.residual) if shares else np.nan,
                    "missing": int(np.isnan(table).sum()) + never_run * table.shape[1],
                }
            )
    rows.sort(key=lambda r: (r["task"], places[r["method"]], r["method"], ratio_key(r["label_ratio"])))
    return pd.DataFrame(rows)


def have_own_seeds(pairs: Iterable[tuple[int, int]]) -> bool:
    """Whether no two pre-trainings share a fine-tuning seed, from the pre-training and the fine-tuning seed of each run."""
    distinct = set(pairs)
    return len({finetune_seed for _, finetune_seed in distinct}) == len(distinct)


def seeds_of(runs: pd.DataFrame) -> Iterator[tuple[int, int]]:
    """The pre-training and the fine-tuning seed of each run."""
    return zip(runs["pretrain_seed"], runs["finetune_seed"], strict=True)


def _seed_table(runs: pd.DataFrame, column: str, nested: bool) -> np.ndarray:
    """(pre-training seeds, fine-tuning seeds) scores in per cent. Failed runs keep their cell, as NaN. `nested`: fine-tunings are
    numbered within their pre-training."""
    if nested:
        runs = runs.assign(finetune_seed=runs.groupby("pretrain_seed")["finetune_seed"].rank("dense"))
    scored = runs.assign(score=(100 * runs[column]).where(runs["outcome"] == "ok"))
    table = scored.pivot_table(index="pretrain_seed", columns="finetune_seed", values="score", dropna=False)
    return table.to_numpy()
