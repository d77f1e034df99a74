"""Tables and figures across groups of runs, written in every format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pretrain_bench.reports.analysis import published
from pretrain_bench.reports.analysis.frame import ACROSS_RATIOS, GROUP, ROW, Loaded, class_metric
from pretrain_bench.reports.analysis.overview import (
    AcrossTasks,
    across_tasks,
    by_ratio,
    cost,
    effects,
    families,
    methods_as_published,
    published_beside,
    same_or_other,
    table_one,
    variances,
    with_source,
)
from pretrain_bench.reports.figures.plots import (
    SYNTHETIC_MARK,
    Drawing,
    class_heat_map,
    cost_against_gain,
    gain_distribution,
    rank_diagram,
    ratio_curves,
    same_and_other,
    variance_split,
)
from pretrain_bench.reports.page import interactive
from pretrain_bench.reports.page.interactive import Figure
from pretrain_bench.reports.tables.formats import section, write_data, write_table
from pretrain_bench.reports.tables.tables import UNIT, by_row, headline

if TYPE_CHECKING:
    import pandas as pd


class Across(NamedTuple):
    """Files by name, Markdown sections, and what the page shows."""

    files: dict[str, Path]
    sections: list[str]
    tables: list[tuple[str, pd.DataFrame]]
    pictures: list[tuple[str, Drawing, Figure | None]]
    effects: list[tuple[str, pd.DataFrame]]


def write(loaded: Loaded, out: Path, with_published: bool, draw: Callable[[Drawing], None]) -> Across:
    """Everything that spans groups; real and synthetic runs are kept apart. Figures are handed to `draw`."""
    result = Across({}, [], [], [], [])
    runs = loaded.runs
    if not len(runs):
        return result
    for synthetic, part in runs.groupby("synthetic"):
        mark = f"{SYNTHETIC_MARK}: " if synthetic else ""
        stem = "synthetic-" if synthetic else ""
        result.files[f"{stem}runs"] = _write_runs(part, out / f"{stem}runs.csv")
        found = effects(part, loaded.lost)
        result.files[f"{stem}effects"] = write_data(found, out / f"{stem}effects")
        result.effects.append((f"{mark}Gains over scratch at a glance", found))
        overview = table_one(found, with_published)
        if len(overview):
            title = (
                f"{mark}All labels: what each task is judged by (per cent), ± half the 95 % interval, in brackets the "
                "difference to scratch with its interval and what it shows, n pre-training seeds"
            )
            _add(result, out, f"{stem}table1", title, overview, published.PROTOCOL)
        for number, family in enumerate(families(found), 1):
            titled, table = f"{mark}Label ratios: {family.title}", by_ratio(family, with_published)
            _add(result, out, f"{stem}ratios{number}", titled, table, published.PROTOCOL_OF_RATIOS)
        over_tasks = across_tasks(part, loaded.lost)
        for number, (title, over) in enumerate(over_tasks.items(), 1):
            _add(result, out, f"{stem}tasks{number}", f"{mark}{title}", over.table)
        for name, title, table in (
            ("datasets", "Pre-trained on the task's dataset, or on another", same_or_other(found)),
            ("cost", "What it cost", cost(part)),
        ):
            if len(table):
                _add(result, out, f"{stem}{name}", f"{mark}{title}", table)
        _draw(
            part,
            found,
            over_tasks,
            loaded,
            out,
            stem,
            f"{SYNTHETIC_MARK}\n" if synthetic else "",
            with_published,
            result,
            draw,
        )
    return result


def _write_runs(runs: pd.DataFrame, path: Path) -> Path:
    """Every run with its seeds, outcome, scores of all checkpoints from 0 to 1, and what it and its pre-training used."""
    keys = runs["pretrain_keys"].str.join(" ")
    plain = runs.drop(columns=["pretrain_stages", "pretrain_notes"]).assign(pretrain_keys=keys)
    plain.sort_values([*GROUP, "row", "pretrain_seed", "finetune_seed"]).to_csv(path, index=False)
    return path


def _add(result: Across, out: Path, name: str, title: str, table: pd.DataFrame, protocol: str = "") -> None:
    """One table as files, and for the page; `protocol` is that of the paper's numbers, named where the table has some."""
    if protocol and "[paper" in table.to_string():
        title += f"; [paper]: {protocol}"
    result.files[name] = write_table(table, out / name, title)
    result.sections.append(section(title, table))
    result.tables.append((title, table))


def _draw(
    runs: pd.DataFrame,
    found: pd.DataFrame,
    over_tasks: dict[str, AcrossTasks],
    loaded: Loaded,
    out: Path,
    stem: str,
    mark: str,
    with_published: bool,
    result: Across,
    draw: Callable[[Drawing], None],
) -> None:
    def keep(
        figure_of: Callable[..., Any],
        *arguments: Any,
        name: str,
        title: str,
        data: pd.DataFrame,
        figure: Figure | None = None,
    ) -> None:
        drawing = Drawing(figure_of, arguments, out / f"figure-{stem}{name}")
        data.to_csv(out / f"figure-{stem}{name}.csv", index=False)
        result.files[f"figure-{stem}{name}"] = drawing.png
        draw(drawing)
        result.pictures.append((f"{mark.strip()}: {title}" if mark else title, drawing, figure))

    for number, family in enumerate(families(found), 1):
        group = family.found[family.found["label_percent"].notna()]
        if group["label_percent"].nunique() < 2:
            continue  # limited points and boxes have a table and no axis
        of_family = runs[(runs[ACROSS_RATIOS] == list(family.described.values())).all(axis=1)]
        overlays = {}
        if with_published or not family.described["synthetic"]:
            overlays = published_beside(group, partial(published.ratio_curve, str(family.described["task"])))
        keep(
            ratio_curves, of_family, group, mark + family.title, overlays,
            name=f"ratios{number}", title=f"Label ratios: {family.title}", data=group,
            figure=interactive.ratio_curves(of_family, group, overlays),
        )  # fmt: skip
    known_gains = found[found["gain"].notna()].groupby(["budget", "profile"])
    for number, (names, part) in enumerate(known_gains, 1):
        # One budget to a figure, whose name has a number where there are several.
        which, under = ("", "") if known_gains.ngroups == 1 else (number, f", budget {names[0]}, profile {names[1]}")
        keep(
            gain_distribution, part, f"{mark}Gains over tasks and ratios{under}",
            name=f"gains{which}", title=f"Gains over scratch{under}", data=part, figure=interactive.gains(part),
        )  # fmt: skip
        known, title = (
            with_source(part[part["gain"].notna()]),
            f"Pre-trained on the task's dataset, or on another{under}",
        )
        if known["pre-trained on"].nunique() > 1:
            keep(same_and_other, known, mark + title, name=f"datasets{which}", title=title, data=known)
        priced = with_hours(part, runs[(runs[["budget", "profile"]] == list(names)).all(axis=1)])
        keep(
            cost_against_gain, priced, f"{mark}Cost against gain{under}",
            name=f"cost{which}", title=f"Cost against gain{under}", data=priced, figure=interactive.cost(priced),
        )  # fmt: skip
    for number, (title, over) in enumerate(over_tasks.items(), 1):
        if over.ranks is not None and over.ranks.critical_difference is not None:
            keep(
                rank_diagram, over.methods, over.ranks, mark + title,
                name=f"ranks{number}", title=f"Ranks: {title}", data=over.table,
            )  # fmt: skip
    spread = variances(runs, loaded.lost)
    if len(spread) and (spread["missing"] == 0).any():
        title = "Where the spread comes from"
        keep(variance_split, spread, mark + title, name="variance", title="Variance by seed", data=spread)
    groups = list(runs.groupby(GROUP, sort=True, dropna=False))
    alike = Counter(_described(names) for names, _ in groups)
    for number, (names, group) in enumerate(groups, 1):
        described = dict(zip(GROUP, names, strict=True))
        if described["label_ratio"] != "100%":
            continue
        table = _class_table(group, loaded)
        if table is not None:
            own = len(table)
            if with_published or not described["synthetic"]:
                table = _with_published_classes(table, group)
            title = _described(names)
            if alike[title] > 1:  # another recipe, or other code
                title += f", protocol #{described['protocol']}"
            if len(table) > own:
                title += f"; [paper]: {published.PROTOCOL_OF_CLASSES}"
            data = table.reset_index(names="method")
            name = f"classes{number}"
            metric = str(group["metric"].iloc[0])
            titled = f"{class_metric(metric)} per class: {title}"
            keep(class_heat_map, table, metric, mark + title, name=name, title=titled, data=data)


def _described(names: tuple[object, ...]) -> str:
    """A group of runs in a few words."""
    named = dict(zip(GROUP, names, strict=True))
    budget = (
        named["budget"] if named["profile"] == named["budget"] else f"{named['budget']}, profile {named['profile']}"
    )
    return f"{named['task']} on {named['dataset']}, {named['label_ratio']}, budget {budget}"


def with_hours(found: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Effects with `hours` of one pre-training of that row under that budget and profile, as the cost table has them, and
    `hours_of`: GPU-hours where every pre-training used one, else CPU-hours."""
    which = ["budget", "profile", "row"]
    trained = runs[runs["outcome"] == "ok"].drop_duplicates([*which, "pretrain_keys"])
    spent = trained[trained["pretrain_cpu_seconds"] > 0]
    kind = "gpu" if len(spent) and (spent["pretrain_gpu_seconds"] > 0).all() else "cpu"
    hours = (trained.groupby(which)[f"pretrain_{kind}_seconds"].mean() / 3600).rename("hours")
    return found.merge(hours, left_on=which, right_index=True, how="left").assign(hours_of=f"{kind.upper()}-hours")


def _class_table(group: pd.DataFrame, loaded: Loaded) -> pd.DataFrame | None:
    """Mean value of each class in per cent, methods by classes; None where no run ended well."""
    import pandas as pd

    checkpoint = headline(group)
    rows: dict[str, list[float]] = {}
    classes: tuple[str, ...] = ()
    for name, runs in by_row(group[["row", *ROW, UNIT, "outcome", "key"]]).items():
        mine = runs[runs["outcome"] == "ok"]
        if not len(mine):
            continue
        spec = loaded.specs[mine["key"].iloc[0]]
        data = spec.data
        assert data is not None
        classes = data.classes
        values = np.array(
            [
                [loaded.records[key].metrics.get(f"{spec.class_metric}/{i}_{checkpoint}") for i in range(len(classes))]
                for key in mine["key"]
            ],
            dtype=float,
        )
        # Over fine-tunings of one pre-training, then over pre-trainings, as all means here.
        seeds = pd.DataFrame(100 * values).groupby(mine[UNIT].to_numpy()).mean()
        rows[name] = seeds.mean().tolist()
    if not rows or all(np.isnan(v) for row in rows.values() for v in row):
        return None
    return pd.DataFrame(rows, index=list(classes)).T


def _with_published_classes(table: pd.DataFrame, group: pd.DataFrame) -> pd.DataFrame:
    """The same with the paper's rows of the methods that it has and that were pre-trained as the paper's."""
    import pandas as pd

    known = published.per_class(str(group["task"].iloc[0]))
    methods = [m for m in methods_as_published(group) if m in known]
    rows = {f"{m} [paper]": [known[m].get(c, np.nan) for c in table.columns] for m in methods}
    return pd.concat([table, pd.DataFrame(rows, index=table.columns).T]) if rows else table
