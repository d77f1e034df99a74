"""Methods by label ratios, for one family of effects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pretrain_bench.reports.analysis import published
from pretrain_bench.reports.analysis.families import Family
from pretrain_bench.reports.analysis.sorting import method_places, ratio_key
from pretrain_bench.reports.tables.effect_cells import beside_published, effect_cell

if TYPE_CHECKING:
    import pandas as pd


def ratio_table(family: Family, with_published: bool = False) -> pd.DataFrame:
    """Methods by label ratio: mean, gain and n, with the value of Figure 3 at the same ratio where published numbers may
    stand."""
    import pandas as pd

    ratios = sorted(family.effects["label_ratio"].unique(), key=ratio_key)
    cells = {}
    for effect in family.effects.to_dict("records"):
        beside = beside_published(effect, with_published)
        curve = dict(published.ratio_curve(str(effect["task"]), str(effect["method"]))) if beside else {}
        cells[str(effect["row"]), effect["label_ratio"]] = effect_cell(effect, curve.get(effect["label_percent"]))
    names = dict.fromkeys(map(str, family.effects.sort_values("method", key=method_places)["row"]))
    return pd.DataFrame(
        [{"method": name, **{ratio: cells.get((name, ratio), "not run") for ratio in ratios}} for name in names]
    )
