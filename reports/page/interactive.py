"""Figures that answer to a pointer, as plotly's data and layout; every run is a point that opens the run when it is clicked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pretrain_bench.reports.analysis.frame import METRIC_NAMES, Curve
from pretrain_bench.reports.figures.plots import BOX_FROM, Overlays, colour_of, judged_by, places_of, places_within

if TYPE_CHECKING:
    import pandas as pd

Figure = dict[str, Any]
DASHES, SYMBOLS = ("solid", "dot", "dashdot", "longdash"), ("circle", "square", "triangle-up", "diamond")
"""Of rows of one method, as in `reports.figures.plots`."""
MANY_POINTS = 2000
"""From here on points of one row are drawn by WebGL, which not every browser has ready."""


def plotly_source() -> str:
    """The library itself, to stand inside the page."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def ratio_curves(runs: pd.DataFrame, found: pd.DataFrame, overlays: Overlays) -> Figure:
    """As `reports.figures.plots.ratio_curves`."""
    traces: list[dict[str, Any]] = []
    places = places_of(found)
    for name, mine in found.groupby("row", sort=False):
        colour = colour_of(mine["method"].iloc[0])
        mine = mine.sort_values("label_percent")
        trace = _line(str(name), mine["label_percent"], mine["mean"], colour, places[str(name)]) | {
            "mode": "lines+markers",
            "hovertemplate": "%{y:.1f}",
        }
        if np.isfinite(mine["low"]).any():
            trace["error_y"] = _error(mine["mean"], mine["low"], mine["high"])
        column = f"score_{mine['checkpoint'].iloc[0]}"
        points = runs[(runs["row"] == name) & (runs["outcome"] == "ok")]
        traces += [trace, _points(str(name), points["label_percent"], 100 * points[column], points["key"], colour)]
    traces += _overlays(overlays)
    ticks = sorted(found["label_percent"].dropna().unique().tolist())
    x = {
        "type": "log",
        "tickvals": ticks,
        "ticktext": [f"{t:g}" for t in ticks],
        "title": {"text": "labelled training scenes (%)"},
    }
    return _figure(traces, x, judged_by(runs).replace("\n", ", "))


def gains(found: pd.DataFrame) -> Figure:
    """As `reports.figures.plots.gain_distribution`."""
    known = found[found["gain"].notna()]
    traces = []
    for name, mine in known.groupby("row", sort=False):
        box = len(mine) >= BOX_FROM
        traces.append(
            {
                "type": "box", "name": str(name), "y": _plain(mine["gain"]), "text": _cells(mine), "boxpoints": "all",
                "pointpos": 0,
                "jitter": 0.4, "marker": {"color": colour_of(mine["method"].iloc[0]), "size": 6}, "fillcolor": "rgba(0,0,0,0)",
                "line": {"width": 1 if box else 0}, "hovertemplate": "%{y:+.1f}<br>%{text}<extra>%{fullData.name}</extra>",
                "hoveron": "boxes+points" if box else "points", "showlegend": False,
            }
        )  # fmt: skip
    return _figure(traces, {"title": {"text": "pre-training method"}}, "gain over scratch (points of the metric)")


def cost(priced: pd.DataFrame) -> Figure:
    """As `reports.figures.plots.cost_against_gain`."""
    known = priced[priced["gain"].notna()]
    traces = []
    places = places_of(known)
    for name, mine in known.groupby("row", sort=False):
        trace = _line(str(name), mine["hours"], mine["gain"], colour_of(mine["method"].iloc[0]), places[str(name)])
        trace |= {"mode": "markers", "text": _cells(mine), "hovertemplate": "%{y:+.1f} points, %{x:.3f} h<br>%{text}"}
        if np.isfinite(mine["gain_low"]).any():
            trace["error_y"] = _error(mine["gain"], mine["gain_low"], mine["gain_high"])
        traces.append(trace)
    x = {"title": {"text": f"{priced['hours_of'].iloc[0]} of one pre-training"}, "rangemode": "tozero"}
    return _figure(traces, x, "gain over scratch (points of the metric)")


def validation_curves(curves: Mapping[str, Sequence[Curve]], metric: str, overlays: Overlays | None = None) -> Figure:
    """As `reports.figures.plots.validation_curves`; a row's runs are one broken line."""
    traces = []
    places = places_within({name: runs[0].method for name, runs in curves.items()})
    for name, runs in curves.items():
        x: list[int | None] = []
        y: list[float | None] = []
        keys: list[str | None] = []
        for curve in runs:
            x += [*curve.steps, None]
            y += [*(round(100 * s, 2) for s in curve.scores), None]
            keys += [*[curve.key] * len(curve.steps), None]
        colour = colour_of(runs[0].method)
        line = _line(name, x, y, colour, places[name]) | {"mode": "lines+markers", "customdata": keys}
        traces.append(line | {"line": line["line"] | {"width": 1.2}, "marker": {"size": 4}})
    last = max((curve.steps[-1] for runs in curves.values() for curve in runs), default=0)
    traces += _overlays({m: [p for p in pairs if p[0] <= last] for m, pairs in (overlays or {}).items()})
    return _figure(
        traces, {"title": {"text": "fine-tuning steps"}, "rangemode": "tozero"}, f"{METRIC_NAMES[metric]}, test split"
    )


def _overlays(overlays: Overlays) -> list[dict[str, Any]]:
    dashed = {"color": "#999999", "width": 1, "dash": "dash"}
    return [
        _line(f"{name} (paper)", [p[0] for p in pairs], [p[1] for p in pairs], "#999999") | {"line": dashed}
        for name, pairs in overlays.items()
        if pairs
    ]


def _cells(mine: pd.DataFrame) -> list[str]:
    """What a point of `effects` is, for who points at it."""
    return [f"{r['task']} at {r['label_ratio']}, n={r['n']}" for r in mine.to_dict("records")]


def _figure(traces: list[dict[str, Any]], x: dict[str, Any], y: str) -> Figure:
    return {"data": traces, "layout": {"xaxis": x, "yaxis": {"title": {"text": y}}, "hovermode": "closest"}}


def _line(name: str, x: Any, y: Any, colour: str, place: int = 0) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "lines", "name": name, "x": _plain(x), "y": _plain(y),
        "line": {"color": colour, "dash": DASHES[place % len(DASHES)]},
        "marker": {"color": colour, "size": 7, "symbol": SYMBOLS[place % len(SYMBOLS)]},
    }  # fmt: skip


def _points(name: str, x: Any, y: Any, keys: Any, colour: str) -> dict[str, Any]:
    """One point a run."""
    return {
        "type": "scatter" if len(keys) < MANY_POINTS else "scattergl", "mode": "markers", "name": name,
        "x": _plain(x), "y": _plain(y), "customdata": list(keys),
        "marker": {"color": colour, "size": 5, "opacity": 0.5}, "showlegend": False, "legendgroup": name,
        "hovertemplate": "%{y:.1f}<br>%{customdata}",
    }  # fmt: skip


def _error(mean: Any, low: Any, high: Any) -> dict[str, Any]:
    up, down = np.asarray(high) - np.asarray(mean), np.asarray(mean) - np.asarray(low)
    return {"type": "data", "symmetric": False, "array": _plain(up), "arrayminus": _plain(down), "thickness": 1}


def _plain(values: Any) -> list[Any]:
    """Numbers that JSON knows: no NaN, and no more digits than anybody reads."""
    return [None if v is None or v != v or abs(v) == np.inf else round(float(v), 4) for v in values]
