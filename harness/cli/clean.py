"""`bench clean`: remove what of a store is not to be kept, on the record."""

from __future__ import annotations

from typing import Annotated

import typer

from pretrain_bench.harness.cli.options import DEFAULT_RUNS, Json, Runs


def clean(
    keep: Annotated[
        str,
        typer.Option(
            "--keep",
            help="none: no weights, no predictions; final: backbones and final predictions; best: all weights of "
            "pre-training and all predictions; all: everything.",
        ),
    ] = "best",
    abandoned: Annotated[bool, typer.Option("--abandoned", help="Also delete abandoned partial runs.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    runs: Runs = DEFAULT_RUNS,
    json: Json = False,
) -> None:
    """Prune artifacts; records, events and logs stay. An audit tells a pruned file from a missing one.

    A stage whose pruned artifacts are needed again runs again.
    """
    from pretrain_bench.benchmarks.support.errors import WrongUse
    from pretrain_bench.benchmarks.support.files import remove_tree
    from pretrain_bench.harness.cli.console import print_json, table, writing
    from pretrain_bench.harness.executors.usage import folder_bytes
    from pretrain_bench.harness.store.retention import KEEPS, prunable, prune
    from pretrain_bench.harness.store.store import Store

    if keep not in KEEPS:
        raise WrongUse(f"--keep {keep!r}: expected one of {', '.join(KEEPS)}")
    store = Store(runs)
    store.refuse_bundle()
    # Everything is read before anything is removed: a store with a damaged record is not touched.
    found = list(prunable(store, keep))  # type: ignore[arg-type]
    rows = [(f.record.key, f"{f.record.method}/{f.record.stage}", len(f.names), f.bytes) for f in found]
    folders = sorted(p for p in (runs / ".partial").glob("[!.]*") if p.is_dir()) if abandoned else []
    idle = [p for p in folders if store.held_by(p.name) is None]
    rows += [(p.name, "left under way", sum(1 for _ in p.rglob("*")), folder_bytes(p)) for p in idle]
    if not dry_run:
        with writing(runs, "pruning"):
            for one in found:
                prune(one, keep)  # type: ignore[arg-type]
            for folder in idle:
                remove_tree(folder)
    if json:
        print_json(
            {
                "dry_run": dry_run,
                "removed": [dict(zip(("key", "stage", "files", "bytes"), r, strict=True)) for r in rows],
            }
        )
        return
    shown = [(key, stage, files, f"{size / 1e6:,.1f} MB") for key, stage, files, size in rows]
    print(table(("run", "stage", "files", "size"), shown) if rows else "nothing to remove")
    if rows:
        verb = "would free" if dry_run else "freed"
        print(f"{verb} {sum(r[3] for r in rows) / 1e6:,.1f} MB")
