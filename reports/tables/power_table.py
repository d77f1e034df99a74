"""The number of seeds that a difference needs, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pretrain_bench.reports.analysis.seeds import SPLIT
from pretrain_bench.reports.tables.wording import format_budget

if TYPE_CHECKING:
    import pandas as pd


def power_table(seeds: pd.DataFrame) -> pd.DataFrame:
    """One row for each method of each group; `seeds` comes from `analysis.seeds.seeds_for`."""
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "task": row["task"],
                "ratio": row["label_ratio"],
                "protocol": row["protocol"],
                "budget": format_budget(row["budget"], row["profile"]),
                "method": row["method"],
                "n": row["n"],
                "shows": _number(row["could_show"], ".1f"),
                "sd": _number(row["deviation"], ".2f"),
                "parts": " ".join(_number(row[kind], ".2f") for kind in SPLIT) if np.isfinite(row[SPLIT[0]]) else "-",
                "seeds": _number(row["seeds"], ".0f"),
                "own": _number(row["seeds_own"], ".0f"),
                "hours": "-"
                if np.isnan(row["seeds"])
                else f"{row['hours']:,.1f} {row['hours_of'].removesuffix('-hours')}",
            }
            for row in seeds.to_dict("records")
        ]
    )


def _number(value: float, form: str) -> str:
    return format(value, form) if np.isfinite(value) else "-"
