"""Build the whole report: read a store, write a folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pretrain_bench.benchmarks.support.errors import cannot_write
from pretrain_bench.harness.contract.records import Record
from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.across_groups import AcrossGroups, write_across_groups
from pretrain_bench.reports.analysis.columns import GROUP
from pretrain_bench.reports.analysis.frame import Loaded, load
from pretrain_bench.reports.analysis.rows import SYNTHETIC_PRETRAINING
from pretrain_bench.reports.analysis.sorting import group_key
from pretrain_bench.reports.analysis.titles import SYNTHETIC_MARK, group_id, group_title, with_part
from pretrain_bench.reports.analysis.what_ran import Fact, what_ran
from pretrain_bench.reports.export.output_folder import REPORT_FILES, earlier_files_removed, write_whole
from pretrain_bench.reports.figures.pool import figure_pool
from pretrain_bench.reports.figures.style import FigureKind
from pretrain_bench.reports.group_report import ONE_SEED, Group, GroupWriter, WrittenGroup, one_finetuning_seed
from pretrain_bench.reports.page.html import Page, render_page
from pretrain_bench.reports.page.run_details import RunDetails
from pretrain_bench.reports.report_files import ReportFiles
from pretrain_bench.reports.tables.formats import csv_text, escape_markdown
from pretrain_bench.reports.tables.group_table import TO_SEE

if TYPE_CHECKING:
    import pandas as pd

MOST_GROUP_TABLES = 6
"""The most groups whose tables are all shown in a terminal."""
NO_RUNS = "There are no fine-tuning runs yet. Start some with `bench run`."
NO_RUNS_OF_SUITE = (
    "There are fine-tuning runs, none of them of this suite: its budget, profile, methods, tasks, ratios, seeds."
)
NOTES = (
    "Headline metric of each task in per cent (mIoU on voxels or points, AP50 of instances, mAP50 of boxes), with a 95 % "
    "interval where n allows one; n counts pre-training seeds.\n"
    "selected: chosen on held-out training scenes. best: selected on the test split, as papers do.\n"
)
_FINETUNED_ONCE = (
    "every pre-training was fine-tuned once, so intervals hold for that one head, order and augmentation.\n"
)
ONE_FINETUNING_SEED = f"{ONE_SEED}: {_FINETUNED_ONCE}"
ONE_FINETUNING_SEED_IN_SOME = f"{ONE_SEED} in some groups: there {_FINETUNED_ONCE}"
SYNTHETIC_BEFORE_REAL = (
    f"{SYNTHETIC_PRETRAINING} in the name of a row: pre-trained on procedural scenes, tested on real ones.\n"
)
MORE_NOTES = (
    f"{TO_SEE}: seeds of each method needed to detect a true difference of 1 point at 80 % power, with the observed "
    "spread.\n"
)


class BuiltReport(NamedTuple):
    """The report's files by name, and its tables in short, for a terminal."""

    files: dict[str, Path]
    """`page`, `table` (table.md), `csv` (table.csv), `runs` and `effects` are in the folder itself. Files of a group are named by
    their path, as `groups/GROUP/table` (also `used`, `reach`, and the figures `scores` and `curves`), where GROUP names its task,
    dataset, protocol, ratio, budget, profile and conditions. Other tables are named as in `tables/`, and figures as in `figures/`
    with `figure-` before; names of synthetic data contain `synthetic-`. The numbers of `ratios1` or `tasks1` count families
    and depend on the other runs: the titles in these files say what they show."""
    text: str


class ReportOptions(NamedTuple):
    """Contents of a report: whether to list published numbers also for synthetic tasks, to write a page, and to put pictures of
    predictions into it. `all_runs` is False if the caller selected runs; `figures` are for a screen or for a paper; a `live` page
    asks its server for the curves of running stages.
    """

    published: bool
    page: bool
    scene_pictures: bool
    all_runs: bool
    figures: FigureKind = "screen"
    live: bool = False


def build_report(
    store: Store,
    out: Path,
    *,
    published: bool = False,
    keys: set[str] | None = None,
    page: bool = True,
    scene_pictures: bool = True,
    figures: FigureKind = "screen",
    live: bool = False,
) -> BuiltReport:
    """Write tables, figures and index.html to `out`. Raises EnvironmentCannot if that cannot be written.

    `published` also lists the paper's numbers of tasks on synthetic data; `keys` are the runs to report, None for all;
    `scene_pictures` puts pictures of predictions into the page; `figures` are for a screen or for a paper; a `live` page asks its
    server for the curves of stages that run.
    """
    store.check()
    options = ReportOptions(published, page, scene_pictures, all_runs=keys is None, figures=figures, live=live)
    with figure_pool() as pool:
        loaded = load(store, keys)
        try:
            out.mkdir(parents=True, exist_ok=True)
            with earlier_files_removed(out, REPORT_FILES):
                return _build(store, loaded, ReportFiles(out, pool, figures), options)
        except OSError as error:
            raise cannot_write(out, error, "report (--out names another folder)") from error


def _build(store: Store, loaded: Loaded, files: ReportFiles, options: ReportOptions) -> BuiltReport:
    details = RunDetails(store, loaded, options.scene_pictures) if options.page else None
    writer = GroupWriter(store, loaded, files, details)
    written = [writer.write(group) for group in _groups(loaded.runs)]
    curves = [curve for group in written for several in group.curves.values() for curve in several]
    across = write_across_groups(loaded, curves, files, options.published, options.page)
    any_finetuning = any(r.kind == "finetune" for r in loaded.records.values())
    nothing = NO_RUNS_OF_SUITE if any_finetuning and not options.all_runs else NO_RUNS
    failures = [f"{_failure_line(r)}\n" for r in loaded.failed_pretraining_records]
    summaries = _short_tables(written, across)
    facts = what_ran(store, loaded)
    answer = _answer_section(across, facts)
    text, summary = ("\n".join(part + failures or [f"{nothing}\n"]) for part in (files.sections, summaries))
    notes = NOTES + _note_on_finetuning_seeds(loaded.runs)
    if _any_synthetic_before_real(loaded.runs):
        notes += SYNTHETIC_BEFORE_REAL
    files.files["table"] = write_whole(files.out / "table.md", f"{answer}{text}\n{notes}{MORE_NOTES}".encode())
    files.files["csv"] = write_whole(files.out / "table.csv", _csv([group.rows for group in written]))
    files.pool.finish()
    if details is not None:
        for record in loaded.failed_pretraining_records:
            details.add_failed_pretraining(record)
        page = _page(written, across, loaded, details, nothing)._replace(facts=facts, live=options.live)
        files.files["page"] = write_whole(files.out / "index.html", render_page(page).encode())
    return BuiltReport(files.files, f"{answer}{summary}\n{notes}")


def _short_tables(written: Sequence[WrittenGroup], across: AcrossGroups) -> list[str]:
    """The tables for a terminal: one of each group, or, where there are many groups, one of each task over its label ratios."""
    if len(written) <= MOST_GROUP_TABLES:
        return [group.summary for group in written]
    return list(dict.fromkeys(across.ratios.get(group.family, group.summary) for group in written))


def _answer_section(across: AcrossGroups, facts: Sequence[Fact]) -> str:
    """The answers and the facts behind them, as two Markdown lists; empty without runs."""
    lines = [
        f"- {f'**{SYNTHETIC_MARK}**: ' if mark else ''}{escape_markdown(f'{a.sentence} ({a.comparisons})')}"
        for mark, a in across.answers
    ]
    lines += ["", *(f"- {name}: {escape_markdown(value)}" for name, value in facts)] if facts else []
    return "\n".join([*lines, "", ""]) if lines else ""


def _note_on_finetuning_seeds(runs: pd.DataFrame) -> str:
    """A note if intervals of all groups, or of some, are conditional on one fine-tuning seed; else empty."""
    with_interval = [group for _, group in runs.groupby(GROUP) if group["pretrain_seed"].nunique() > 1]
    conditional = [one_finetuning_seed(group) for group in with_interval]
    if not any(conditional):
        return ""
    return ONE_FINETUNING_SEED if all(conditional) else ONE_FINETUNING_SEED_IN_SOME


def _any_synthetic_before_real(runs: pd.DataFrame) -> bool:
    """Whether a row was pre-trained on synthetic data and tested on real data."""
    return len(runs) > 0 and bool((runs["pretrain_synthetic"] & ~runs["synthetic"]).any())


def _groups(runs: pd.DataFrame) -> Iterator[Group]:
    """The groups of comparable runs, in order and with unique titles."""
    parts = sorted(runs.groupby(GROUP), key=lambda part: group_key(part[0])) if len(runs) else []
    keys = [dict(zip(GROUP, names, strict=True)) for names, _ in parts]
    titles = Counter(map(group_title, keys))
    for place, (key, (_, group)) in enumerate(zip(keys, parts, strict=True)):
        title = group_title(key)
        # Groups with equal titles differ in recipe or code.
        title = f"{title}, conditions #{key['conditions']}" if titles[title] > 1 else title
        title = with_part(title, group)
        yield Group(key, title, place, group)


def _page(written: list[WrittenGroup], across: AcrossGroups, loaded: Loaded, details: RunDetails, nothing: str) -> Page:
    return Page(
        groups=[group.page for group in written],
        failures=[_failure(r) for r in loaded.failed_pretraining_records],
        synthetic=any(group.page.synthetic for group in written),
        tables=across.tables,
        pictures=across.pictures,
        effects=[
            (title, effects.assign(group=[group_id(row) for row in effects.to_dict("records")]))
            for title, effects in across.effects
        ],
        answers=across.answers,
        facts=[],
        runs=details.as_json(),
        nothing=nothing.replace("`", ""),
    )


def _csv(frames: list[pd.DataFrame]) -> bytes:
    import pandas as pd

    return (csv_text(pd.concat(frames)) if frames else "").encode()


def _failure_line(record: Record) -> str:
    mark = f"**{SYNTHETIC_MARK}**: " if record.synthetic else ""
    text = f"{record.method}/{record.stage} {record.key}: {record.outcome.value}: {record.message}"
    what = "Features" if record.kind == "features" else "Pre-training"
    return f"{mark}{what} failed: {escape_markdown(text)}"


def _failure(record: Record) -> dict[str, str]:
    return {
        "key": record.key,
        "method": record.method,
        "stage": record.stage,
        "outcome": record.outcome.value,
        "message": record.message,
        "data": "SYNTHETIC" if record.synthetic else "real" if record.dataset else "-",
    }
