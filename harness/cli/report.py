"""`bench report`: tables, figures and a page from the records."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

import pretrain_bench as pb
from pretrain_bench.harness.cli import completion
from pretrain_bench.harness.cli.choices import Exporter, Figures
from pretrain_bench.harness.cli.options import DEFAULT_RUNS, Json, Runs

OfSuite = Annotated[
    str | None,
    typer.Option("--suite", help="Only runs of this suite's budget, tasks and axes.", autocompletion=completion.suites),
]
Published = Annotated[
    bool,
    typer.Option(
        "--published",
        help="Also list the paper's numbers for tasks on synthetic data, with the differences in protocol.",
    ),
]
ScenePictures = Annotated[
    bool,
    typer.Option(
        "--scenes/--no-scenes",
        help="Include pictures that `bench show RUN --scene` made; they show scenes of the dataset.",
    ),
]
Compare = Annotated[
    tuple[str, str] | None,
    typer.Option(
        "--compare",
        metavar="A B",
        help="Compare two folders, bundles or suites cell by cell instead; NAME@COMMIT: the runs of one commit.",
    ),
]
Serve = Annotated[
    bool,
    typer.Option(
        "--serve",
        help="With --watch: serve the report to browsers on this machine (127.0.0.1 only), with curves of running stages.",
    ),
]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port of --serve; 0 takes a free one.")]


def report(
    out: Annotated[Path, typer.Option("--out", help="Folder of the report.")] = Path("report"),
    suite: OfSuite = None,
    published: Published = False,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Write index.html, one self-contained page.")] = True,
    scene_pictures: ScenePictures = True,
    figures: Annotated[
        Figures,
        typer.Option(
            "--figures",
            help="For a screen, or for a paper: no titles, column or text width, 8-point letters, embedded fonts.",
        ),
    ] = "screen",
    watch: Annotated[
        bool, typer.Option("--watch", help="Rewrite the report when runs end, at most every 30 s.")
    ] = False,
    serve: Serve = False,
    port: Port = 0,
    compare: Compare = None,
    export: Annotated[
        list[Exporter] | None,
        typer.Option("--export", help="Also export every run to these tools (extras; below --out, no network)."),
    ] = None,
    runs: Runs = DEFAULT_RUNS,
    json: Json = False,
) -> None:
    """Write tables (Markdown, LaTeX, CSV, JSON), figures (PNG, SVG, PDF) with their data, and one self-contained page."""
    from pretrain_bench.harness.cli.console import warn_unreadable

    if compare is not None:
        ignored = {
            "--suite": suite,
            "--published": published,
            "--watch": watch,
            "--serve": serve,
            "--export": export,
            "--figures": figures == "paper",
            "--no-page": not page,
            "--no-scenes": not scene_pictures,
            "--port": port,
        }
        if given := [flag for flag, value in ignored.items() if value]:
            raise pb.WrongUse(f"{', '.join(given)}: cannot be combined with --compare")
        _compare(compare, runs, out, json)
        return
    if port and not serve:
        raise pb.WrongUse(f"--port {port} is for a report that is served: give --watch --serve as well")
    if serve and not (watch and page):
        raise pb.WrongUse("--serve needs --watch, and a page (no --no-page)")
    if watch and json:
        raise pb.WrongUse("--watch prints a line for each report; leave out --json")
    options: dict[str, Any] = {"suite": suite, "published": published, "page": page, "scene_pictures": scene_pictures}
    options |= {"figures": figures, "live": serve}

    def build(runs: Any) -> Any:
        return pb.report(runs, out, export=export or (), **options)

    if watch:
        _watch(runs, out, build, port if serve else None)
        return
    store = pb.open_runs(runs)
    built = build(store)
    warn_unreadable(pb.unreadable_runs(store))
    _print(built.text, built.files, out, json)


def _compare(sides: tuple[str, str], runs: Path, out: Path, json: bool) -> None:
    from pretrain_bench.harness.cli.console import warn_unreadable

    comparison = pb.compare(*sides, runs=runs, out=out)
    warn_unreadable(comparison.unreadable)
    _print(comparison.text, comparison.files, out, json)


def _watch(runs: Path, out: Path, build: Callable[[Path], object], port: int | None) -> None:
    """Build the report whenever runs change; with a port, serve it and the curves of running stages from before the first."""
    from pretrain_bench.api.running_stages import RunningStages
    from pretrain_bench.api.serving import served

    changes = pb.watch_runs(runs)
    answers = {} if port is None else {"/running.json": RunningStages(runs).as_json}
    said = "no report was written"
    with contextlib.nullcontext(out) if port is None else served(out, port, answers) as place:
        if not runs.exists():
            print(f"{runs} does not exist yet: waiting for `bench run` to create it; Ctrl-C ends the watch", flush=True)
        for number in changes:
            build(runs)
            said = f"{out} holds the last report"
            print(f"{place}: {number} {'run' if number == 1 else 'runs'}; Ctrl-C ends the watch", flush=True)
    print(f"the watch has ended; {said}")


def _print(text: str, files: dict[str, Path], out: Path, json: bool) -> None:
    """Print the short tables and the files in `out` itself, and count those in its folders; as JSON print all files only."""
    from pretrain_bench.api.display import printable
    from pretrain_bench.harness.cli.console import print_json

    if json:
        print_json({name: str(path) for name, path in files.items()})
        return
    print(printable(text))
    top = {name: path for name, path in files.items() if path.parent == out}
    below = [path for name, path in files.items() if name not in top]
    width = max(map(len, top), default=0)
    for name, path in top.items():
        print(f"{name:<{width}} {path}")
    if below:
        folders = ", ".join(sorted({path.relative_to(out).parts[0] for path in below}))
        print(f"{len(below)} more tables and figures in {out}: {folders} (--json lists them)")
