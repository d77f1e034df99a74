"""Mean gains after pre-training on the task's own dataset and on another one (the paper's section V-A)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pretrain_bench.reports.analysis.sorting import method_places
from pretrain_bench.reports.analysis.sources import SOURCE, with_source

if TYPE_CHECKING:
    import pandas as pd


def source_table(effects: pd.DataFrame) -> pd.DataFrame:
    """One row for each method, source of its data, protocol, budget and profile: mean gain over its cells. Empty if no gain is
    known.

    A cell that was run under two conditions (recipe, data or code) counts once and without a gain, since neither condition takes
    precedence.
    """
    import pandas as pd

    cell = ["row", "protocol", "budget", "profile", "task", "dataset", "label_ratio"]
    known = with_source(effects.assign(twice=effects.duplicated(cell, keep=False)))
    cells = known.assign(gain=known["gain"].mask(known["twice"])).drop_duplicates(cell)
    if not known["gain"].notna().any():
        cells = cells[:0]
    cells = cells.sort_values(["row", SOURCE, "protocol", "budget", "profile"])
    cells = cells.sort_values("method", key=method_places, kind="stable")
    columns = ["method", SOURCE, "protocol", "budget", "profile", "gain", "cells"]
    rows = [
        {
            **dict(zip(columns, names, strict=False)),
            "gain": f"{group['gain'].mean():+.1f}" if group["gain"].notna().any() else "-",
            "cells": f"{group['gain'].notna().sum()} of {len(group)}"
            + f", {group['twice'].sum()} under two conditions" * bool(group["twice"].any()),
        }
        for names, group in cells.groupby(["row", *columns[1:5]], sort=False)
    ]
    return pd.DataFrame(rows, columns=columns)
