"""Methods by label ratio, for one family of effects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pretrain_bench.benchmarks.specs.official_labels import OFFICIAL
from pretrain_bench.reports.analysis import published
from pretrain_bench.reports.analysis.families import Family
from pretrain_bench.reports.analysis.published_protocol import BEST_AS_PAPER
from pretrain_bench.reports.analysis.sorting import method_places, ratio_key
from pretrain_bench.reports.tables.effect_cells import Effect, cells_beside_published, effect_cell, published_values
from pretrain_bench.reports.tables.paper_table import PaperColumn

if TYPE_CHECKING:
    import pandas as pd


def ratio_table(family: Family, best: Family | None = None) -> pd.DataFrame:
    """Methods by label ratio: mean, gain and n.

    `best` is the same family at the checkpoint `best`. A ratio whose protocol matches Figure 3 gets a second column with the
    mean of `best` and the paper's value.
    """
    import pandas as pd

    cells: dict[tuple[str, str], str] = {}
    columns: list[str] = []
    for ratio, effects in sorted(family.effects.groupby("label_ratio"), key=lambda part: ratio_key(str(part[0]))):
        columns.append("official " * (str(ratio) in OFFICIAL) + str(ratio))
        cells |= {(str(e["row"]), columns[-1]): effect_cell(e, None) for e in effects.to_dict("records")}
        same = best.effects[best.effects["label_ratio"] == ratio] if best else effects[:0]
        beside = cells_beside_published(same, _value_of_figure_3)
        if beside:
            columns.append(f"{ratio}, {BEST_AS_PAPER}")
            cells |= {(row, columns[-1]): text for row, text in beside.items()}
    names = dict.fromkeys(map(str, family.effects.sort_values("method", key=method_places, kind="stable")["row"]))
    return pd.DataFrame([{"method": n, **{c: cells.get((n, c), "not run") for c in columns}} for n in names])


def ratio_columns(family: Family, best: Family | None = None) -> list[PaperColumn]:
    """The same table for a paper, with one column per ratio."""
    columns = []
    for ratio, effects in sorted(family.effects.groupby("label_ratio"), key=lambda part: ratio_key(str(part[0]))):
        columns.append(PaperColumn(str(ratio), {}, effects))
        same = best.effects[best.effects["label_ratio"] == ratio] if best else effects[:0]
        if values := published_values(same, _value_of_figure_3):
            columns.append(PaperColumn(f"{ratio}, {BEST_AS_PAPER}", values, same))
    return columns


def _value_of_figure_3(effect: Effect) -> float | None:
    curve = dict(published.ratio_curve(str(effect["task"]), str(effect["published_as"])))
    return curve.get(effect["label_percent"])
