"""The whole report: reads a store, writes a folder."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pretrain_bench.benchmarks.support.errors import cannot_write
from pretrain_bench.harness.contract.events import EVENTS_FILE, Eval, read_events
from pretrain_bench.harness.contract.records import Record
from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.analysis import published as papers
from pretrain_bench.reports.analysis import summary as across
from pretrain_bench.reports.analysis.frame import GROUP, METRIC_NAMES, ROW, Curve, Loaded, load
from pretrain_bench.reports.analysis.overview import published_beside, ratio_order, steps_to_reach
from pretrain_bench.reports.export.folder import OF_A_REPORT, earlier_files_removed, write_whole
from pretrain_bench.reports.figures.plots import (
    SYNTHETIC_MARK,
    Drawing,
    FigurePool,
    Overlays,
    by_method,
    figure_pool,
    validation_curves,
)
from pretrain_bench.reports.page import interactive
from pretrain_bench.reports.page.page import Page, PageGroup, PagePicture, render_page
from pretrain_bench.reports.page.run_details import Details
from pretrain_bench.reports.tables.formats import plain, section, write_table
from pretrain_bench.reports.tables.tables import BASELINE, TO_SEE, UNIT, by_row, compare, headline, lost_rows, row_names

if TYPE_CHECKING:
    import pandas as pd


Curves = dict[str, list[Curve]]


NO_RUNS = "There are no fine-tuning runs yet. `bench run` makes some."
NONE_ASKED_FOR = (
    "There are fine-tuning runs, none of them of this suite: its budget, profile, methods, tasks, ratios, seeds."
)
NOTES = (
    "Per cent of what each task is judged by (mIoU on voxels or points, AP50 of instances, mAP50 of boxes), with a 95 % "
    "interval where n allows one; n counts pre-training seeds.\n"
    "selected: chosen on held-out training scenes. best: selected on the test split, as papers do.\n"
)
MORE_NOTES = (
    f"{TO_SEE}: so many seeds of each method find a true difference of 1 point in 4 studies of 5, at the spread seen.\n"
)


class BuiltReport(NamedTuple):
    """The report's files by kind, and its tables in short, for a terminal."""

    files: dict[str, Path]
    text: str


def build_report(
    store: Store,
    out: Path,
    *,
    published: bool = False,
    keys: set[str] | None = None,
    page: bool = True,
    scene_pictures: bool = True,
) -> BuiltReport:
    """Write tables, figures and index.html to `out`. Raises EnvironmentCannot where that cannot be written.

    `published` puts the paper's numbers beside synthetic results too; `keys` are the runs to report, None for all;
    `scene_pictures` puts pictures of predictions into the page.
    """
    store.check()
    with figure_pool() as aside:
        loaded = load(store, keys)
        try:
            out.mkdir(parents=True, exist_ok=True)
            with earlier_files_removed(out, OF_A_REPORT):
                return _build(store, loaded, out, published, page, scene_pictures, aside, keys is None)
        except OSError as error:
            raise cannot_write(out, error, "report (--out names another folder)") from error


def _build(
    store: Store,
    loaded: Loaded,
    out: Path,
    with_published: bool,
    with_page: bool,
    scene_pictures: bool,
    aside: FigurePool,
    all_runs: bool,
) -> BuiltReport:
    runs = loaded.runs
    files: dict[str, Path] = {}
    sections: list[str] = []
    shown: list[str] = []
    groups: list[PageGroup] = []
    details = Details(store, loaded, scene_pictures)
    frames: list[pd.DataFrame] = []
    parts = sorted(runs.groupby(GROUP), key=lambda g: _order(g[0])) if len(runs) else []
    alike = Counter(group_title(dict(zip(GROUP, names, strict=True))) for names, _ in parts)
    for names, group in parts:
        described: dict[str, Any] = dict(zip(GROUP, names, strict=True))
        title = group_title(described)
        if alike[title] > 1:  # another recipe, or other code
            title += f", protocol #{described['protocol']}"
        name = _group_id(described)
        frame = compare(group, lost=loaded.lost)
        mark = f"{SYNTHETIC_MARK}: " if described["synthetic"] else ""
        kinds = [n for n, (method, *_) in row_names(group).items() if method == BASELINE]
        no_base = f"no differences, since there are {len(kinds)} kinds of scratch: {', '.join(kinds)}" * (
            len(kinds) > 1
        )
        judged = f"{mark}{title}; {no_base or f'differences and verdicts of {headline(group)}'}"
        files[f"group{len(groups) + 1}"] = write_table(frame, out / f"table-{name}", judged)
        sections.append(section(judged, frame))
        short = frame[["method", headline(group), "n", "failed", "to scratch", "verdict"]]
        shown.append(section("; ".join(part for part in (f"{mark}{title}", no_base) if part), short))
        frames.append(frame.assign(**described, judged_by=headline(group)))
        figure_title = f"{SYNTHETIC_MARK}\n{title}" if described["synthetic"] else title
        stem = out / f"scores-{name}"
        metric = str(group["metric"].iloc[0])
        found = _curves(store, group, metric)
        never_run = lost_rows(group, loaded.lost)
        scores = Drawing(by_method, (group, figure_title, {n: len(them) for n, them in never_run.items()}), stem)
        overlays = _published_curves(group) if with_published or not described["synthetic"] else {}
        curves = Drawing(validation_curves, (found, metric, figure_title, overlays), out / f"curves-{name}")
        files |= {f"figure{len(groups) + 1}": scores.png, f"curves{len(groups) + 1}": curves.png}
        aside.draw(scores)
        aside.draw(curves)
        _scores(group).to_csv(scores.stem.with_suffix(".csv"), index=False)
        _points(found).to_csv(curves.stem.with_suffix(".csv"), index=False)
        good = set(group.loc[group["outcome"] == "ok", "key"])
        ended = {n: [curve for curve in them if curve.key in good] for n, them in found.items()}
        tuned = by_row(group[["row", *ROW, UNIT, "outcome"]])
        without = {n: len(set(mine[UNIT]) - set(mine.loc[mine["outcome"] == "ok", UNIT])) for n, mine in tuned.items()}
        for n, them in never_run.items():
            without[n] = without.get(n, 0) + len(them)
        reach = steps_to_reach({n: them for n, them in ended.items() if them}, without)
        if len(reach):
            of_curves = f"{mark}Validation curves, {title}"
            sections.append(section(of_curves, reach))
            files[f"reach{len(groups) + 1}"] = write_table(reach, out / f"reach-{name}", of_curves)
        if with_page:
            by_key = {curve.key: (curve.steps, curve.scores) for them in found.values() for curve in them}
            details.add(group, len(groups), title, by_key)
        judged_by = f"{headline(group)} {METRIC_NAMES[metric]}" + f"; {no_base}" * bool(no_base)
        groups.append(
            PageGroup(
                name, title, bool(described["synthetic"]), judged_by, frame, scores.png, curves.png,
                interactive.validation_curves(found, metric, overlays) if with_page else None, reach,
            )
        )  # fmt: skip
    failures = loaded.failed_pretraining
    more = across.write(loaded, out, with_published, aside.draw)
    files |= more.files
    sections += more.sections
    if with_page:
        for record in failures:
            details.add_failed_pretraining(record)
    any_tuned = any(r.kind == "finetune" for r in loaded.records.values())
    nothing = NONE_ASKED_FOR if any_tuned and not all_runs else NO_RUNS
    failed = [f"{_failure_line(r)}\n" for r in failures]
    text, short_text = ("\n".join(part + failed or [f"{nothing}\n"]) for part in (sections, shown))
    files["table"] = write_whole(out / "table.md", f"{text}\n{NOTES}{MORE_NOTES}".encode())
    files["csv"] = write_whole(out / "table.csv", _csv(frames))
    aside.finish()
    if with_page:
        page = Page(
            groups,
            [_failure(r) for r in failures],
            any(g.synthetic for g in groups),
            more.tables,
            [PagePicture(title, drawing.png, figure) for title, drawing, figure in more.pictures],
            [
                (title, found.assign(group=[_group_id(r) for r in found.to_dict("records")]))
                for title, found in more.effects
            ],
            details.as_json(),
            nothing.replace("`", ""),
        )
        files["page"] = write_whole(out / "index.html", render_page(page).encode())
    return BuiltReport(files, f"{short_text}\n{NOTES}")


def _group_id(described: Mapping[Any, Any]) -> str:
    """Name of a group in file names and links."""
    marks = ("synthetic" if described["synthetic"] else "", *(str(described[k]) for k in GROUP if k != "synthetic"))
    return slug(" ".join(marks))


def _order(names: tuple[object, ...]) -> tuple[object, ...]:
    """Groups in the order of their names, and of their ratios as numbers."""
    place = GROUP.index("label_ratio")
    return (*map(str, names[:place]), ratio_order(str(names[place])), *map(str, names[place + 1 :]))


def _failure_line(record: Record) -> str:
    mark = f"**{SYNTHETIC_MARK}**: " if record.synthetic else ""
    text = f"{record.method}/{record.stage} {record.key}: {record.outcome.value}: {record.message}"
    return f"{mark}Pre-training failed: {plain(text)}"


def group_title(described: dict[str, Any]) -> str:
    """What a group of runs has in common, in words."""
    return (
        f"{described['task']} on {described['dataset']}, {described['label_ratio']} of the labels, "
        f"budget {described['budget']}, profile {described['profile']}"
    )


def slug(text: str) -> str:
    """Text as part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _csv(frames: list[pd.DataFrame]) -> bytes:
    import pandas as pd

    return (pd.concat(frames).to_csv(index=False) if frames else "").encode()


def _curves(store: Store, group: pd.DataFrame, metric: str) -> Curves:
    """Row name to the validation curves of its runs, from their events."""
    curves: Curves = {}
    for name, runs in by_row(group[["row", *ROW, UNIT, "key"]]).items():
        for method, key, seed in zip(runs["method"], runs["key"], runs[UNIT], strict=True):
            events = read_events(store.folder("finetune", key) / EVENTS_FILE)
            points = [(e.step, e.metrics.get(metric)) for e in events if isinstance(e, Eval) and e.split == "test"]
            known = [(step, score) for step, score in points if score is not None]
            if known:
                curves.setdefault(name, []).append(
                    Curve(method, key, seed, [p[0] for p in known], [p[1] for p in known])
                )
    return curves


def _published_curves(group: pd.DataFrame) -> Overlays:
    """The paper's validation curves of these methods on this task at this ratio."""
    first = group.iloc[0]
    return published_beside(group, lambda m: papers.validation_curve(first["task"], first["label_percent"], m))


def _scores(group: pd.DataFrame) -> pd.DataFrame:
    """What a figure of scores shows, in per cent, one row a run."""
    columns = ["row", *ROW[:2], "pretrain_seed", "finetune_seed", "outcome", "checkpoint", "key"]
    return group[columns].assign(score=100 * group[f"score_{headline(group)}"].where(group["outcome"] == "ok"))


def _points(curves: Curves) -> pd.DataFrame:
    """What a figure of validation curves shows, in per cent, one row a validation."""
    import pandas as pd

    rows = [
        (name, curve.method, curve.key, step, 100 * score)
        for name, runs in curves.items()
        for curve in runs
        for step, score in zip(curve.steps, curve.scores, strict=True)
    ]
    return pd.DataFrame(rows, columns=["row", "method", "key", "step", "score"])


def _failure(record: Record) -> dict[str, str]:
    return {
        "key": record.key,
        "method": record.method,
        "stage": record.stage,
        "outcome": record.outcome.value,
        "message": record.message,
        "data": "SYNTHETIC" if record.synthetic else "real" if record.dataset else "-",
    }
