"""The page of a report and that of an audit: one HTML file each, without network, all values escaped."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pretrain_bench.reports.analysis.answers import Answer
from pretrain_bench.reports.analysis.what_ran import Fact
from pretrain_bench.reports.page.matrix import matrix
from pretrain_bench.reports.page.plotly_figures import Figure, plotly_source

if TYPE_CHECKING:
    import pandas as pd
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"


class PageGroup(NamedTuple):
    """One group of comparable runs: its table, the pictures of its two figures, its validation curves as an interactive
    figure, the table of steps to reach scratch, empty where those are unknown, what was equal for all rows, in words, and the
    table of what each used."""

    id: str
    title: str
    synthetic: bool
    headline: str
    frame: pd.DataFrame
    scores: Path
    curves: Path
    interactive: Figure | None
    convergence: pd.DataFrame
    equal: str
    used: pd.DataFrame


class PagePicture(NamedTuple):
    """A figure across groups."""

    title: str
    png: Path
    interactive: Figure | None = None


class Page(NamedTuple):
    """Everything that the page shows. `answers` have the mark of synthetic data before them; `facts` are names and values of what
    the runs have in common; `effects` are frames of `analysis.effects.effects` with the column `group`, by
    title; `runs` is `run_details.RunDetails.as_json`; `nothing` is the text of a page without runs."""

    groups: list[PageGroup]
    failures: list[dict[str, Any]]
    synthetic: bool
    tables: Sequence[tuple[str, pd.DataFrame]]
    pictures: Sequence[PagePicture]
    effects: Sequence[tuple[str, pd.DataFrame]]
    answers: Sequence[tuple[str, Answer]]
    facts: Sequence[Fact]
    runs: dict[str, Any]
    nothing: str


def render_page(page: Page) -> str:
    """Fill `templates/report.html.j2`. Every value is escaped, and data are embedded as JSON without a `<`."""
    from markupsafe import Markup

    figures: list[Figure] = []

    def add_figure(figure: Figure | None) -> int | None:
        """Add an interactive figure to the page. Returns its number."""
        if figure is None or not figure["data"]:
            return None
        figures.append(figure)
        return len(figures) - 1

    groups = [
        {
            **group._asdict(),
            **_table(group.title, group.frame),
            "scores": data_uri(group.scores),
            "curves": add_figure(group.interactive),
            "curves_uri": data_uri(group.curves),
            "reach": _table("", group.convergence) if len(group.convergence) else None,
            "used": _table("", group.used) if len(group.used) else None,
        }
        for group in page.groups
    ]
    titles = {group.id: group.title for group in page.groups}
    pictures = [{"title": p.title, "uri": data_uri(p.png), "figure": add_figure(p.interactive)} for p in page.pictures]
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
            answers=page.answers,
            facts=page.facts,
            tables=[_table(title, frame) for title, frame in page.tables],
            pictures=pictures,
            matrices=[matrix(title, effects, titles) for title, effects in page.effects],
            data=data,
            # Our own files, and JSON that cannot end the script.
            data_json=Markup(text),
            style=Markup((TEMPLATES / "report.css").read_text()),
            script=Markup((TEMPLATES / "report.js").read_text()),
            plotly=Markup(plotly_source() if data["runs"] else ""),
        )
    )


def _table(title: str, frame: pd.DataFrame) -> dict[str, Any]:
    return {"title": title, "columns": list(frame.columns), "rows": frame.to_numpy().tolist()}


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)


def render_audit(findings: Sequence[Any], summary: str) -> str:
    """The findings of an audit as a page, under a sentence that sums them up. Every value is escaped."""
    counts = Counter(f.verdict for f in findings)
    text = ", ".join(f"{number} {verdict}" for verdict, number in counts.items())
    return _environment().get_template("audit.html.j2").render(findings=findings, counts=text, summary=summary)


def data_uri(png: Path) -> str:
    """A picture as a data URI, to embed in the page."""
    return "data:image/png;base64," + base64.b64encode(png.read_bytes()).decode()
