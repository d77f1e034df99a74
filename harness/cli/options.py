"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Runs = Annotated[Path, typer.Option("--runs", envvar="BENCH_RUNS", help="The folder of runs.", show_default=True)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]
Data = Annotated[
    list[str] | None, typer.Option("--data", metavar="NAME=DIR", help="Root of a dataset, in its official layout.")
]
PretrainData = Annotated[
    list[str] | None,
    typer.Option("--pretrain-data", metavar="NAME=DIR", help="Pre-train on this dataset instead of ScanNet."),
]
Strict = Annotated[bool, typer.Option("--strict", help="Bad lines and frames in the data are errors, not warnings.")]
DEFAULT_RUNS = Path("runs")
