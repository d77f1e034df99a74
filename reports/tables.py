"""The comparison table of one group of runs, and its Markdown and text forms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from reports.statistics import Estimate, difference, estimate, verdict

if TYPE_CHECKING:
    import pandas as pd

BASELINE = "scratch"
METHOD_ORDER = ("scratch", "supervised", "pointcontrast", "csc", "depthcontrast", "ours")
UNIT = "pretrain_seed"
"""The unit of inference of a pre-training effect; fine-tuning seeds of one pre-training are averaged first."""


def ordered(methods: list[str]) -> list[str]:
    """Methods in the order of the paper's table, then the user's own by name."""
    return sorted(methods, key=lambda m: (METHOD_ORDER.index(m) if m in METHOD_ORDER else len(METHOD_ORDER), m))


def headline(runs: pd.DataFrame) -> str:
    """`selected` where every good run has it, else `final`: one kind of number in one table."""
    good = runs[runs["outcome"] == "ok"]
    return "selected" if len(good) and good["miou_voxel_selected"].notna().all() else "final"


def compare(runs: pd.DataFrame, metric: str = "miou_voxel") -> pd.DataFrame:
    """One row a method: mean and interval in per cent for each checkpoint, n, failures, difference to scratch, verdict.

    `runs` is one group of `reports.frame.GROUP`. `best` is selected on the test split, as papers do.
    """
    import pandas as pd

    column = f"{metric}_{headline(runs)}"
    base = _units(runs, BASELINE, column)
    rows = []
    for method in ordered(list(runs["method"].unique())):
        mine = runs[runs["method"] == method]
        failed = mine[mine["outcome"] != "ok"]
        row: dict[str, object] = {
            "method": method,
            "pre-trained on": ", ".join(sorted(mine["pretrain_dataset"].unique())),
        }
        for checkpoint in ("selected", "final", "best"):
            row[checkpoint] = show(estimate(100 * _units(runs, method, f"{metric}_{checkpoint}")))
        row["n"] = len(_units(runs, method, column))
        row["failed"] = ", ".join(f"{n} {o}" for o, n in failed["outcome"].value_counts().items()) or "0"
        if method == BASELINE or not len(base) or not row["n"]:
            row["to scratch"], row["verdict"] = "-", "-"
        else:
            gap = difference(100 * _units(runs, method, column), 100 * base)
            row["to scratch"], row["verdict"] = show(gap, signed=True), verdict(gap)
        rows.append(row)
    return pd.DataFrame(rows)


def _units(runs: pd.DataFrame, method: str, column: str) -> np.ndarray:
    good = runs[(runs["method"] == method) & (runs["outcome"] == "ok")]
    return good.groupby(UNIT)[column].mean().dropna().to_numpy()


def show(value: Estimate, signed: bool = False) -> str:
    """`12.3 [11.0, 13.6]`; without an interval where there is none; a dash where there is no value."""
    if value.n == 0:
        return "-"
    mean = f"{value.mean:+.1f}" if signed else f"{value.mean:.1f}"
    return mean if not np.isfinite(value.low) else f"{mean} [{value.low:.1f}, {value.high:.1f}]"


def markdown(frame: pd.DataFrame) -> str:
    """A Markdown table; pipes in cells are escaped."""
    cells = [[str(c).replace("|", "\\|") for c in row] for row in [list(frame.columns), *frame.to_numpy().tolist()]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(frame.columns))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])
