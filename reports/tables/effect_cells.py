"""Format cells of effect tables: `66.5 ±1.2 (+1.4) n=3 [paper 66.5]`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pretrain_bench.reports.analysis.published_protocol import difference, with_protocol
from pretrain_bench.reports.analysis.statistics import Estimate
from pretrain_bench.reports.tables.wording import format_estimate, marks_of_effect

if TYPE_CHECKING:
    import pandas as pd

Effect = Mapping[Any, Any]
"""One row of `analysis.effects.effects`."""


def effect_cell(effect: Effect, paper: float | None, whole: bool = False) -> str:
    """Format mean, half interval, gain, n, and the marks of incomplete data.

    `paper` is the published number for the same cell and protocol; `whole` adds the gain's interval and verdict.
    """
    text = f"{effect['mean']:.1f}" if effect["n"] else ""
    if effect["n"] and np.isfinite(effect["low"]):
        text += f" ±{(effect['high'] - effect['low']) / 2:.1f}"
    if effect["n"] and np.isfinite(effect["gain"]):
        text += f" ({_gain(effect) if whole else format(effect['gain'], '+.1f')})"
    if effect["n"]:
        text += f" n={effect['n']}"
    text = ", ".join(part for part in (text, marks_of_effect(effect)) if part)
    return text if paper is None else f"{text} [paper {paper:.1f}]"


def cells_beside_published(best: pd.DataFrame, value_of: Callable[[Effect], float | None]) -> dict[str, str]:
    """Map rows to cells, with the paper's number for rows that follow its protocol; empty if no row has one.

    `best`: effects of one group at the checkpoint `best`, which the paper uses. `value_of`: the paper's number for an effect.
    """
    values = published_values(best, value_of)
    if not values:
        return {}
    return {str(e["row"]): effect_cell(e, values.get(str(e["row"]))) for e in best.to_dict("records")}


def published_values(best: pd.DataFrame, value_of: Callable[[Effect], float | None]) -> dict[str, float]:
    """Map rows to the paper's number, for the rows of one group that follow the paper's protocol."""
    values: dict[str, float] = {}
    for effect in with_protocol(best):
        value = value_of(effect)
        if value is not None and effect["n"] and not difference(effect):
            values[str(effect["row"])] = value
    return values


def _gain(effect: Effect) -> str:
    gap = Estimate(effect["gain"], effect["gain_low"], effect["gain_high"], effect["n"])
    text = format_estimate(gap, signed=True)
    return text if effect["verdict"].startswith("cannot be tested") else f"{text} {effect['verdict']}"
