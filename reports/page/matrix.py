"""The overview of a page: methods by tasks and label ratios, with colour only where a test supports a difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pretrain_bench.reports.analysis.families import Family, task_families
from pretrain_bench.reports.analysis.method_cards import BASELINE
from pretrain_bench.reports.analysis.sorting import method_places, ratio_key
from pretrain_bench.reports.analysis.titles import short_ratio
from pretrain_bench.reports.tables.wording import cell_without_runs, marks_of_effect

if TYPE_CHECKING:
    import pandas as pd

SYMBOLS = {"better": "▲", "worse": "▼", "equivalent": "≈"}
"""Symbols that show the result of a test without colour."""
NO_CELL = {"link": "", "text": "", "symbol": "", "kind": "", "n": "", "interval": "", "words": "", "failed": ""}


def matrix(title: str, effects: pd.DataFrame) -> dict[str, Any]:
    """The table of effects for the template: `heads` over the columns of a task, `columns` with a label ratio each, and `rows`
    of cells that link to their group. `effects` has the id of each row's group in the column `group`."""
    families = task_families(effects)
    columns = [column for family in families for column in _columns(family)]
    places = {column["group"]: place for place, column in enumerate(columns)}
    rows: dict[str, list[dict[str, Any]]] = {}
    for effect in effects.sort_values("method", key=method_places, kind="stable").to_dict("records"):
        method, source = effect["method"], effect["pretrain_dataset"]
        empty = [NO_CELL | {"text": cell_without_runs(method, source, column["dataset"])} for column in columns]
        cells = rows.setdefault(str(effect["row"]), empty)
        cells[places[effect["group"]]] = matrix_cell(effect)
    return {
        "title": title,
        "heads": [{"text": f.head, "span": f.effects["group"].nunique(), "note": f.title} for f in families],
        "columns": columns,
        "rows": [{"name": name, "cells": cells} for name, cells in rows.items()],
    }


def _columns(family: Family) -> list[dict[str, Any]]:
    """One column for each group of a family, by label ratio."""
    shown = family.effects.drop_duplicates("group").to_dict("records")
    groups = sorted(shown, key=lambda g: (ratio_key(str(g["label_ratio"])), g["group"]))
    counts = Counter(g["label_ratio"] for g in groups)
    return [
        {
            "group": g["group"],
            "dataset": g["dataset"],
            # Groups of one ratio differ in their recipe or code.
            "text": short_ratio(str(g["label_ratio"]))
            + (f" #{g['conditions']}" if counts[g["label_ratio"]] > 1 else ""),
        }
        for g in groups
    ]


def matrix_cell(effect: Mapping[Any, Any]) -> dict[str, Any]:
    """The cell of one row of effects. `kind` is the word of the test: better, worse, equivalent, or empty."""
    cell = NO_CELL | {"link": effect["group"], "failed": marks_of_effect(effect)}
    if not effect["n"]:
        return cell | {"text": "failed", "words": "failed"}
    cell["n"] = f"n={effect['n']}"
    if effect["method"] == BASELINE or not np.isfinite(effect["gain"]):
        mean = f"{effect['mean']:.1f}"
        return cell | {"text": mean if effect["method"] == BASELINE else f"mean {mean}", "words": f"mean {mean} %"}
    kind = str(effect["verdict"]).split(" ")[0]
    cell |= {"text": f"{effect['gain']:+.1f}", "words": f"{effect['gain']:+.1f} points, {effect['verdict']}"}
    if np.isfinite(effect["gain_low"]):
        cell["interval"] = f"[{effect['gain_low']:.1f}, {effect['gain_high']:.1f}]"
    return cell | {"kind": kind, "symbol": SYMBOLS[kind]} if kind in SYMBOLS else cell
