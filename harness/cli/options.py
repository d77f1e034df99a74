"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pretrain_bench.api.display import Display

Runs = Annotated[
    Path,
    typer.Option(
        "--runs",
        envvar="BENCH_RUNS",
        help="Folder of runs; reading commands take a bundle too.",
        show_default=True,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]
Data = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        metavar="NAME=DIR",
        help="Root of a dataset, in its official layout; NAME may be a YAML file of yours.",
    ),
]
PretrainData = Annotated[
    list[str] | None,
    typer.Option("--pretrain-data", metavar="NAME=DIR", help="Pre-train on this dataset instead of ScanNet."),
]
Strict = Annotated[bool, typer.Option("--strict", help="Bad lines and frames in the data are errors, not warnings.")]
Up = Annotated[
    str,
    typer.Option(
        "--up",
        metavar="AXIS",
        help="Up axis of recordings in rgbd-folder: +x, -x, +y, -y, +z, -z, or auto (from cameras and floor).",
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="FIELD=PATTERN", help="Cells of a suite: method=ours,csc or task=*-sem."),
]
Filters = Annotated[
    list[str] | None, typer.Argument(metavar="[FIELD=PATTERN]...", help="The same as --only.", show_default=False)
]
ImagenetWeights = Annotated[
    Path | None,
    typer.Option("--imagenet-weights", help="ResNet weights (torchvision's names) for the 2D encoder of ours."),
]
LabelSplits = Annotated[
    list[str] | None,
    typer.Option(
        "--label-split",
        metavar="NAME=FILE",
        help="The file of an official label list that does not ship, such as la20=points20; may be given several times.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="CPU threads of a stage. (default: all that bench may use, at most 8)"),
]
Backend = Annotated[str, typer.Option("--backend", envvar="BENCH_SPARSE_BACKEND", help="torch or minkowski.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, or auto: the GPU where there is one.")]
ExecutorName = Annotated[
    str,
    typer.Option(
        "--executor",
        envvar="BENCH_EXECUTOR",
        help="bubblewrap: isolated processes; local: plain processes; docker, podman: containers; auto: bubblewrap if it works.",
    ),
]
TrustCode = Annotated[
    bool,
    typer.Option("--trust-code", help="Run the Python of your own method folders: as you, without isolation."),
]
DEFAULT_RUNS = Path("runs")


def display(json: bool) -> Display:
    """Bars or lines on stderr; nothing with --json."""
    from pretrain_bench.api.display import Silent, default_display

    return Silent() if json else default_display()
