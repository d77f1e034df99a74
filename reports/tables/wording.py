"""Format estimates, p values and failures for table cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from pretrain_bench.reports.analysis.rows import applicable
from pretrain_bench.reports.analysis.statistics import Estimate


def format_estimate(value: Estimate, signed: bool = False) -> str:
    """`12.3 [11.0, 13.6]`; only the mean if there is no interval; a dash without values."""
    if value.n == 0:
        return "-"
    mean = f"{value.mean:+.1f}" if signed else f"{value.mean:.1f}"
    return mean if not np.isfinite(value.low) else f"{mean} [{value.low:.1f}, {value.high:.1f}]"


def format_amount(amount: float, form: str) -> str:
    """An amount used, or `unknown`, such as for the pre-training behind an imported checkpoint."""
    return format(amount, form) if np.isfinite(amount) else "unknown"


def format_p(p: float) -> str:
    """A p value with three digits; a dash if there is none."""
    return "-" if not np.isfinite(p) else f"{p:.3f}" if p >= 0.001 else "<0.001"


def format_failures(outcomes: Iterable[str], without_score: int, pretrainings: int) -> str:
    """The failures of a row: `2 crashed, 1 pre-training`; 0 without failures."""
    kinds = [f"{n} {outcome}" for outcome, n in Counter(o for o in outcomes if o != "ok").most_common()]
    if without_score:
        kinds.append(f"{without_score} without a score")
    if pretrainings:
        kinds.append(f"{pretrainings} pre-training{'s' * (pretrainings > 1)}")
    return ", ".join(kinds) or "0"


def failures_of_effect(effect: Mapping[Any, Any]) -> str:
    """The failures behind a row of effects: `2 of 8 failed, 1 pre-training failed`; empty without failures."""
    pretrainings = int(effect["lost_pretrainings"])
    parts = [f"{effect['failed']} of {effect['runs']} failed"] if effect["failed"] else []
    if pretrainings:
        parts.append(f"{pretrainings} pre-training{'s' * (pretrainings > 1)} failed")
    return ", ".join(parts)


def marks_of_effect(effect: Mapping[Any, Any]) -> str:
    """The warnings that a cell's number must carry: `67 of 68 test scenes, pre-training saw 12 of 68 test scenes, 2 of 8 failed`;
    empty if there are none."""
    marks = (str(effect["part_of_test_split"]), str(effect["contamination_mark"])) if effect["n"] else ()
    return ", ".join(text for text in (*marks, failures_of_effect(effect)) if text)


def cell_without_runs(method: str, pretrain_dataset: str, dataset: str) -> str:
    """The text of a cell without runs."""
    return "not run" if applicable(method, pretrain_dataset, dataset) else "not applicable"


def format_budget(budget: object, profile: object) -> str:
    """A budget and its profile; the profile is omitted if it has the same name."""
    return str(budget) if profile == budget else f"{budget}, {profile}"
