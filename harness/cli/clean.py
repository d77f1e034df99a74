"""`bench clean`: prune artifacts on the record."""

from __future__ import annotations

from typing import Annotated

import typer

import pretrain_bench as pb
from pretrain_bench.harness.cli.choices import Keep
from pretrain_bench.harness.cli.options import DEFAULT_RUNS, Json, Runs


def clean(
    keep: Annotated[
        Keep,
        typer.Option(
            "--keep",
            help="none: no weights, no predictions; final: backbones and final predictions; best: all weights of "
            "pre-training and all predictions; all: everything.",
        ),
    ] = "best",
    abandoned: Annotated[bool, typer.Option("--abandoned", help="Also delete abandoned partial runs.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be removed, and remove nothing.")] = False,
    runs: Runs = DEFAULT_RUNS,
    json: Json = False,
) -> None:
    """Prune artifacts; records, events and logs stay. An audit distinguishes pruned files from missing ones. A stage
    runs again if its pruned artifacts are needed."""
    from pretrain_bench.harness.cli.console import print_json, table

    removed = pb.clean(runs, keep=keep, abandoned=abandoned, dry_run=dry_run)
    if json:
        print_json({"dry_run": dry_run, "removed": [r._asdict() for r in removed]})
        return
    rows = [(r.key, r.stage, r.files, f"{r.bytes / 1e6:,.1f} MB") for r in removed]
    print(table(("run", "stage", "files", "size"), rows) if rows else "nothing to remove")
    if rows:
        verb = "would free" if dry_run else "freed"
        print(f"{verb} {sum(r.bytes for r in removed) / 1e6:,.1f} MB")
