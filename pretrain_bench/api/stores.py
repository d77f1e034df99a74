"""Folders of runs and bundles, as every function of the API takes them."""

from __future__ import annotations

import os
from pathlib import Path

from pretrain_bench.harness.store.store import Store, open_store

AnyPath = str | os.PathLike[str]
Runs = AnyPath | Store
"""A folder of runs or a bundle by its path, or a store that `open_runs` returned."""


def open_runs(runs: Runs = "runs") -> Store:
    """Open a folder of runs or a bundle for reading. Opening a bundle unpacks it, so open it once and pass the store on."""
    return runs if isinstance(runs, Store) else open_store(Path(runs))


def folder_to_write(runs: Runs) -> Path:
    """The folder of runs, which need not exist yet."""
    return runs.root if isinstance(runs, Store) else Path(runs)


def unrecorded_runs(runs: Runs = "runs") -> list[str]:
    """Run folders without a record, as `kind/name`; no list and no report counts them."""
    return open_runs(runs).unrecorded()
