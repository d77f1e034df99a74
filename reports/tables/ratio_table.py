"""Methods by label ratio, for one family of effects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pretrain_bench.reports.analysis import published
from pretrain_bench.reports.analysis.families import Family
from pretrain_bench.reports.analysis.published_protocol import BEST_AS_PAPER
from pretrain_bench.reports.analysis.sorting import method_places, ratio_key
from pretrain_bench.reports.analysis.titles import short_ratio
from pretrain_bench.reports.tables.effect_cells import Effect, EffectColumn, columns_of_group

if TYPE_CHECKING:
    import pandas as pd


def ratio_table(family: Family, best: Family | None = None) -> pd.DataFrame:
    """Methods by label ratio: mean, gain and n.

    `best` is the same family at the checkpoint `best`. A ratio whose protocol matches Figure 3 gets a second column with the
    mean of `best` and the paper's value.
    """
    import pandas as pd

    cells = {column.title: column.cells() for column in ratio_columns(family, best)}
    names = dict.fromkeys(map(str, family.effects.sort_values("method", key=method_places, kind="stable")["row"]))
    return pd.DataFrame([{"method": n, **{c: rows.get(n, "not run") for c, rows in cells.items()}} for n in names])


def ratio_columns(family: Family, best: Family | None = None) -> list[EffectColumn]:
    """The columns of the table, one per label ratio, and of the same table for a paper."""
    columns: list[EffectColumn] = []
    for ratio, effects in sorted(family.effects.groupby("label_ratio"), key=lambda part: ratio_key(str(part[0]))):
        head = short_ratio(str(ratio))
        same = best.effects[best.effects["label_ratio"] == ratio] if best else effects[:0]
        own = EffectColumn(head, head, {}, effects)
        columns += columns_of_group(own, f"{head}, {BEST_AS_PAPER}", same, _value_of_figure_3)
    return columns


def _value_of_figure_3(effect: Effect) -> float | None:
    curve = dict(published.ratio_curve(str(effect["task"]), str(effect["published_as"])))
    return curve.get(effect["label_percent"])
