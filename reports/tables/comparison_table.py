"""The table that compares two stores or suites, and its summary over all cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pretrain_bench.reports.analysis.compare import PART, differences, overall_difference
from pretrain_bench.reports.analysis.statistics import TESTED, Estimate
from pretrain_bench.reports.analysis.titles import protocol_mark
from pretrain_bench.reports.tables.wording import format_estimate, format_p

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["task", "dataset", "synthetic", "protocol", "ratio", "method", "row", "pretrain_dataset", "A", "B", "B - A"]
COLUMNS += ["difference", "low", "high", "n", "equal", "without twin", "conditions", "verdict"]
SHOWN = ["task", "protocol", "ratio", "row", "A", "B", "B - A", "n", "equal", "without twin", "conditions", "verdict"]
"""Columns shown to people; exports contain all columns."""


def comparison_table(pairs: pd.DataFrame) -> pd.DataFrame:
    """One row for each method, task and ratio: mean scores of paired runs, their difference with its interval, and the
    verdict."""
    rows = differences(pairs)
    gaps = (Estimate(*gap) for gap in rows[["difference", "low", "high", "n"]].itertuples(index=False, name=None))
    rows = rows.assign(
        A=_means(rows, "a"),
        B=_means(rows, "b"),
        equal=[f"{equal} of {twins}" for equal, twins in zip(rows["equal"], rows["twins"], strict=True)],
        **{"B - A": [format_estimate(gap, signed=True) for gap in gaps]},
    )
    rows = rows.rename(columns={"label_ratio": "ratio", "without_twin": "without twin"})
    return rows[COLUMNS]


def overall_text(pairs: pd.DataFrame) -> str:
    """One line for each protocol: B minus A over all its cells."""
    return "\n".join(_overall_line(part, str(protocol)) for protocol, part in pairs.groupby("protocol"))


def _overall_line(pairs: pd.DataFrame, protocol: str) -> str:
    overall, cells = overall_difference(pairs), f"Over all cells{protocol_mark(protocol)}"
    if overall is None:
        return f"{cells}: no twins"
    p = f", permutation p {format_p(overall.test.p)}" if overall.verdict in TESTED else ""
    # No interval: Student's would stand beside the verdict of a permutation test.
    return f"{cells}: B - A {overall.mean:+.1f}, n={overall.test.n} pre-trainings{p}: {overall.verdict}"


def _means(rows: pd.DataFrame, side: str) -> list[str]:
    """The mean of a side, marked if it does not cover the whole test split."""
    cells = zip(rows[f"mean_{side}"], rows[f"{PART}_{side}"], strict=True)
    return [f"{v:.1f}{f' ({part})' if part else ''}" if np.isfinite(v) else "-" for v, part in cells]
