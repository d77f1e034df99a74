"""Interactive figures of the page, as plotly data and layout; each run is a point that opens the run when clicked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pretrain_bench.reports.analysis.curves import Curves, RunningStage, mean_curve
from pretrain_bench.reports.analysis.families import task_families
from pretrain_bench.reports.analysis.method_cards import colour_of
from pretrain_bench.reports.analysis.rows import row_names
from pretrain_bench.reports.analysis.scores import METRIC_NAMES, headline_checkpoint, per_unit, score_axis
from pretrain_bench.reports.analysis.statistics import estimate
from pretrain_bench.reports.analysis.titles import group_id
from pretrain_bench.reports.figures.gains import BOX_FROM, BOX_WIDTH, rows_in_order, spread
from pretrain_bench.reports.figures.style import Overlays, places_among_rows, places_within_method, ratio_places

if TYPE_CHECKING:
    import pandas as pd

Figure = dict[str, Any]
DASHES = ("solid", "dot", "dashdot", "longdash")
"""Line styles that distinguish rows of one method, as in `reports.figures.style`."""
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star")
"""Markers of label ratios, as in `reports.figures.style`."""
PAPER_GREY = "#808080"
"""Colour of the paper's curves, with sufficient contrast on light and dark pages."""
SOURCE = Path(__file__).parent / "vendor" / "plotly-cartesian.min.js"
FOREST_COLUMNS, ROW_PIXELS = 3, 34
MOST_POINTS = 400
"""Points of a curve of losses, which may have one for each of 100,000 steps."""


def plotly_source() -> str:
    """The source of plotly.js with the Cartesian figures alone, to embed in the page."""
    return SOURCE.read_text()


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


def forest(known: pd.DataFrame) -> Figure:
    """The rows of `forest_rows`, as the interactive version of `figures.forest`. A point opens its group."""
    order = rows_in_order(known)
    panels = task_families(known)
    columns = min(FOREST_COLUMNS, max(1, len(panels)))
    lines = -(-len(panels) // columns)
    traces: list[dict[str, Any]] = []
    layout: dict[str, Any] = {
        "grid": {"rows": lines, "columns": columns, "pattern": "independent", "ygap": 0.35, "xgap": 0.08},
        "annotations": [], "height": 140 + lines * (60 + ROW_PIXELS * len(order)), "legend": {"orientation": "h", "y": -0.25},
    }  # fmt: skip
    for number, panel in enumerate(panels):
        suffix = str(number + 1) if number else ""
        ticks = order if number % columns == 0 else [""] * len(order)
        layout[f"xaxis{suffix}"] = {"zeroline": True, "title": {"text": "difference from scratch (points)"}}
        layout[f"yaxis{suffix}"] = {
            "tickvals": [-place for place in range(len(order))], "ticktext": ticks, "range": [0.5 - len(order), 0.5],
            "zeroline": False,
        }  # fmt: skip
        layout["annotations"].append(
            {"text": panel.head, "x": 0.5, "y": 1.0, "xref": f"x{suffix} domain", "yref": f"y{suffix} domain", "showarrow": False,
             "yshift": 14}
        )  # fmt: skip
        for row, mine in panel.effects.groupby("row", sort=False):
            colour = colour_of(mine["method"].iloc[0])
            look = zip(mine["place"], mine["decided"], strict=True)
            traces.append(
                {
                    "type": "scatter", "mode": "markers", "name": str(row), "x": _numbers(mine["gain"]),
                    "y": _numbers(mine["height"]), "xaxis": f"x{suffix}", "yaxis": f"y{suffix}",
                    "customdata": _groups(mine), "text": _cells(mine), "showlegend": False,
                    "error_x": _error(mine["gain"], mine["gain_low"], mine["gain_high"]),
                    "marker": {
                        "color": colour, "size": 8, "line": {"width": 1.5, "color": colour},
                        "symbol": [_symbol(place) + ("" if decided else "-open") for place, decided in look],
                    },
                    "hovertemplate": "%{x:+.1f} points<br>%{text}<extra>%{fullData.name}</extra>",
                }
            )  # fmt: skip
    traces += _key_of_ratios(ratio_places(known["label_ratio"]))
    traces += _key({"interval excludes 0": "circle", "interval includes 0": "circle-open"})
    return {"data": traces, "layout": layout | {"hovermode": "closest"}}


def _key(symbols: Mapping[str, str]) -> list[dict[str, Any]]:
    """Entries of a legend that explain markers; filters do not hide them."""
    return [
        {
            "type": "scatter", "mode": "markers", "name": name, "x": [None], "y": [None], "meta": "key",
            "marker": {"color": PAPER_GREY, "size": 8, "symbol": symbol},
        }
        for name, symbol in symbols.items()
    ]  # fmt: skip


def _key_of_ratios(ratios: Mapping[str, int]) -> list[dict[str, Any]]:
    return _key({ratio: _symbol(place) for ratio, place in ratios.items()} if len(ratios) > 1 else {})


def gains(effects: pd.DataFrame) -> Figure:
    """Gains over scratch by method; the interactive version of `figures.gains`, with the same quartiles."""
    known = effects[effects["gain"].notna()]
    traces: list[dict[str, Any]] = []
    ratios, order = ratio_places(known["label_ratio"]), rows_in_order(known)
    for place, name in enumerate(order):
        mine = known[known["row"] == name]
        if len(mine) >= BOX_FROM:
            traces.append(_box(name, place, mine["gain"].to_numpy()))
        mine = mine.sort_values("label_ratio", key=lambda column: column.astype(str).map(ratios), kind="stable")
        traces.append(
            {
                "type": "scatter", "mode": "markers", "name": name, "x": _numbers(place + spread(len(mine))),
                "y": _numbers(mine["gain"]), "text": _cells(mine), "customdata": _groups(mine), "showlegend": False,
                "error_y": _error(mine["gain"], mine["gain_low"], mine["gain_high"]),
                "marker": {
                    "color": colour_of(mine["method"].iloc[0]), "size": 8,
                    "symbol": [_symbol(ratios[str(ratio)]) for ratio in mine["label_ratio"]],
                },
                "hovertemplate": "%{y:+.1f}<br>%{text}<extra>%{fullData.name}</extra>",
            }
        )  # fmt: skip
    traces += _key_of_ratios(ratios)
    x = {
        "title": {"text": "pre-training method"},
        "tickvals": list(range(len(order))),
        "ticktext": order,
        "zeroline": False,
    }
    return _figure(traces, x, "gain over scratch (points of the metric)")


def _box(name: str, place: int, values: Any) -> dict[str, Any]:
    """The quartiles and whiskers of matplotlib's boxes, so that page and file show the same."""
    from matplotlib.cbook import boxplot_stats

    (box,) = boxplot_stats(values)
    return {
        "type": "box", "name": name, "x": [place], "q1": [box["q1"]], "median": [box["med"]], "q3": [box["q3"]],
        "lowerfence": [box["whislo"]], "upperfence": [box["whishi"]], "line": {"width": 1, "color": PAPER_GREY},
        "fillcolor": "rgba(0,0,0,0)", "hoverinfo": "skip", "showlegend": False, "width": 2 * BOX_WIDTH,
    }  # fmt: skip


def cost(priced: pd.DataFrame) -> Figure:
    """Gain over the hours of one pre-training; the interactive version of `figures.cost`. `priced`: as from `with_hours`."""
    known = priced[priced["gain"].notna()]
    traces = []
    ratios = ratio_places(known["label_ratio"])
    for name, mine in known.groupby("row", sort=False):
        trace = _line(str(name), mine["hours"], mine["gain"], colour_of(mine["method"].iloc[0]))
        trace |= {"mode": "markers", "text": _cells(mine), "hovertemplate": "%{y:+.1f} points, %{x:.3f} h<br>%{text}"}
        trace["marker"]["symbol"] = [_symbol(ratios[str(ratio)]) for ratio in mine["label_ratio"]]
        trace |= {"customdata": _groups(mine), "error_y": _error(mine["gain"], mine["gain_low"], mine["gain_high"])}
        traces.append(trace)
    traces += _key_of_ratios(ratios)
    x = {"title": {"text": f"{priced['hours_of'].iloc[0]} of one pre-training"}, "rangemode": "tozero"}
    return _figure(traces, x, "gain over scratch (points of the metric)")


def scores(runs: pd.DataFrame) -> Figure:
    """Score by method, every good run a point; the interactive version of `figures.scores`."""
    column = f"score_{headline_checkpoint(runs)}"
    units = per_unit(runs, column)
    traces: list[dict[str, Any]] = []
    names = row_names(runs)
    for place, (name, (method, *_)) in enumerate(names.items()):
        mine = runs[(runs["row"] == name) & (runs["outcome"] == "ok")]
        if not len(mine):
            continue
        colour, mean = colour_of(method), estimate(100 * units[name])
        x = place + 0.3 * (np.arange(len(mine)) / max(1, len(mine) - 1) - 0.5) * (len(mine) > 1)
        traces.append(_points(name, x, 100 * mine[column], mine["key"], colour) | {"legendgroup": ""})
        if np.isfinite(mean.low):
            traces.append(
                _line(name, [place + 0.3], [mean.mean], colour)
                | {"mode": "markers", "showlegend": False, "error_y": _error([mean.mean], [mean.low], [mean.high])}
                | {"hovertemplate": f"mean %{{y:.1f}} [{mean.low:.1f}, {mean.high:.1f}]"}
            )
    x_axis = {
        "title": {"text": "pre-training method"},
        "tickvals": list(range(len(names))),
        "ticktext": list(names),
        "zeroline": False,
    }
    return _figure(traces, x_axis, score_axis(runs).replace("\n", ", "))


def validation_curves(curves: Curves, metric: str, overlays: Overlays | None = None) -> Figure:
    """Score over fine-tuning steps; the interactive version of `figures.validation_curves`. A row's runs form one broken line
    below the mean of the successful ones, whose interval is a band."""
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
        thin = _line(name, x, y, colour) | {"customdata": keys, "showlegend": False, "opacity": 0.45}
        traces.append(thin | {"line": {"color": colour, "width": 1}, "legendgroup": name})
        mean = mean_curve(runs)
        if mean is None:
            traces[-1]["showlegend"] = True
            continue
        traces.append(_line(name, mean.steps, mean.scores, colour, places[name]) | {"legendgroup": name})
        if np.isfinite(mean.low).all():
            band = _line(name, [*mean.steps, *mean.steps[::-1]], [*mean.high, *mean.low[::-1]], colour)
            hidden = {"line": {"width": 0}, "fill": "toself", "fillcolor": colour, "opacity": 0.15, "showlegend": False}
            traces.append(band | hidden | {"hoverinfo": "skip", "legendgroup": name})
    last = max((curve.steps[-1] for runs in curves.values() for curve in runs), default=0)
    traces += _overlays({m: [p for p in pairs if p[0] <= last] for m, pairs in (overlays or {}).items()})
    return _figure(
        traces, {"title": {"text": "fine-tuning steps"}, "rangemode": "tozero"}, f"{METRIC_NAMES[metric]}, test split"
    )


def losses(stages: Sequence[RunningStage]) -> Figure:
    """Training loss over optimiser steps of stages that run."""
    places = places_within_method({stage.title: stage.method for stage in stages})
    traces = [_line(s.title, *_thinned(*s.losses), colour_of(s.method), places[s.title]) for s in stages]
    return _figure(traces, {"title": {"text": "optimiser steps"}, "rangemode": "tozero"}, "training loss")


def _thinned(steps: Sequence[int], values: Sequence[float]) -> tuple[list[int], list[float]]:
    """At most MOST_POINTS points: the means of equal parts, each at its last step."""
    parts = min(len(steps), MOST_POINTS)
    if not parts:
        return [], []
    ends = [int(part[-1]) for part in np.array_split(np.asarray(steps), parts)]
    return ends, [float(part.mean()) for part in np.array_split(np.asarray(values), parts)]


def _overlays(overlays: Overlays) -> list[dict[str, Any]]:
    dashed = {"color": PAPER_GREY, "width": 1, "dash": "dash"}
    return [
        _line(f"{name} (paper)", [p[0] for p in pairs], [p[1] for p in pairs], PAPER_GREY) | {"line": dashed}
        for name, pairs in overlays.items()
        if pairs
    ]


def _cells(mine: pd.DataFrame) -> list[str]:
    """The hover text of each effect."""
    return [f"{r['task']} at {r['label_ratio']}, n={r['n']}" for r in mine.to_dict("records")]


def _groups(mine: pd.DataFrame) -> list[str]:
    """The id of each effect's group, which a point opens."""
    return [group_id(r) for r in mine.to_dict("records")]


def _symbol(place: int) -> str:
    return SYMBOLS[place % len(SYMBOLS)]


def _figure(traces: list[dict[str, Any]], x: dict[str, Any], y: str) -> Figure:
    return {"data": traces, "layout": {"xaxis": x, "yaxis": {"title": {"text": y}}, "hovermode": "closest"}}


def _line(name: str, x: Any, y: Any, colour: str, place: int = 0) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "lines", "name": name, "x": _numbers(x), "y": _numbers(y),
        "line": {"color": colour, "dash": DASHES[place % len(DASHES)]},
        "marker": {"color": colour, "size": 7},
    }  # fmt: skip


def _points(name: str, x: Any, y: Any, keys: Any, colour: str) -> dict[str, Any]:
    """A trace with one point a run."""
    return {
        "type": "scatter", "mode": "markers", "name": name,
        "x": _numbers(x), "y": _numbers(y), "customdata": list(keys),
        "marker": {"color": colour, "size": 5, "opacity": 0.5}, "showlegend": False, "legendgroup": name,
        "hovertemplate": "%{y:.1f}",
    }  # fmt: skip


def _error(mean: Any, low: Any, high: Any) -> dict[str, Any]:
    up, down = np.asarray(high) - np.asarray(mean), np.asarray(mean) - np.asarray(low)
    return {"type": "data", "symmetric": False, "array": _numbers(up), "arrayminus": _numbers(down), "thickness": 1}


def _numbers(values: Any) -> list[Any]:
    """Numbers for JSON: rounded to four digits, None for NaN and infinity."""
    return [None if v is None or v != v or abs(v) == np.inf else round(float(v), 4) for v in values]
