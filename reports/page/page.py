"""One HTML file that opens from disk: no network, everything from a container escaped."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pretrain_bench.reports.analysis.overview import absent, in_order, what_failed
from pretrain_bench.reports.page.interactive import Figure, plotly_source
from pretrain_bench.reports.tables.tables import BASELINE

if TYPE_CHECKING:
    import pandas as pd
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
# From worse to better, told apart by the colour-blind too (ColorBrewer's BrBG), with what can be read on each.
SHADES = ("#8c510a", "#bf812d", "#dfc27d", "#f6e8c3", "#f5f5f5", "#c7eae5", "#80cdc1", "#35978f", "#01665e")
DARK_SHADES = ("#8c510a", "#35978f", "#01665e")
LEAST_SCALE = 4.0
"""Gains of so much have the strongest colour where none is larger, so that half a point is not a bright cell."""


class PageGroup(NamedTuple):
    """One group of comparable runs: its table, its two figures as pictures and (the curves) for a pointer, and the steps to reach
    scratch, empty where that is not known."""

    id: str
    title: str
    synthetic: bool
    headline: str
    frame: pd.DataFrame
    scores: Path
    curves: Path
    interactive: Figure | None
    reach: pd.DataFrame


class PagePicture(NamedTuple):
    """A figure across groups."""

    title: str
    png: Path
    interactive: Figure | None = None


class Page(NamedTuple):
    """All that the page shows. `effects` is `overview.effects` by title; `runs` is `run_details.Details.as_json`;
    `nothing` is said where there is none."""

    groups: list[PageGroup]
    failures: list[dict[str, Any]]
    synthetic: bool
    tables: Sequence[tuple[str, pd.DataFrame]]
    pictures: Sequence[PagePicture]
    effects: Sequence[tuple[str, pd.DataFrame]]
    runs: dict[str, Any]
    nothing: str


def render_page(page: Page) -> str:
    """Fill `templates/report.html.j2`; autoescape is on for every value, and data enter as JSON without a `<`."""
    from markupsafe import Markup

    figures: list[Figure] = []

    def number(figure: Figure | None) -> int | None:
        """Place of a figure among those that the page draws itself."""
        if figure is None or not figure["data"]:
            return None
        figures.append(figure)
        return len(figures) - 1

    groups = [
        {
            **group._asdict(),
            **_table(group.title, group.frame),
            "scores": data_uri(group.scores),
            "curves": number(group.interactive),
            "curves_uri": data_uri(group.curves),
            "reach": _table("", group.reach) if len(group.reach) else None,
        }
        for group in page.groups
    ]
    pictures = [{"title": p.title, "uri": data_uri(p.png), "figure": number(p.interactive)} for p in page.pictures]
    data = {**page.runs, "figures": figures}
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            groups=groups,
            failures=page.failures,
            nothing=page.nothing,
            synthetic=page.synthetic,
            tables=[_table(title, frame) for title, frame in page.tables],
            pictures=pictures,
            matrices=[matrix(title, found, page.groups) for title, found in page.effects],
            data=data,
            # Our own files, and JSON in which nothing can end the script.
            data_json=Markup(text),
            style=Markup((TEMPLATES / "report.css").read_text()),
            script=Markup((TEMPLATES / "report.js").read_text()),
            plotly=Markup(plotly_source() if data["runs"] else ""),
        )
    )


def _table(title: str, frame: pd.DataFrame) -> dict[str, Any]:
    return {"title": title, "columns": list(frame.columns), "rows": frame.to_numpy().tolist()}


def matrix(title: str, found: pd.DataFrame, groups: Sequence[PageGroup]) -> dict[str, Any]:
    """Methods by groups, each cell with its gain, its n and its failures, linked to its group."""
    titles = {group.id: group.title for group in groups if group.id in set(found["group"])}
    places = {name: i for i, name in enumerate(titles)}  # groups come in the order of their ratios
    scale = max(LEAST_SCALE, float(np.nanmax(np.abs(found["gain"]))) if found["gain"].notna().any() else 0.0)
    datasets = dict(found[["group", "dataset"]].itertuples(index=False, name=None))
    rows: dict[str, list[dict[str, Any]]] = {}
    for r in found.sort_values("method", key=in_order, kind="stable").to_dict("records"):
        empty = [NO_CELL | {"text": absent(r["method"], r["pretrain_dataset"], datasets[name])} for name in places]
        cells = rows.setdefault(str(r["row"]), empty)
        cells[places[r["group"]]] = _matrix_cell(r, scale)
    columns = [titles[name] for name in places]
    return {"title": title, "columns": columns, "rows": [{"name": n, "cells": c} for n, c in rows.items()]}


NO_CELL = {"link": "", "below": "", "colour": "", "ink": "", "sure": False, "failed": ""}


def _matrix_cell(r: dict[Any, Any], scale: float) -> dict[str, Any]:
    cell = {
        "link": r["group"],
        "below": f"n={r['n']}",
        "colour": "",
        "ink": "",
        "sure": r["verdict"] in ("better", "worse"),
    }
    cell["failed"] = what_failed(r)
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


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)


def render_audit(findings: Sequence[Any]) -> str:
    """The findings of an audit as a page; autoescape is on for every value."""
    counts = Counter(f.verdict for f in findings)
    text = ", ".join(f"{number} {verdict}" for verdict, number in counts.items())
    return _environment().get_template("audit.html.j2").render(findings=findings, counts=text)


def data_uri(png: Path) -> str:
    """A picture as text, to stand inside the page."""
    return "data:image/png;base64," + base64.b64encode(png.read_bytes()).decode()
