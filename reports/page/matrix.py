"""The overview of a page: gains of methods by groups, coloured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pretrain_bench.reports.analysis.method_cards import BASELINE
from pretrain_bench.reports.analysis.sorting import method_places
from pretrain_bench.reports.tables.wording import cell_without_runs, marks_of_effect

if TYPE_CHECKING:
    import pandas as pd

# From worse to better, a palette for the colour-blind too (ColorBrewer's BrBG); text on the dark shades is white.
SHADES = ("#8c510a", "#bf812d", "#dfc27d", "#f6e8c3", "#f5f5f5", "#c7eae5", "#80cdc1", "#35978f", "#01665e")
DARK_SHADES = ("#8c510a", "#35978f", "#01665e")
LEAST_SCALE = 4.0
"""The least gain that has the strongest colour, so that half a point is not a bright cell."""


def matrix(title: str, effects: pd.DataFrame, titles: Mapping[str, str]) -> dict[str, Any]:
    """Methods by groups, each cell with its gain, n and failures, and a link to its group. `titles`: of all groups of the
    page, by id and in order; `effects` has the id of each row's group in the column `group`."""
    titles = {name: text for name, text in titles.items() if name in set(effects["group"])}
    places = {name: i for i, name in enumerate(titles)}
    scale = max(LEAST_SCALE, float(np.nanmax(np.abs(effects["gain"]))) if effects["gain"].notna().any() else 0.0)
    datasets = dict(effects[["group", "dataset"]].itertuples(index=False, name=None))
    rows: dict[str, list[dict[str, Any]]] = {}
    for r in effects.sort_values("method", key=method_places, kind="stable").to_dict("records"):
        empty = [
            NO_CELL | {"text": cell_without_runs(r["method"], r["pretrain_dataset"], datasets[name])} for name in places
        ]
        cells = rows.setdefault(str(r["row"]), empty)
        cells[places[r["group"]]] = matrix_cell(r, scale)
    columns = [titles[name] for name in places]
    return {"title": title, "columns": columns, "rows": [{"name": n, "cells": c} for n, c in rows.items()]}


NO_CELL = {"link": "", "below": "", "colour": "", "ink": "", "sure": False, "failed": ""}


def matrix_cell(r: Mapping[Any, Any], scale: float) -> dict[str, Any]:
    """The cell of one row of effects; a gain of `scale` points has the strongest colour."""
    cell = {
        "link": r["group"],
        "below": f"n={r['n']}",
        "colour": "",
        "ink": "",
        "sure": r["verdict"] in ("better", "worse"),
    }
    cell["failed"] = marks_of_effect(r)
    if not r["n"]:
        return {**cell, "text": "failed", "below": ""}
    if r["method"] == BASELINE or not np.isfinite(r["gain"]):
        return {**cell, "text": f"{r['mean']:.1f}" if r["method"] == BASELINE else f"mean {r['mean']:.1f}"}
    if r["verdict"].startswith("cannot be tested"):
        return {**cell, "text": f"{r['gain']:+.1f}"}
    shade = SHADES[round((r["gain"] / scale + 1) / 2 * (len(SHADES) - 1))]
    return {
        **cell,
        "text": f"{r['gain']:+.1f}",
        "colour": shade,
        "ink": "#ffffff" if shade in DARK_SHADES else "#1d2328",
    }
