"""Format cells of effect tables: `66.5 ±1.2 (+1.4) n=3 [paper 66.5]`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pretrain_bench.reports.analysis.published_protocol import BEST_AS_PAPER, difference, with_protocol
from pretrain_bench.reports.analysis.statistics import Estimate
from pretrain_bench.reports.tables.wording import format_estimate, marks_of_effect

if TYPE_CHECKING:
    import pandas as pd

Effect = Mapping[Any, Any]
"""One row of `analysis.effects.effects`."""


class EffectColumn(NamedTuple):
    """A column of effects: its head in this project's tables, the shorter head in a paper's, the paper's numbers by row where
    comparable, and the effects."""

    title: str
    head: str
    published: Mapping[str, float]
    effects: pd.DataFrame

    def cells(self, whole: bool = False) -> dict[str, str]:
        """Row to its cell, which is `whole` as for `effect_cell`, with the paper's number where the row has one."""
        rows = self.effects.to_dict("records")
        return {str(e["row"]): effect_cell(e, self.published.get(str(e["row"])), whole) for e in rows}


def columns_of_group(
    own: EffectColumn, title_at_best: str, best: pd.DataFrame, value_of: Callable[[Effect], float | None]
) -> Iterator[EffectColumn]:
    """The column of one group; and where a row has the paper's protocol, one at the checkpoint `best`, which is the paper's.

    `best`: effects of the same group at that checkpoint. `value_of`: the paper's number of one effect.
    """
    yield own
    if values := published_values(best, value_of):
        yield EffectColumn(title_at_best, f"{own.head}, {BEST_AS_PAPER}", values, best)


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
