"""`bench report`: tables, a figure and a page from the records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import DEFAULT_RUNS, Json, Runs


def report(
    out: Annotated[Path, typer.Option("--out", help="Where the report is written.")] = Path("report"),
    runs: Runs = DEFAULT_RUNS,
    json: Json = False,
) -> None:
    """Write table.md, table.csv, figures and index.html, one self-contained page."""
    from harness.cli.console import print_json, printable
    from harness.store import Store
    from reports.build import build_report

    built = build_report(Store(runs), out)
    if json:
        print_json({name: str(path) for name, path in built.files.items()})
        return
    print(printable(built.text))
    for name, path in built.files.items():
        print(f"{name:<7} {path}")
