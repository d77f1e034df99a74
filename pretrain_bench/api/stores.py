"""Folders of runs and bundles, as every function of the API takes them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.contract.records import Record
from pretrain_bench.harness.store.bundle import open_store
from pretrain_bench.harness.store.object_store import (
    connect,
    mirror_of,
    open_mirror,
    publish,
    publish_run,
    pull,
    remote_url,
)
from pretrain_bench.harness.store.store import Store

AnyPath = str | os.PathLike[str]
Runs = AnyPath | Store
"""A folder of runs or a bundle by its path, `s3://bucket/prefix`, or a store that `open_runs` returned."""


def open_runs(runs: Runs = "runs") -> Store:
    """Open a folder of runs, a bundle or a bucket for reading. Opening a bundle hashes it and opening a bucket fetches its new
    runs, so open it once and pass the store on.

    Raises WrongUse for a file that is not a bundle or is damaged, EnvironmentCannot for a bucket that cannot be used. A folder
    that does not exist is an error once it is read.
    """
    if isinstance(runs, Store):
        return runs
    url = remote_url(runs)
    return open_store(Path(runs)) if url is None else open_mirror(url)


def folder_to_write(runs: Runs) -> Store:
    """The folder of runs to write to; it may not exist yet. Raises WrongUse for a bundle or a bucket."""
    if not isinstance(runs, Store) and (url := remote_url(runs)) is not None:
        raise WrongUse(f"--runs {url}: only `bench run` writes to a bucket; --runs FOLDER names a folder of runs")
    store = runs if isinstance(runs, Store) else Store(Path(runs).resolve())
    store.refuse_bundle()
    return store


def working_store(runs: Runs) -> tuple[Store, Callable[[Record], None]]:
    """The folder in which `run` works, and what publishes a run that has ended: nothing where that folder is the store.

    For a bucket the folder is its local mirror; what an earlier command finished and could not publish is published first.
    """
    url = None if isinstance(runs, Store) else remote_url(runs)
    if url is None:
        return folder_to_write(runs), lambda record: None
    bucket, mirror = connect(url), mirror_of(url)
    publish(bucket, mirror, pull(bucket, mirror))
    return Store(mirror), lambda record: publish_run(bucket, mirror, record)


def unreadable_runs(runs: Runs = "runs") -> list[str]:
    """Runs whose record cannot be read: path, reason and remedy. Lists and reports leave them out."""
    return open_runs(runs).unreadable()
