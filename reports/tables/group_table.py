"""The table of one group of comparable runs: scores, failures and difference from scratch of every method."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from pretrain_bench.reports.analysis.columns import ROW
from pretrain_bench.reports.analysis.failed_pretraining import FailedPretraining, failed_by_row
from pretrain_bench.reports.analysis.power import seeds_to_see_a_point
from pretrain_bench.reports.analysis.rows import baseline_rows, by_row
from pretrain_bench.reports.analysis.scores import headline_checkpoint, per_unit
from pretrain_bench.reports.analysis.statistics import estimate, judge
from pretrain_bench.reports.tables.wording import format_estimate, format_failures

if TYPE_CHECKING:
    import pandas as pd

TO_SEE = "to see 1 point"
CONTAMINATED = "contamination"
CHECKPOINT_COLUMNS = ("selected", "final", "best")


def group_table(
    runs: pd.DataFrame, metric: str = "score", failed_pretrainings: Iterable[FailedPretraining] = ()
) -> pd.DataFrame:
    """One row per method: mean and interval in per cent for each checkpoint, n, failures, difference from scratch, verdict, and
    the number of seeds per method needed to detect a difference of one point.

    `runs` is one group of `columns.GROUP`. The checkpoint `best` is selected on the test split, as papers do.
    """
    import pandas as pd

    headline = headline_checkpoint(runs)
    units = {c: {n: 100 * v for n, v in per_unit(runs, f"{metric}_{c}").items()} for c in CHECKPOINT_COLUMNS}
    base = baseline_rows(runs)
    failed = failed_by_row(runs, failed_pretrainings)
    score = f"{metric}_{headline}"
    lines: list[dict[str, Any]] = []
    for name, mine in by_row(runs[["row", *ROW, "outcome", "contamination_mark", score]]).items():
        line: dict[str, Any] = {"method": name, "pre-trained on": mine["pretrain_dataset"].iloc[0]}
        line |= {checkpoint: format_estimate(estimate(values[name])) for checkpoint, values in units.items()}
        line[CONTAMINATED] = " / ".join(dict.fromkeys(mine["contamination_mark"])) or "none"
        line["n"] = len(units[headline][name])
        without_score = int(mine.loc[mine["outcome"] == "ok", score].isna().sum())
        line["failed"] = format_failures(mine["outcome"], without_score, len(failed.pop(name, [])))
        # With two kinds of scratch in one group no single baseline exists.
        comparable = len(base) == 1 and name != base[0]
        lines.append(line | _against(units[headline][name], units[headline][base[0]] if comparable else np.array([])))
    for name, pretrainings in failed.items():
        line = {"method": name, "pre-trained on": pretrainings[0].pretrain_dataset}
        line |= dict.fromkeys((*units, CONTAMINATED, "vs. scratch", "verdict", TO_SEE), "-")
        lines.append({**line, "n": 0, "failed": format_failures((), 0, len(pretrainings))})
    return pd.DataFrame(lines)


def _against(ours: np.ndarray, scratch: np.ndarray) -> dict[str, str]:
    """The cells that compare a row with scratch, from values in per cent."""
    if not len(ours) or not len(scratch):
        return {"vs. scratch": "-", "verdict": "-", TO_SEE: "-"}
    gap, words = judge(ours, scratch)
    needed = seeds_to_see_a_point(ours, scratch)
    return {
        "vs. scratch": format_estimate(gap, signed=True),
        "verdict": words,
        TO_SEE: "-" if np.isnan(needed) else f"about {needed:.0f} seeds",
    }
