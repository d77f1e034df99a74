"""`bench report`: tables, figures and a page from the records."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pretrain_bench.harness.cli.options import DEFAULT_RUNS, Json, Runs

if TYPE_CHECKING:
    from pretrain_bench.benchmarks.specs.cell import Cell
    from pretrain_bench.reports.analysis.compare import Side
    from pretrain_bench.reports.build import BuiltReport

WATCH_SECONDS = 30


def report(
    out: Annotated[Path, typer.Option("--out", help="Where the report is written.")] = Path("report"),
    suite: Annotated[
        str | None, typer.Option("--suite", help="Only runs of this suite's budget, tasks and axes.")
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Show the paper's numbers beside synthetic results too.")
    ] = False,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Write index.html, one self-contained page.")] = True,
    scene_pictures: Annotated[
        bool,
        typer.Option(
            "--scenes/--no-scenes",
            help="Put the pictures that `bench show RUN --scene` made into the page; they show scenes of the data set.",
        ),
    ] = True,
    watch: Annotated[
        bool, typer.Option("--watch", help=f"Write it again whenever runs end, every {WATCH_SECONDS} s.")
    ] = False,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--compare",
            metavar="A B",
            help="Two stores (folders) or suites, cell by cell, in place of a report; NAME@COMMIT: its runs of one commit.",
        ),
    ] = None,
    export: Annotated[
        list[str] | None,
        typer.Option(
            "--export", help="Also hand every run to tensorboard, mlflow or wandb (extras; below --out, no network)."
        ),
    ] = None,
    runs: Runs = DEFAULT_RUNS,
    json: Json = False,
) -> None:
    """Write tables (Markdown, LaTeX, CSV, JSON), figures (PNG, SVG, PDF) with their data, and one self-contained page."""
    from pretrain_bench.benchmarks.support.errors import WrongUse
    from pretrain_bench.harness.store.store import Store

    if compare is not None:
        ignored = {"--suite": suite, "--published": published, "--watch": watch, "--export": export}
        if given := [flag for flag, value in ignored.items() if value]:
            raise WrongUse(f"{', '.join(given)}: not of a comparison; --compare takes stores or suites by name")
        _compare(*compare, runs, out, json)
        return
    from pretrain_bench.harness.cli.console import say_unrecorded
    from pretrain_bench.reports.build import build_report
    from pretrain_bench.reports.export import loggers
    from pretrain_bench.reports.figures.style import make_ready

    if watch and json:
        raise WrongUse("--watch tells in words when it has written again; leave out --json")
    store, tools = Store(runs), list(dict.fromkeys(export or ()))
    loggers.check(tools)

    def build() -> BuiltReport:
        keys = None if suite is None else _keys_of(suite, store)
        built = build_report(store, out, published=published, keys=keys, page=page, scene_pictures=scene_pictures)
        for kind in tools:
            built.files[kind] = loggers.export(store, keys, kind, out)
        return built

    if watch:
        make_ready()
        _watch(runs, out, build)
        return
    built = build()
    say_unrecorded(store)
    _tell(built.text, built.files, json)


def _watch(runs: Path, out: Path, build: Callable[[], object]) -> None:
    """Build whenever a record was added, replaced or removed since the last time; until Ctrl-C."""
    seen: dict[Path, int] | None = None
    while True:
        now = dict(_written(runs))
        if now != seen:
            build()
            print(f"{out}: {len(now)} runs; Ctrl-C ends the watch", flush=True)
        seen = now
        try:
            time.sleep(WATCH_SECONDS)
        except KeyboardInterrupt:
            print(f"the watch has ended; {out} holds the last report")
            return


def _written(runs: Path) -> Iterator[tuple[Path, int]]:
    """Every record with the time when it was written; one that a run is just replacing is left out."""
    for path in runs.glob("*/*/record.json"):
        with contextlib.suppress(FileNotFoundError):
            yield path, path.stat().st_mtime_ns


def _compare(one: str, two: str, runs: Path, out: Path, json: bool) -> None:
    from pretrain_bench.reports.comparison import build_comparison

    comparison = build_comparison(_side(one, runs), _side(two, runs), out)
    _tell(comparison.text, comparison.files, json)


def _tell(text: str, files: dict[str, Path], json: bool) -> None:
    """What was found and which files were written; as JSON the files alone."""
    from pretrain_bench.harness.cli.console import print_json, printable

    if json:
        print_json({name: str(path) for name, path in files.items()})
        return
    print(printable(text))
    width = max(map(len, files), default=0)
    for name, path in files.items():
        print(f"{name:<{width}} {path}")


def _side(text: str, runs: Path) -> Side:
    """A folder is a store; anything else is a suite, whose runs are looked for in the store. After an @ comes a commit."""
    from pretrain_bench.harness.store.store import Store
    from pretrain_bench.reports.analysis.compare import Side, at_commit

    if Path(text).is_dir():
        return Side(Path(text).resolve().name, Store(Path(text)))  # a report names no path of this machine
    if "@" in text and not Path(text).is_file():
        name, _, commit = text.rpartition("@")
        return at_commit(_side(name, runs), commit)
    return Side(text, Store(runs), _keys_of(text, Store(runs)))


def _keys_of(suite: str, store: object) -> set[str]:
    """Runs of a store that belong to a suite: fine-tunings by what their cells say, and pre-trainings that failed by what they
    were told."""
    from pretrain_bench.benchmarks.specs.method import Method
    from pretrain_bench.benchmarks.specs.suite import Suite
    from pretrain_bench.harness.contract.records import Outcome, Record
    from pretrain_bench.harness.planning.catalog import find
    from pretrain_bench.harness.planning.resolved_suite import budget_and_profile, cells_of
    from pretrain_bench.harness.store.store import Store

    assert isinstance(store, Store)
    wanted = find(Suite, suite)
    budget, profile = budget_and_profile(wanted)
    names = {asked: find(Method, asked).name for asked in wanted.methods}
    cells = {_axes(cell) for cell in cells_of(wanted, budget, profile, names, [])}
    pretrainings = {(method, seed) for method, _, _, seed, _ in cells}

    def belongs(r: Record) -> bool:
        if r.cell is not None:
            return (r.cell.budget, r.cell.profile) == (budget.name, profile.name) and _axes(r.cell) in cells
        if r.kind != "pretrain" or r.outcome == Outcome.ok:
            return False
        spec = store.spec(r.kind, r.key)
        told = spec.limits.budget, spec.profile
        return told == (budget.name, profile.name) and (r.method, spec.seed) in pretrainings

    return {r.key for r in store.records() if belongs(r)}


def _axes(cell: Cell) -> tuple[str, str, str, int, int]:
    """What decides whether a run is of a suite. Not the pre-training data, which --pretrain-data may replace."""
    return cell.method, cell.task, str(cell.label_ratio), cell.pretrain_seed, cell.finetune_seed
