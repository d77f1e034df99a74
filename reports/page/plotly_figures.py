"""Interactive figures of the page, as plotly's data and layout; every run is a point that opens the run when clicked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pretrain_bench.reports.analysis.curves import Curves
from pretrain_bench.reports.analysis.method_cards import colour_of
from pretrain_bench.reports.analysis.scores import METRIC_NAMES, score_axis
from pretrain_bench.reports.figures.gains import BOX_FROM
from pretrain_bench.reports.figures.style import Overlays, places_among_rows, places_within_method

if TYPE_CHECKING:
    import pandas as pd

Figure = dict[str, Any]
DASHES, SYMBOLS = ("solid", "dot", "dashdot", "longdash"), ("circle", "square", "triangle-up", "diamond")
"""Line styles and markers that tell rows of one method apart, as in `reports.figures.style`."""
MANY_POINTS = 2000
"""From here on the points of one row are drawn by WebGL, which not every browser supports."""


def plotly_source() -> str:
    """The source of plotly.js, to embed in the page."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def ratio_curves(runs: pd.DataFrame, effects: pd.DataFrame, overlays: Overlays) -> Figure:
    """Score over the label ratio; the interactive version of `figures.ratio_curves`."""
    traces: list[dict[str, Any]] = []
    places = places_among_rows(effects)
    for name, mine in effects.groupby("row", sort=False):
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
    ticks = sorted(effects["label_percent"].dropna().unique().tolist())
    x = {
        "type": "log",
        "tickvals": ticks,
        "ticktext": [f"{t:g}" for t in ticks],
        "title": {"text": "labelled training scenes (%)"},
    }
    return _figure(traces, x, score_axis(runs, effects["checkpoint"].iloc[0]).replace("\n", ", "))


def gains(effects: pd.DataFrame) -> Figure:
    """Gains over scratch by method; the interactive version of `figures.gains`."""
    known = effects[effects["gain"].notna()]
    traces = []
    for name, mine in known.groupby("row", sort=False):
        box = len(mine) >= BOX_FROM
        traces.append(
            {
                "type": "box", "name": str(name), "y": _numbers(mine["gain"]), "text": _cells(mine), "boxpoints": "all",
                "pointpos": 0,
                "jitter": 0.4, "marker": {"color": colour_of(mine["method"].iloc[0]), "size": 6}, "fillcolor": "rgba(0,0,0,0)",
                "line": {"width": 1 if box else 0}, "hovertemplate": "%{y:+.1f}<br>%{text}<extra>%{fullData.name}</extra>",
                "hoveron": "boxes+points" if box else "points", "showlegend": False,
            }
        )  # fmt: skip
    return _figure(traces, {"title": {"text": "pre-training method"}}, "gain over scratch (points of the metric)")


def cost(priced: pd.DataFrame) -> Figure:
    """Gain over the hours of one pre-training; the interactive version of `figures.cost`. `priced`: as from `with_hours`."""
    known = priced[priced["gain"].notna()]
    traces = []
    places = places_among_rows(known)
    for name, mine in known.groupby("row", sort=False):
        trace = _line(str(name), mine["hours"], mine["gain"], colour_of(mine["method"].iloc[0]), places[str(name)])
        trace |= {"mode": "markers", "text": _cells(mine), "hovertemplate": "%{y:+.1f} points, %{x:.3f} h<br>%{text}"}
        if np.isfinite(mine["gain_low"]).any():
            trace["error_y"] = _error(mine["gain"], mine["gain_low"], mine["gain_high"])
        traces.append(trace)
    x = {"title": {"text": f"{priced['hours_of'].iloc[0]} of one pre-training"}, "rangemode": "tozero"}
    return _figure(traces, x, "gain over scratch (points of the metric)")


def validation_curves(curves: Curves, metric: str, overlays: Overlays | None = None) -> Figure:
    """Score over fine-tuning steps; the interactive version of `figures.validation_curves`. A row's runs are one broken line."""
    traces = []
    places = places_within_method({name: runs[0].method for name, runs in curves.items()})
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
    """The text of each effect that appears under the pointer."""
    return [f"{r['task']} at {r['label_ratio']}, n={r['n']}" for r in mine.to_dict("records")]


def _figure(traces: list[dict[str, Any]], x: dict[str, Any], y: str) -> Figure:
    return {"data": traces, "layout": {"xaxis": x, "yaxis": {"title": {"text": y}}, "hovermode": "closest"}}


def _line(name: str, x: Any, y: Any, colour: str, place: int = 0) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "lines", "name": name, "x": _numbers(x), "y": _numbers(y),
        "line": {"color": colour, "dash": DASHES[place % len(DASHES)]},
        "marker": {"color": colour, "size": 7, "symbol": SYMBOLS[place % len(SYMBOLS)]},
    }  # fmt: skip


def _points(name: str, x: Any, y: Any, keys: Any, colour: str) -> dict[str, Any]:
    """A trace with one point a run."""
    return {
        "type": "scatter" if len(keys) < MANY_POINTS else "scattergl", "mode": "markers", "name": name,
        "x": _numbers(x), "y": _numbers(y), "customdata": list(keys),
        "marker": {"color": colour, "size": 5, "opacity": 0.5}, "showlegend": False, "legendgroup": name,
        "hovertemplate": "%{y:.1f}<br>%{customdata}",
    }  # fmt: skip


def _error(mean: Any, low: Any, high: Any) -> dict[str, Any]:
    up, down = np.asarray(high) - np.asarray(mean), np.asarray(mean) - np.asarray(low)
    return {"type": "data", "symmetric": False, "array": _numbers(up), "arrayminus": _numbers(down), "thickness": 1}


def _numbers(values: Any) -> list[Any]:
    """Numbers for JSON: rounded to four digits, None for NaN and infinity."""
    return [None if v is None or v != v or abs(v) == np.inf else round(float(v), 4) for v in values]
