"""Reports and comparisons: tables, figures and a page from the records."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from pretrain_bench.api.stores import AnyPath, Runs, open_runs
from pretrain_bench.api.suites import Names, as_list
from pretrain_bench.benchmarks.specs.cell import Cell
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.specs.suite import Suite
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.contract.records import Outcome, Record
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.planning.renamed_budget import known_budget
from pretrain_bench.harness.planning.resolved_suite import budget_and_profile, cells_of
from pretrain_bench.harness.store.bundle import bundle_name, is_bundle
from pretrain_bench.harness.store.object_store import remote_url
from pretrain_bench.harness.store.store import RECORD, Store

if TYPE_CHECKING:
    from pretrain_bench.reports.build import BuiltReport
    from pretrain_bench.reports.comparison import Comparison, Side
    from pretrain_bench.reports.figures.style import FigureKind

WATCH_SECONDS = 30.0


def report(
    runs: Runs = "runs",
    out: AnyPath = "report",
    *,
    suite: Suite | AnyPath | None = None,
    published: bool = False,
    page: bool = True,
    scene_pictures: bool = True,
    figures: FigureKind = "screen",
    export: Names = (),
    live: bool = False,
) -> BuiltReport:
    """Write tables (Markdown, LaTeX, CSV, JSON), figures (PNG, SVG, PDF) with their data, and index.html to `out`.

    Args:
        runs: a folder of runs or a bundle.
        out: the folder; files of an earlier report in it are replaced.
        suite: report only runs of this suite's budget, profile, tasks and axes.
        published: also list the paper's numbers for tasks on synthetic data, with the differences in protocol.
        page: write index.html, one self-contained page.
        scene_pictures: include the pictures of `draw_scene`.
        figures: `paper` for figures without titles, as wide as a column or a two-column page, with letters of 8 points.
        export: also export every run to `tensorboard`, `mlflow` or `wandb`, below `out`.
        live: the page asks its server for the curves of running stages, as `bench report --watch --serve` sends them.

    Returns the written files by kind, and the short tables as text. Raises WrongUse for a store that cannot be read,
    EnvironmentCannot where `out` cannot be written or a tool is not installed.
    """
    from pretrain_bench.reports.build import build_report
    from pretrain_bench.reports.export import loggers
    from pretrain_bench.reports.figures.style import FigureKind

    if figures not in get_args(FigureKind):
        raise WrongUse(f"figures {figures!r}: expected one of {', '.join(get_args(FigureKind))}")

    store, target, tools = open_runs(runs), Path(out), list(dict.fromkeys(as_list(export)))
    loggers.check(tools)
    keys = None if suite is None else keys_of_suite(suite, store)
    built = build_report(
        store, target, published=published, keys=keys, page=page, scene_pictures=scene_pictures, figures=figures, live=live
    )  # fmt: skip
    for tool in tools:
        built.files[tool] = loggers.export(store, keys, tool, target)
    return built


def compare(one: Runs, two: Runs, *, runs: Runs = "runs", out: AnyPath = "report") -> Comparison:
    """Compare two sides cell by cell, and write compare.md, .tex, .csv, .json and a figure to `out`.

    Each side is a folder of runs, a bundle or an open store, or a suite whose runs are in `runs`; NAME@COMMIT takes only its
    runs of one commit. Raises WrongUse where no cell is on both sides or a side has a cell twice.
    """
    from pretrain_bench.reports.comparison import build_comparison

    return build_comparison(_side(one, runs), _side(two, runs), Path(out))


def watch_runs(runs: Runs = "runs", seconds: float = WATCH_SECONDS) -> Iterator[int]:
    """Yield the number of runs now, and again whenever a record is added, replaced or removed; first wait for a folder that does
    not exist yet. Ctrl-C while waiting ends it. Raises WrongUse for a bundle or a bucket.
    """
    if isinstance(runs, Store):
        runs = runs.place
    if url := remote_url(runs):
        raise WrongUse(
            f"--watch: {url} is a bucket; only a folder of runs can be watched. Leave out --watch for one report"
        )
    if Path(runs).is_file():
        raise WrongUse(f"--watch: {runs} is a bundle, which does not change")
    return _changes(Path(runs), seconds)


def _changes(runs: Path, seconds: float) -> Iterator[int]:
    from pretrain_bench.reports.figures.style import make_ready

    make_ready()  # processes that draw later reports then start with matplotlib loaded
    seen: dict[Path, int] | None = None
    while True:
        if runs.is_dir():
            records = dict(_written(runs))
            if records != seen:
                yield len(records)
            seen = records
        try:
            time.sleep(seconds)
        except KeyboardInterrupt:
            return


def _written(runs: Path) -> Iterator[tuple[Path, int]]:
    """Every record with the time when it was written; one that a run is just replacing is left out."""
    for path in runs.glob(f"*/*/{RECORD}"):
        with contextlib.suppress(FileNotFoundError):
            yield path, path.stat().st_mtime_ns


def keys_of_suite(suite: Suite | AnyPath, runs: Runs) -> set[str]:
    """Keys of the runs that belong to a suite: evaluations by their cells, failed pre-trainings and features by their specs.

    Raises WrongUse for an unknown suite, or one whose methods or budget do not exist.
    """
    store = open_runs(runs)
    wanted = suite if isinstance(suite, Suite) else find(Suite, suite)
    budget, profile = budget_and_profile(wanted)
    methods = {asked: find(Method, asked) for asked in wanted.methods}
    budget, _ = known_budget(budget, methods.values(), store)
    names = {asked: method.name for asked, method in methods.items()}
    names |= {asked: find(Task, asked).name for asked in wanted.tasks}
    cells = {_axes(cell) for cell in cells_of(wanted, budget, profile, names, [])}
    pretrainings = {(method, seed) for method, _, _, _, seed, _ in cells}
    probed = {(method, task, seed) for method, task, protocol, _, seed, _ in cells if protocol == "linear"}

    def belongs(r: Record) -> bool:
        if r.cell is not None:
            return (r.cell.budget, r.cell.profile) == (budget.name, profile.name) and _axes(r.cell) in cells
        if r.kind == "finetune" or r.outcome == Outcome.ok:
            return False
        spec = store.spec(r.kind, r.key)
        used = spec.limits.budget, spec.profile
        own = (
            (r.method, spec.seed) in pretrainings
            if r.kind == "pretrain"
            else (r.method, spec.task, spec.seed) in probed
        )
        return used == (budget.name, profile.name) and own

    return {r.key for r in store.records() if belongs(r)}


def _axes(cell: Cell) -> tuple[str, str, str, str, int, int]:
    """The fields that decide whether a run belongs to a suite; without the pre-training data, which --pretrain-data may
    replace."""
    return cell.method, cell.task, cell.protocol, str(cell.label_ratio), cell.pretrain_seed, cell.finetune_seed


def _side(one: Runs, runs: Runs) -> Side:
    from pretrain_bench.reports.analysis.compare import Side, at_commit

    if isinstance(one, Store):
        return Side(one.root.name if one.bundle is None else bundle_name(one.bundle), one)
    text = os.fspath(one)
    if Path(text).is_dir():
        return Side(Path(text).resolve().name, open_runs(text))  # a report names no path of this machine
    if is_bundle(Path(text)):
        return Side(bundle_name(Path(text)), open_runs(text))
    if "@" in text and not Path(text).is_file():
        name, _, commit = text.rpartition("@")
        return at_commit(_side(name, runs), commit)
    store = open_runs(runs)
    return Side(text, store, keys_of_suite(text, store))
