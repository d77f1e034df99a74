"""Tables and figures across groups of runs: effects, Table I, label ratios, tasks, cost, variance, classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from pretrain_bench.benchmarks.specs.probes import FINETUNE
from pretrain_bench.reports.analysis import published
from pretrain_bench.reports.analysis.answers import Answer, answers, answers_over_tasks
from pretrain_bench.reports.analysis.budgets import budget_words
from pretrain_bench.reports.analysis.claims import claims
from pretrain_bench.reports.analysis.class_scores import class_scores, with_published_classes
from pretrain_bench.reports.analysis.columns import ACROSS_RATIOS, GROUP, PLOTTED
from pretrain_bench.reports.analysis.cost import with_hours
from pretrain_bench.reports.analysis.curves import Curve
from pretrain_bench.reports.analysis.effects import effects
from pretrain_bench.reports.analysis.families import Family, families
from pretrain_bench.reports.analysis.frame import Loaded
from pretrain_bench.reports.analysis.probe_prediction import Prediction, predictions
from pretrain_bench.reports.analysis.published_protocol import BEST, families_as_published, methods_as_published
from pretrain_bench.reports.analysis.ranks import UNDER, OverTasks, heads_over_tasks, over_tasks
from pretrain_bench.reports.analysis.scores import class_metric
from pretrain_bench.reports.analysis.sources import SOURCE, with_source
from pretrain_bench.reports.analysis.titles import (
    contaminated_rows,
    figure_mark,
    parts_of_test_splits,
    protocol_mark,
    short_group_title,
    text_mark,
    with_part,
)
from pretrain_bench.reports.analysis.variance import variances
from pretrain_bench.reports.export.output_folder import FIGURES, TABLES
from pretrain_bench.reports.figures.class_heat_map import draw_class_heat_map
from pretrain_bench.reports.figures.cost import draw_cost_against_gain
from pretrain_bench.reports.figures.forest import draw_forest, forest_rows
from pretrain_bench.reports.figures.gains import draw_gains
from pretrain_bench.reports.figures.probe_prediction import draw_prediction, prediction_words
from pretrain_bench.reports.figures.ranks import draw_ranks
from pretrain_bench.reports.figures.ratio_curves import draw_ratio_curves
from pretrain_bench.reports.figures.sources import draw_source_gains
from pretrain_bench.reports.figures.style import Overlays
from pretrain_bench.reports.figures.variance import draw_variances
from pretrain_bench.reports.page import plotly_figures
from pretrain_bench.reports.page.html import PagePicture, PageTable
from pretrain_bench.reports.page.plotly_figures import Figure
from pretrain_bench.reports.report_files import ReportFiles
from pretrain_bench.reports.tables.claims_table import CLAIMS_TITLE, claims_table
from pretrain_bench.reports.tables.cost_table import cost_table
from pretrain_bench.reports.tables.effect_cells import EffectColumn
from pretrain_bench.reports.tables.formats import write_csv, write_data
from pretrain_bench.reports.tables.paper_table import CELLS_EXPLAINED
from pretrain_bench.reports.tables.probe_table import PROBE_TITLE, probe_table
from pretrain_bench.reports.tables.published_table import published_table
from pretrain_bench.reports.tables.ratio_table import ratio_columns, ratio_table
from pretrain_bench.reports.tables.source_table import source_table
from pretrain_bench.reports.tables.table_one import table_one, table_one_columns
from pretrain_bench.reports.tables.task_table import task_table

if TYPE_CHECKING:
    import pandas as pd

TABLE_ONE_TITLE = f"All labels: headline metric of each task (per cent){CELLS_EXPLAINED}"
EVERYTHING: Mapping[str, str] = {}
"""Subject of a table or figure over all tasks."""

PUBLISHED_TITLE = "Published numbers without a comparable row, and the differences in protocol"


class Shown(NamedTuple):
    """How to show a table: the paper's protocol, if its numbers are in it; what the page filters it by; its columns in a
    paper; and what tells its heading on the page from others."""

    protocol: str = ""
    about: Mapping[str, str] = EVERYTHING
    columns: Sequence[EffectColumn] = ()
    of: str = ""


EVERYTHING_SHOWN = Shown()


class OnPage(NamedTuple):
    """How the page shows a figure: a function that makes its interactive version, what the page filters it by, and whether it is
    as wide as the page."""

    interactive: Callable[[], Figure] | None = None
    about: Mapping[str, str] = EVERYTHING
    wide: bool = False


PICTURE_ALONE = OnPage()


class AcrossGroups(NamedTuple):
    """Content of the page across groups: tables, pictures and effects, by title; the answers, each with the mark of synthetic
    data; and in Markdown the table of label ratios of each family, by its values of ACROSS_RATIOS."""

    tables: list[PageTable]
    pictures: list[PagePicture]
    effects: list[tuple[str, pd.DataFrame]]
    answers: list[tuple[str, Answer]]
    ratios: dict[tuple[Any, ...], str]


def write_across_groups(
    loaded: Loaded, curves: Sequence[Curve], files: ReportFiles, with_published: bool, page: bool
) -> AcrossGroups:
    """Write everything that spans groups; real and synthetic runs are kept apart. `curves` are the validation curves of all
    runs. Only a page needs interactive figures."""
    result = AcrossGroups([], [], [], [], {})
    for _, runs in loaded.runs.groupby("synthetic") if len(loaded.runs) else []:
        writer = _AcrossGroupsWriter(loaded, runs, curves, files, with_published, page)
        writer.write_tables()
        writer.write_figures()
        own = [*answers(writer.effects), *answers_over_tasks(writer.over_tasks)]
        result.answers.extend((writer.mark, answer) for answer in own)
        result.effects.append((f"{writer.mark}Gains over scratch at a glance", writer.effects))
        result.tables.extend(writer.tables)
        result.pictures.extend(writer.pictures)
        result.ratios.update(writer.ratios)
    return result


class _AcrossGroupsWriter:
    """Writes the tables and figures of the real or of the synthetic runs of a store."""

    def __init__(
        self,
        loaded: Loaded,
        runs: pd.DataFrame,
        curves: Sequence[Curve],
        files: ReportFiles,
        with_published: bool,
        page: bool,
    ) -> None:
        self.synthetic = bool(runs["synthetic"].iloc[0])
        self.loaded, self.runs, self.files, self.page = loaded, runs, files, page
        self.mark, self.figure_mark = text_mark(self.synthetic), figure_mark(self.synthetic)
        self.prefix = "synthetic-" if self.synthetic else ""
        self.list_published = with_published or not self.synthetic
        self.effects = effects(runs, loaded.failed_pretrainings)
        self.families = families(self.effects)
        # The paper's numbers are of its best checkpoint, and appear beside no other.
        self.best = effects(families_as_published(runs), loaded.failed_pretrainings, BEST)
        self.best_families = {tuple(family.key.values()): family for family in families(self.best)}
        self.over_tasks = over_tasks(runs, loaded.failed_pretrainings)
        self.claims = claims(runs, curves, loaded.failed_pretrainings)
        self.tables: list[PageTable] = []
        self.pictures: list[PagePicture] = []
        self.ratios: dict[tuple[Any, ...], str] = {}

    def write_tables(self) -> None:
        """Write the runs, the effects, and every table of them."""
        out = self.files.out
        runs = self.files.files[f"{self.prefix}runs"] = out / f"{self.prefix}runs.csv"
        write_csv(_run_rows(self.runs), runs)
        self.files.files[f"{self.prefix}effects"] = write_data(self.effects, out / f"{self.prefix}effects")
        first = table_one(self.effects, self.best)
        if len(first):
            all_labels = self.runs[self.runs["label_ratio"] == "100%"]
            title = f"{TABLE_ONE_TITLE}; {budget_words(all_labels)}"
            columns = table_one_columns(self.effects, self.best)
            self._add_table("table1", title, first, Shown(published.PROTOCOL, columns=columns))
        for number, family in enumerate(self.families, 1):
            table = ratio_table(family, self._at_best(family))
            title = f"Label ratios: {family.title}; {budget_words(self._runs_of(family))}"
            columns = ratio_columns(family, self._at_best(family))
            shown = Shown(published.PROTOCOL_OF_RATIOS, about_family(family), columns, family.head)
            self.ratios[tuple(family.key.values())] = self._add_table(f"ratios{number}", title, table, shown)
        for number, (over, head) in enumerate(zip(self.over_tasks, heads_over_tasks(self.over_tasks), strict=True), 1):
            under = self.runs[(self.runs[UNDER] == [over.protocol, over.budget, over.profile]).all(axis=1)]
            title = f"{over.title}; {budget_words(under)}{parts_of_test_splits(under)}{contaminated_rows(under)}"
            self._add_table(f"tasks{number}", title, task_table(over), Shown(of=head))
        for name, title, table in (
            ("claims", CLAIMS_TITLE, claims_table(self.claims)),
            ("probes", PROBE_TITLE, probe_table(self.effects, self.runs)),
            ("published", PUBLISHED_TITLE, published_table(self.effects) if self.list_published else self.effects[:0]),
            ("datasets", "Pre-trained on the task's dataset, or on another", source_table(self.effects)),
            ("cost", "What it cost", cost_table(self.runs)),
        ):
            if len(table):
                marks = parts_of_test_splits(self.runs) + contaminated_rows(self.runs)
                parts = marks if name == "datasets" else ""
                runs_of = self.runs[self.runs["protocol"] != FINETUNE] if name == "probes" else self.runs
                equal = "" if name in ("claims", "published") else f"; {budget_words(runs_of)}{parts}"
                self._add_table(name, f"{title}{equal}", table)

    def write_figures(self) -> None:
        """Write every figure across groups."""
        if self.effects["gain"].notna().any():
            known = forest_rows(self.effects)
            title = "Difference from scratch, with its 95 % interval"
            draw = partial(draw_forest, known, f"{self.figure_mark}{title}")
            self._add_figure("forest", title, draw, known, OnPage(partial(plotly_figures.forest, known), wide=True))
        for number, family in enumerate(self.families, 1):
            self._draw_family(number, family)
        known_gains = self.effects[self.effects["gain"].notna()].groupby(UNDER)
        for number, ((protocol, budget, profile), gains) in enumerate(known_gains, 1):
            # A figure shows one protocol and budget; its name has a number where there are several.
            several = known_gains.ngroups > 1
            under = (f", budget {budget}, profile {profile}" if several else "") + protocol_mark(protocol)
            self._draw_gains(str(number) if several else "", under, gains)
        for number, over in enumerate(self.over_tasks, 1):
            self._draw_ranks(number, over)
        for number, prediction in enumerate(predictions(self.runs), 1):
            self._draw_prediction(number, prediction)
        spread = variances(self.runs, self.loaded.failed_pretrainings)
        if len(spread) and (spread["missing"] == 0).any():
            draw = partial(draw_variances, spread, f"{self.figure_mark}Sources of the spread")
            self._add_figure("variance", "Variance by seed", draw, spread)
        for number, title, group in self._groups():
            if group["label_ratio"].iloc[0] == "100%":
                self._draw_classes(number, title, group)

    def _add_table(self, name: str, title: str, table: pd.DataFrame, shown: Shown = EVERYTHING_SHOWN) -> str:
        """Write a table and put it on the page; returns its section in Markdown."""
        title = f"{self.mark}{title}"
        if shown.protocol and "[paper" in table.to_string():
            title += f"; [paper]: {shown.protocol}"
        self.tables.append(PageTable(name, self.synthetic, title, table, shown.about, shown.of))
        name = f"{self.prefix}{name}"
        return self.files.add_table(name, f"{TABLES}/{name}", title, table, shown.columns)

    def _add_figure(
        self, name: str, title: str, draw: Callable[[], Any], data: pd.DataFrame, shown: OnPage = PICTURE_ALONE
    ) -> None:
        png = self.files.add_figure(f"figure-{self.prefix}{name}", f"{FIGURES}/{self.prefix}{name}", draw, data)
        interactive = shown.interactive() if self.page and shown.interactive else None
        self.pictures.append(PagePicture(f"{self.mark}{title}", png, interactive, shown.about, shown.wide))

    def _draw_family(self, number: int, family: Family) -> None:
        group = family.effects[family.effects["label_percent"].notna()]
        if group["label_percent"].nunique() < 2:
            return  # limited points and boxes have a table, but no axis
        self._draw_ratios(f"ratios{number}", family._replace(effects=group), {})
        best = self._at_best(family)
        if best is None:
            return
        beside = best.effects[best.effects["label_percent"].notna()]
        methods = methods_as_published(beside)
        overlays = published.published_curves(methods, partial(published.ratio_curve, str(family.key["task"])))
        if overlays:
            title = f"{best.title}; paper: {published.PROTOCOL_OF_RATIOS}"
            self._draw_ratios(f"ratios{number}-best", best._replace(title=title, effects=beside), overlays)

    def _draw_ratios(self, name: str, family: Family, overlays: Overlays) -> None:
        """Draw the effects of a family, all at shares of the scenes."""
        runs, group = self._runs_of(family), family.effects
        draw = partial(draw_ratio_curves, runs[PLOTTED], group, f"{self.figure_mark}{family.title}", overlays)
        shown = OnPage(partial(plotly_figures.ratio_curves, runs, group, overlays), about_family(family))
        self._add_figure(name, f"Label ratios: {family.title}", draw, group, shown)

    def _runs_of(self, family: Family) -> pd.DataFrame:
        return self.runs[(self.runs[ACROSS_RATIOS] == list(family.key.values())).all(axis=1)]

    def _at_best(self, family: Family) -> Family | None:
        """The same family at the checkpoint `best`; None if no row of it follows the paper's protocol."""
        return self.best_families.get(tuple(family.key.values()))

    def _draw_gains(self, suffix: str, under: str, gains: pd.DataFrame) -> None:
        """Draw figures of known gains under one budget: by method, by source of the data, and against cost. `under` names the
        budget in titles."""
        draw = partial(draw_gains, gains, f"{self.figure_mark}Gains over tasks and ratios{under}")
        shown = OnPage(partial(plotly_figures.gains, gains))
        self._add_figure(f"gains{suffix}", f"Gains over scratch{under}", draw, gains, shown)
        sources = with_source(gains)
        if sources[SOURCE].nunique() > 1:
            title = f"Pre-trained on the task's dataset, or on another{under}"
            draw = partial(draw_source_gains, sources, f"{self.figure_mark}{title}")
            self._add_figure(f"datasets{suffix}", title, draw, sources)
        runs = self.runs[(self.runs[UNDER] == gains[UNDER].iloc[0].tolist()).all(axis=1)]
        priced, title = with_hours(gains, runs), f"Cost against gain{under}"
        if not len(priced):
            return
        draw = partial(draw_cost_against_gain, priced, f"{self.figure_mark}{title}")
        self._add_figure(f"cost{suffix}", title, draw, priced, OnPage(partial(plotly_figures.cost, priced)))

    def _draw_prediction(self, number: int, prediction: Prediction) -> None:
        if len(prediction.points):
            under = f"budget {prediction.budget}, profile {prediction.profile}"
            title = f"Does a {prediction.protocol} probe predict the fine-tuned gain? {prediction_words(prediction)}; {under}"
            draw = partial(draw_prediction, prediction, f"{self.figure_mark}{title}")
            self._add_figure(f"prediction{number}", title, draw, prediction.points)

    def _draw_ranks(self, number: int, over: OverTasks) -> None:
        if over.ranks is not None and over.ranks.critical_difference is not None:
            draw = partial(draw_ranks, over.ranked, over.ranks, f"{self.figure_mark}{over.title}")
            self._add_figure(f"ranks{number}", f"Ranks: {over.title}", draw, task_table(over))

    def _groups(self) -> Iterator[tuple[int, str, pd.DataFrame]]:
        """Every group with its number and a unique title."""
        groups = list(self.runs.groupby(GROUP, sort=True, dropna=False))
        keys: list[Mapping[str, Any]] = [dict(zip(GROUP, names, strict=True)) for names, _ in groups]
        titles = [short_group_title(key) for key in keys]
        counts = Counter(titles)
        for number, (key, title, (_, group)) in enumerate(zip(keys, titles, groups, strict=True), 1):
            # Groups with equal titles differ in recipe or code.
            title = f"{title}, conditions #{key['conditions']}" if counts[title] > 1 else title
            yield number, with_part(title, group), group

    def _draw_classes(self, number: int, title: str, group: pd.DataFrame) -> None:
        scores = class_scores(group, self.loaded)
        if scores is not None:
            self._draw_heat_map(f"classes{number}", title, group, scores)
        best = class_scores(group, self.loaded, BEST) if methods_as_published(group) else None
        if best is not None and len(both := with_published_classes(best, group)) > len(best):
            title += f", best checkpoint; [paper]: {published.PROTOCOL_OF_CLASSES}"
            self._draw_heat_map(f"classes{number}-best", title, group, both)

    def _draw_heat_map(self, name: str, title: str, group: pd.DataFrame, scores: pd.DataFrame) -> None:
        metric = str(group["metric"].iloc[0])
        draw = partial(draw_class_heat_map, scores, metric, f"{self.figure_mark}{title}")
        self._add_figure(name, f"{class_metric(metric)} per class: {title}", draw, scores.reset_index(names="method"))


def about_family(family: Family) -> dict[str, str]:
    """What the page filters a table or figure of one family by."""
    return {"task": str(family.key["task"]), "protocol": str(family.key["protocol"])}


def _run_rows(runs: pd.DataFrame) -> pd.DataFrame:
    """Every run with its seeds, outcome, scores of all checkpoints from 0 to 1, and the cost of it and of its pre-training."""
    keys = runs["pretrain_keys"].str.join(" ")
    rows = runs.drop(columns=["pretrain_stages", "pretrain_notes"]).assign(pretrain_keys=keys)
    return rows.sort_values([*GROUP, "row", "pretrain_seed", "finetune_seed"])
