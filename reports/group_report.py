"""The tables and figures of one group of comparable runs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.analysis import published
from pretrain_bench.reports.analysis.budgets import budget_words
from pretrain_bench.reports.analysis.columns import ACROSS_RATIOS, PLOTTED, ROW
from pretrain_bench.reports.analysis.convergence import pretrainings_without_run
from pretrain_bench.reports.analysis.curves import Curves, curve_points, read_curves
from pretrain_bench.reports.analysis.failed_pretraining import failed_by_row
from pretrain_bench.reports.analysis.frame import Loaded
from pretrain_bench.reports.analysis.published_protocol import methods_as_published
from pretrain_bench.reports.analysis.rows import baseline_rows, has_no_finetuning_seed, imported_rows
from pretrain_bench.reports.analysis.scores import METRIC_NAMES, headline_checkpoint
from pretrain_bench.reports.analysis.titles import contaminated_rows, figure_mark, group_id, text_mark
from pretrain_bench.reports.export.output_folder import GROUPS
from pretrain_bench.reports.figures.scores import draw_scores
from pretrain_bench.reports.figures.style import Overlays
from pretrain_bench.reports.figures.validation_curves import draw_validation_curves
from pretrain_bench.reports.page import plotly_figures
from pretrain_bench.reports.page.html import PageGroup
from pretrain_bench.reports.page.run_details import RunDetails
from pretrain_bench.reports.report_files import ReportFiles
from pretrain_bench.reports.tables.convergence_table import convergence_table
from pretrain_bench.reports.tables.cost_table import used_table
from pretrain_bench.reports.tables.formats import section
from pretrain_bench.reports.tables.group_table import group_table

if TYPE_CHECKING:
    import pandas as pd

ONE_SEED = "conditional on one fine-tuning seed"
USED_TITLE = "what each method used: mean of one pre-training + one fine-tuning (or one probe with its features)"


class Group(NamedTuple):
    """Comparable runs: their columns GROUP, a unique title, and their position in the report, from 0."""

    key: Mapping[str, Any]
    title: str
    place: int
    runs: pd.DataFrame

    @property
    def name(self) -> str:
        """The name in paths and links."""
        return group_id(self.key)

    @property
    def folder(self) -> str:
        """The folder of its files, below that of the report."""
        return f"{GROUPS}/{self.name}"

    @property
    def about(self) -> dict[str, str]:
        """What the page filters by."""
        return {
            "task": str(self.key["task"]),
            "ratio": str(self.key["label_ratio"]),
            "protocol": str(self.key["protocol"]),
        }

    @property
    def marked_title(self) -> str:
        """The title for tables, with the mark of synthetic data."""
        return f"{text_mark(self.key['synthetic'])}{self.title}"

    @property
    def figure_title(self) -> str:
        """The title for figures, with the mark of synthetic data."""
        return f"{figure_mark(self.key['synthetic'])}{self.title}"


class WrittenGroup(NamedTuple):
    """One group of a report: for the page, its values of ACROSS_RATIOS, as a short table for a terminal, as rows of the shared
    CSV, and its curves."""

    page: PageGroup
    family: tuple[Any, ...]
    summary: str
    rows: pd.DataFrame
    curves: Curves


class GroupWriter:
    """Writes groups to a report. `details` collects runs for the page, None without a page."""

    def __init__(self, store: Store, loaded: Loaded, files: ReportFiles, details: RunDetails | None) -> None:
        self._store, self._loaded, self._files, self._details = store, loaded, files, details

    def write(self, group: Group) -> WrittenGroup:
        """Write the table, figures and steps to reach scratch of one group."""
        runs, folder = group.runs, group.folder
        headline, metric = headline_checkpoint(runs), str(runs["metric"].iloc[0])
        table = group_table(runs, failed_pretrainings=self._loaded.failed_pretrainings)
        note = _note_without_differences(runs)
        equal = budget_words(runs) + f"; {ONE_SEED}" * one_finetuning_seed(runs) + contaminated_rows(runs)
        equal += _note_on_single_files(runs)
        title = f"{group.marked_title}; {note or f'differences and verdicts of {headline}'}; {equal}"
        self._files.add_table(f"{folder}/table", f"{folder}/table", title, table)
        used = used_table(runs)
        if len(used):
            self._files.add_table(f"{folder}/used", f"{folder}/used", f"{group.marked_title}; {USED_TITLE}", used)
        scores = self._add_scores(group)
        curves = read_curves(self._store, runs, metric)
        overlays = self._overlays(group)
        drawing = partial(draw_validation_curves, curves, metric, group.figure_title, overlays)
        picture = self._files.add_figure(f"{folder}/curves", f"{folder}/curves", drawing, curve_points(curves))
        convergence = self._add_convergence(group, curves)
        if self._details is not None:
            by_key = {curve.key: (curve.steps, curve.scores) for several in curves.values() for curve in several}
            self._details.add(runs, group.place, group.title, by_key)
        judged_by = f"{headline} {METRIC_NAMES[metric]}" + f"; {note}" * bool(note)
        on_page = self._details is not None
        interactive = plotly_figures.validation_curves(curves, metric, overlays) if on_page else None
        page = PageGroup(
            group.name, group.title, bool(group.key["synthetic"]), judged_by, table, scores, picture, interactive, convergence,
            equal, used, plotly_figures.scores(runs) if on_page else None, group.about,
        )  # fmt: skip
        short = table[["method", headline, "n", "failed", "vs. scratch", "verdict"]]
        summary = section("; ".join(part for part in (group.marked_title, note, equal) if part), short)
        family = tuple(runs[ACROSS_RATIOS].iloc[0])
        return WrittenGroup(page, family, summary, table.assign(**group.key, judged_by=headline), curves)

    def _add_scores(self, group: Group) -> Path:
        failed = failed_by_row(group.runs, self._loaded.failed_pretrainings)
        counts = {row: len(pretrainings) for row, pretrainings in failed.items()}
        draw = partial(draw_scores, group.runs[PLOTTED], group.figure_title, counts)
        return self._files.add_figure(f"{group.folder}/scores", f"{group.folder}/scores", draw, _score_rows(group.runs))

    def _add_convergence(self, group: Group, curves: Curves) -> pd.DataFrame:
        """The table of steps to reach scratch; written if it has rows."""
        successful = {row: [curve for curve in several if not curve.failed] for row, several in curves.items()}
        failed = failed_by_row(group.runs, self._loaded.failed_pretrainings)
        table = convergence_table(
            {row: several for row, several in successful.items() if several},
            pretrainings_without_run(group.runs, failed),
        )
        if len(table):
            title = f"{text_mark(group.key['synthetic'])}Validation curves, {group.title}"
            self._files.add_table(f"{group.folder}/reach", f"{group.folder}/reach", title, table)
        return table

    def _overlays(self, group: Group) -> Overlays:
        """The paper's validation curves for methods that follow its protocol; curves have no checkpoint rule."""
        first = group.runs.iloc[0]
        curve_of = partial(published.validation_curve, first["task"], first["label_percent"])
        return published.published_curves(methods_as_published(group.runs), curve_of)


def one_finetuning_seed(runs: pd.DataFrame) -> bool:
    """Whether a group has several pre-trainings, each fine-tuned with the same single seed. Linear probes have no such seed."""
    if has_no_finetuning_seed(str(runs["protocol"].iloc[0])):
        return False
    return runs["pretrain_seed"].nunique() > 1 and runs["finetune_seed"].nunique() == 1


def _note_on_single_files(runs: pd.DataFrame) -> str:
    """A note on imported rows with a single file, which have no variance over pre-trainings; empty if there are none."""
    single = [name for name, files in imported_rows(runs).items() if files == 1]
    return f"; one file, so no variance over pre-trainings: {', '.join(single)}" if single else ""


def _note_without_differences(runs: pd.DataFrame) -> str:
    """Why a group has no differences from scratch; empty if it may have some."""
    kinds = baseline_rows(runs)
    if len(kinds) < 2:
        return ""
    return f"no differences, since there are {len(kinds)} kinds of scratch: {', '.join(kinds)}"


def _score_rows(runs: pd.DataFrame) -> pd.DataFrame:
    """The data of a figure of scores, in per cent, one row per run."""
    columns = ["row", *ROW[:2], "pretrain_seed", "finetune_seed", "outcome", "checkpoint", "key"]
    return runs[columns].assign(score=100 * runs[f"score_{headline_checkpoint(runs)}"].where(runs["outcome"] == "ok"))
