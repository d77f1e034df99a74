"""Steps until a method is within 1 point of scratch's final score, and the speed-up over scratch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from pretrain_bench.reports.analysis.convergence import baseline_row, steps_to_reach
from pretrain_bench.reports.analysis.curves import Curves

if TYPE_CHECKING:
    import pandas as pd


def convergence_table(curves: Curves, without_run: Mapping[str, int] = {}) -> pd.DataFrame:
    """One row per method with medians over its pre-trainings. Arguments as for `steps_to_reach`; empty if its result is."""
    import pandas as pd

    steps = steps_to_reach(curves, without_run)
    base_row = baseline_row(curves)
    if not steps or base_row is None:
        return pd.DataFrame()
    base = float(np.median(steps[base_row]))
    rows = []
    for name, reached in steps.items():
        median = float(np.median(reached))
        rows.append(
            {
                "method": name,
                "steps to within 1 point of scratch": f"{median:,.0f}" if np.isfinite(median) else "never",
                "reached by": f"{int(np.isfinite(reached).sum())} of {len(reached)}",
                "speed-up": f"{base / median:.2f}x" if np.isfinite([base, median]).all() and median > 0 else "-",
            }
        )
    return pd.DataFrame(rows)
