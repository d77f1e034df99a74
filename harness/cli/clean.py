"""`bench clean`: prune artifacts, or withdraw runs, on the record."""

from __future__ import annotations

from typing import Annotated

import typer

import pretrain_bench as pb
from pretrain_bench.harness.cli import completion
from pretrain_bench.harness.cli.choices import Keep
from pretrain_bench.harness.cli.options import DEFAULT_RUNS, Json, Runs


def clean(
    keep: Annotated[
        Keep | None,
        typer.Option(
            "--keep",
            help="none: no weights, no predictions; final: backbones and final predictions; best: all weights of "
            "pre-training and all predictions; all: everything. (default: best)",
        ),
    ] = None,
    abandoned: Annotated[bool, typer.Option("--abandoned", help="Also delete abandoned partial runs.")] = False,
    withdraw: Annotated[
        list[str] | None,
        typer.Option(
            "--withdraw",
            metavar="KEY",
            help="Instead of pruning, remove the run whose key begins with KEY, and all runs that build on it; repeatable. "
            "Audits list them, with the reason.",
            autocompletion=completion.keys,
        ),
    ] = None,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="With --withdraw: the reason.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be removed, and remove nothing.")] = False,
    runs: Runs = DEFAULT_RUNS,
    json: Json = False,
) -> None:
    """Prune artifacts; records, events and logs stay. An audit distinguishes pruned files from missing ones. A stage
    runs again if its pruned artifacts are needed.

    With --withdraw, remove whole runs instead, on the record.
    """
    from pretrain_bench.harness.cli.console import print_json, table

    if why and not withdraw:
        raise pb.WrongUse("--why is the reason for --withdraw KEY, which is missing")
    if withdraw and (abandoned or keep):
        raise pb.WrongUse(f"--withdraw and --{'abandoned' if abandoned else 'keep'}: one at a time")
    if withdraw:
        removed = pb.withdraw(runs, withdraw, why=why, dry_run=dry_run)
    else:
        removed = pb.clean(runs, keep=keep or "best", abandoned=abandoned, dry_run=dry_run)
    if json:
        print_json({"dry_run": dry_run, "removed": [r._asdict() for r in removed]})
        return
    rows = [(r.key, r.stage, r.files, f"{r.bytes / 1e6:,.1f} MB") for r in removed]
    print(table(("run", "stage", "files", "size"), rows) if rows else "nothing to remove")
    if rows:
        verb = "would free" if dry_run else "freed"
        print(f"{verb} {sum(r.bytes for r in removed) / 1e6:,.1f} MB")
