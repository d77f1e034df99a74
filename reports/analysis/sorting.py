"""Sort keys for rows of tables: methods by their place, label ratios by their size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pretrain_bench.benchmarks.specs.official_labels import OFFICIAL
from pretrain_bench.reports.analysis.columns import GROUP
from pretrain_bench.reports.analysis.method_cards import place_of

if TYPE_CHECKING:
    import pandas as pd


def method_places(methods: pd.Series) -> pd.Series:
    """Positions of methods in a table, as a sort key."""
    return methods.map(place_of)


def column_key(column: pd.Series) -> pd.Series:
    """Sort key of any column: positions for `method` and `label_ratio`, the values themselves otherwise."""
    if column.name == "method":
        return method_places(column)
    return column.map(ratio_key) if column.name == "label_ratio" else column


def ratio_key(label_ratio: str) -> tuple[bool, bool, float]:
    """Sorts shares of scenes by size, then limited points and boxes by number, then official lists by number."""
    number = float("".join(c for c in label_ratio if c.isdigit() or c == "."))
    return label_ratio in OFFICIAL, not label_ratio.endswith("%"), number


def group_key(group: tuple[object, ...]) -> tuple[object, ...]:
    """Sorts groups by name, and by label ratio as a number."""
    place = GROUP.index("label_ratio")
    return (*map(str, group[:place]), ratio_key(str(group[place])), *map(str, group[place + 1 :]))
