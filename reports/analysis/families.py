"""Families of effects: one task under one budget and profile at several label ratios."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pretrain_bench.reports.analysis.columns import ACROSS_RATIOS
from pretrain_bench.reports.analysis.titles import protocol_mark

if TYPE_CHECKING:
    import pandas as pd


class Family(NamedTuple):
    """Effects at two label ratios or more, the columns ACROSS_RATIOS that they share, and their title in tables and figures."""

    key: dict[str, Any]
    title: str
    effects: pd.DataFrame


def families(effects: pd.DataFrame) -> list[Family]:
    """The families of a report, in the order that numbers their tables and figures."""
    several: list[Family] = []
    for names, group in effects.groupby(ACROSS_RATIOS, sort=True, dropna=False) if len(effects) else []:
        if group["label_ratio"].nunique() < 2:
            continue
        key = dict(zip(ACROSS_RATIOS, names, strict=True))
        title = (
            f"{key['task']} on {key['dataset']}, budget {key['budget']}, profile {key['profile']}, "
            f"{group['checkpoint'].iloc[0]} checkpoint{protocol_mark(key['protocol'])}"
        )
        if title in {family.title for family in several}:
            title += f" #{key['family']}"
        several.append(Family(key, title, group))
    return several
