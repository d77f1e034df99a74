"""Folders of runs and bundles, as every function of the API takes them."""

from __future__ import annotations

import os
from pathlib import Path

from pretrain_bench.harness.store.bundle import open_store
from pretrain_bench.harness.store.store import Store

AnyPath = str | os.PathLike[str]
Runs = AnyPath | Store
"""A folder of runs or a bundle by its path, or a store that `open_runs` returned."""


def open_runs(runs: Runs = "runs") -> Store:
    """Open a folder of runs or a bundle for reading. Opening a bundle hashes it, so open it once and pass the store on.

    Raises WrongUse for a file that is not a bundle or is damaged. A folder that does not exist is an error once it is read.
    """
    return runs if isinstance(runs, Store) else open_store(Path(runs))


def folder_to_write(runs: Runs) -> Store:
    """The folder of runs to write to; it may not exist yet. Raises WrongUse for a bundle."""
    store = runs if isinstance(runs, Store) else Store(Path(runs).resolve())
    store.refuse_bundle()
    return store


def unreadable_runs(runs: Runs = "runs") -> list[str]:
    """Runs whose record cannot be read: path, reason and remedy. Lists and reports leave them out."""
    return open_runs(runs).unreadable()
