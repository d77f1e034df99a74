"""Scores of single classes in per cent: methods by class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pretrain_bench.reports.analysis import published
from pretrain_bench.reports.analysis.columns import ROW, UNIT
from pretrain_bench.reports.analysis.frame import Loaded
from pretrain_bench.reports.analysis.published_protocol import methods_as_published
from pretrain_bench.reports.analysis.rows import by_row
from pretrain_bench.reports.analysis.scores import headline_checkpoint

if TYPE_CHECKING:
    import pandas as pd


def class_scores(group: pd.DataFrame, loaded: Loaded, checkpoint: str | None = None) -> pd.DataFrame | None:
    """Mean score of each class over pre-trainings, rows by classes; None if no run of the group has class scores.

    `checkpoint` None means the headline checkpoint.
    """
    import pandas as pd

    checkpoint = checkpoint or headline_checkpoint(group)
    rows: dict[str, list[float]] = {}
    classes: tuple[str, ...] = ()
    for name, runs in by_row(group[["row", *ROW, UNIT, "outcome", "key"]]).items():
        good = runs[runs["outcome"] == "ok"]
        if not len(good):
            continue
        spec = loaded.specs[good["key"].iloc[0]]
        assert spec.data is not None
        classes = spec.data.classes
        names = [f"{spec.class_metric}/{i}_{checkpoint}" for i in range(len(classes))]
        values = np.array([[loaded.records[key].metrics.get(n) for n in names] for key in good["key"]], dtype=float)
        # Mean over the fine-tunings of each pre-training first, then over pre-trainings, as in all tables.
        seeds = pd.DataFrame(100 * values).groupby(good[UNIT].to_numpy()).mean()
        rows[name] = seeds.mean().tolist()
    if not rows or all(np.isnan(v) for row in rows.values() for v in row):
        return None
    return pd.DataFrame(rows, index=list(classes)).T


def with_published_classes(scores: pd.DataFrame, group: pd.DataFrame) -> pd.DataFrame:
    """Class scores plus the paper's rows for methods that it reports and that follow its protocol."""
    import pandas as pd

    known = published.per_class(str(group["task"].iloc[0]))
    methods = [m for m in methods_as_published(group) if m in known]
    rows = {f"{m} [paper]": [known[m].get(c, np.nan) for c in scores.columns] for m in methods}
    return pd.concat([scores, pd.DataFrame(rows, index=scores.columns).T]) if rows else scores
