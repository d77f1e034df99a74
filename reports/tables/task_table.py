"""Methods over all tasks of a budget: mean gain over scratch, its corrected p value, and ranks if a test supports them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pretrain_bench.reports.analysis.ranks import OverTasks
from pretrain_bench.reports.tables.wording import format_estimate, format_failures, format_p

if TYPE_CHECKING:
    import pandas as pd


def task_table(over: OverTasks) -> pd.DataFrame:
    """One row per method; `tasks` and `seeds` count those in the mean gain."""
    import pandas as pd

    ranks = over.supported_ranks
    rows = []
    for name, failures in over.failures.items():
        gain = over.gains[name]
        rows.append(
            {
                "method": name,
                "tasks": f"{gain.tasks} of {over.tasks}",
                "seeds": gain.seeds,
                "failed": format_failures(*failures),
                "mean gain": format_estimate(gain.gain, signed=True) if gain.gain else "-",
                "p (Holm)": format_p(gain.adjusted_p) if gain.adjusted_p is not None else "-",
                "verdict": gain.verdict,
                "mean rank": f"{ranks[name]:.1f}" if name in ranks else "-",
            }
        )
    return pd.DataFrame(rows)
