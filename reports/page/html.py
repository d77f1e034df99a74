"""Render the page of a report and that of an audit: one HTML file each, without network access, with all values escaped."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pretrain_bench.benchmarks.specs.cell import label_words
from pretrain_bench.reports.analysis.answers import Answer
from pretrain_bench.reports.analysis.families import task_families
from pretrain_bench.reports.analysis.titles import text_mark
from pretrain_bench.reports.analysis.what_ran import Fact
from pretrain_bench.reports.page.matrix import matrix
from pretrain_bench.reports.page.palette import style_variables, themed_colours
from pretrain_bench.reports.page.plotly_figures import Figure, plotly_source
from pretrain_bench.reports.tables.formats import without_bidi

if TYPE_CHECKING:
    import pandas as pd
    from jinja2 import Environment

SCRIPTS = ("common.js", "figures.js", "runs.js", "filters.js", "running.js")
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
    interactive_scores: Figure | None
    about: Mapping[str, str]


class PageTable(NamedTuple):
    """A table across groups: its name, which those of real and of synthetic data share, its title with everything that its
    reader must know, the task and protocol by which the page filters it, and what tells its heading from others (`of`)."""

    name: str
    synthetic: bool
    title: str
    frame: pd.DataFrame
    about: Mapping[str, str]
    of: str = ""


class PagePicture(NamedTuple):
    """A figure across groups; `about` as of a table; `wide` as the page."""

    title: str
    png: Path
    interactive: Figure | None
    about: Mapping[str, str]
    wide: bool


class Page(NamedTuple):
    """Everything that the page shows. `answers` have the mark of synthetic data before them; `facts` are names and values of what
    the runs have in common; `effects` are frames of `analysis.effects.effects` with the column `group`, by
    title; `runs` is `run_details.RunDetails.as_json`; `nothing` is the text of a page without runs; a `live`
    page asks its server for the curves of stages that run."""

    groups: list[PageGroup]
    failures: list[dict[str, Any]]
    synthetic: bool
    tables: Sequence[PageTable]
    pictures: Sequence[PagePicture]
    effects: Sequence[tuple[str, pd.DataFrame]]
    answers: Sequence[tuple[str, Answer]]
    facts: Sequence[Fact]
    runs: dict[str, Any]
    nothing: str
    live: bool = False


HEADS = {
    "table1": "All labels", "ratios": "Label ratios", "tasks": "Over all tasks", "probes": "Probes",
    "claims": "The paper's statements", "published": "The paper's numbers", "datasets": "Pre-training data", "cost": "Cost",
}  # fmt: skip
"""Short headings of tables by the name of their file, without its number; the full title is a note below."""


def render_page(page: Page) -> str:
    """Fill `templates/report.html.j2`. Every value is escaped, and data are embedded as JSON without a `<`."""
    from markupsafe import Markup

    places = {run["key"]: place for place, run in enumerate(page.runs["runs"])}
    figures: list[Figure] = []

    def add_figure(figure: Figure | None) -> int | None:
        """Add an interactive figure to the page, its runs by number. Returns its own number."""
        if figure is None or not figure["data"]:
            return None
        traces = [
            trace
            | ({"customdata": [places.get(key, key) for key in trace["customdata"]]} if "customdata" in trace else {})
            for trace in figure["data"]
        ]
        figures.append(figure | {"data": traces})
        return len(figures) - 1

    heads = _heads_of_groups(page)
    mixed = len({table.synthetic for table in page.tables} | {group.synthetic for group in page.groups}) > 1
    groups = [
        _group(group, text_mark(mixed and group.synthetic) + heads.get(group.id, group.title), add_figure)
        for group in page.groups
    ]
    pictures = [
        {
            "title": p.title,
            "uri": data_uri(p.png),
            "figure": add_figure(p.interactive),
            "about": p.about,
            "wide": p.wide,
            "stem": p.png.stem,
        }
        for p in page.pictures
    ]
    data = {
        **page.runs,
        "figures": figures,
        "groups": [{"id": g["id"], "title": g["head"], **g["about"]} for g in groups],
        "colours": themed_colours(figures),
    }
    text = json.dumps(_without_bidi(data), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            groups=groups,
            failures=page.failures,
            nothing=page.nothing,
            synthetic=page.synthetic,
            mixed=mixed,
            answers=page.answers,
            facts=page.facts,
            tables=[_across_table(table, text_mark(mixed and table.synthetic)) for table in page.tables],
            pictures=pictures,
            matrices=[matrix(title, effects) for title, effects in page.effects],
            data=data,
            # Our own files, and JSON that cannot end the script.
            data_json=Markup(text),
            style=Markup(style_variables() + (TEMPLATES / "report.css").read_text()),
            script=Markup("".join((TEMPLATES / name).read_text() for name in SCRIPTS)),
            live=page.live,
            plotly=Markup(plotly_source() if data["runs"] or page.live else ""),
        )
    )


def _without_bidi(data: dict[str, Any]) -> dict[str, Any]:
    """Clean the data of a page, whose texts from containers are in `texts` and in messages, warnings and logs of runs."""
    runs = [
        run
        | {name: without_bidi(run[name]) for name in ("message", "log") if name in run}
        | ({"warnings": list(map(without_bidi, run["warnings"]))} if "warnings" in run else {})
        for run in data["runs"]
    ]
    return data | {"texts": list(map(without_bidi, data["texts"])), "runs": runs}


def _group(group: PageGroup, head: str, add_figure: Callable[[Figure | None], int | None]) -> dict[str, Any]:
    """A group in the form that the template expects."""
    return {
        **group._asdict(),
        "head": head,
        "table": _table(head, group.frame),
        "scores": {
            "uri": data_uri(group.scores),
            "figure": add_figure(group.interactive_scores),
            "stem": f"scores-{group.id}",
        },
        "curves": {
            "uri": data_uri(group.curves),
            "figure": add_figure(group.interactive),
            "stem": f"curves-{group.id}",
        },
        "reach": _table(f"{head}: steps to reach scratch", group.convergence) if len(group.convergence) else None,
        "used": _table(f"{head}: what each method used", group.used) if len(group.used) else None,
    }


def _heads_of_groups(page: Page) -> dict[str, str]:
    """Short headings of groups by their id: the head of their family, and the label ratio. A real and a synthetic group may share
    one."""
    every: dict[str, str] = {}
    for _, effects in page.effects:
        heads = {}
        for family in task_families(effects):
            for name, ratio in (
                family.effects[["group", "label_ratio"]].drop_duplicates().itertuples(index=False, name=None)
            ):
                heads[name] = f"{family.head}, {label_words(ratio)}"
        counts = Counter(heads.values())
        every |= {name: head for name, head in heads.items() if counts[head] == 1}
    return every


def _across_table(table: PageTable, mark: str) -> dict[str, Any]:
    """A table across groups as the template reads it; `mark` is what its heading begins with."""
    kind = table.name.rstrip("0123456789") if table.name != "table1" else table.name
    head = mark + HEADS[kind] + f": {table.of}" * bool(table.of)
    name = f"table-{'synthetic-' * table.synthetic}{table.name}"
    return {**_table(head, table.frame), "note": table.title, "about": table.about, "id": name}


def _table(title: str, frame: pd.DataFrame) -> dict[str, Any]:
    columns = list(frame.columns)
    method = columns.index("method") if "method" in columns else None
    return {"title": title, "columns": columns, "rows": frame.to_numpy().tolist(), "method": method}


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: without_bidi(value) if type(value) is str else value,  # not our own markup
    )


def render_audit(findings: Sequence[Any], summary: str) -> str:
    """The findings of an audit as a page, under a sentence that sums them up. Every value is escaped."""
    counts = Counter(f.verdict for f in findings)
    text = ", ".join(f"{number} {verdict}" for verdict, number in counts.items())
    return _environment().get_template("audit.html.j2").render(findings=findings, counts=text, summary=summary)


def data_uri(png: Path) -> str:
    """A picture as a data URI, to embed in the page."""
    return "data:image/png;base64," + base64.b64encode(png.read_bytes()).decode()
