"""Curves of the stages that run, for a page that a watch serves: the page asks for them again and again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pretrain_bench.reports.analysis.curves import Curve, RunningStage
from pretrain_bench.reports.analysis.scores import METRIC_NAMES
from pretrain_bench.reports.page import plotly_figures
from pretrain_bench.reports.page.palette import themed_colours
from pretrain_bench.reports.page.plotly_figures import Figure
from pretrain_bench.reports.tables.formats import without_bidi

LOSSES = {"pretrain": "Training loss of pre-training", "finetune": "Training loss of fine-tuning"}


def running_json(stages: Sequence[RunningStage]) -> dict[str, Any]:
    """The content of `running.js`: a row per stage, figures by title, and colours for both themes."""
    named = [stage._replace(title=without_bidi(stage.title)) for stage in stages]
    figures = dict(_figures(named))
    return {
        "stages": [[s.title, s.state, f"{s.step:,} of {s.steps:,}" if s.steps else f"{s.step:,}"] for s in named],
        "figures": [{"title": title, **figure} for title, figure in figures.items()],
        "colours": themed_colours(figures.values()),
    }


def _figures(stages: Sequence[RunningStage]) -> Iterator[tuple[str, Figure]]:
    """The figures by title. `meta` exempts them from the page's filters, which know only rows of ended runs."""
    for kind, title in LOSSES.items():
        if mine := [_marked(s) for s in stages if s.kind == kind and s.losses[0]]:
            yield title, _always_shown(plotly_figures.losses(mine))
    for metric in sorted({s.metric for s in stages if s.scores.steps}):
        curves: dict[str, list[Curve]] = {}
        for stage in map(_marked, stages):
            if stage.metric == metric and stage.scores.steps:
                curves.setdefault(stage.title, []).append(stage.scores)
        title = f"Validation while fine-tuning: {METRIC_NAMES[metric]}"
        yield title, _always_shown(plotly_figures.validation_curves(curves, metric))


def _marked(stage: RunningStage) -> RunningStage:
    return stage._replace(title=f"{stage.title} ({stage.state})")


def _always_shown(figure: Figure) -> Figure:
    # One revision keeps what a reader has zoomed to.
    legend = {"orientation": "h", "y": -0.4}  # below the title of the axis; names are long
    layout = figure["layout"] | {"uirevision": "running", "showlegend": True, "legend": legend}
    return {"data": [trace | {"meta": "key"} for trace in figure["data"]], "layout": layout}
