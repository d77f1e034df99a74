"""Remove what a process that is killed between publishing a run and removing its partial state leaves behind.

Every later command finds the run in the store and has no reason to lock its stage, so the scheduler removes these remains once it
has finished.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.benchmarks.support.files import remove_tree
from pretrain_bench.benchmarks.support.locks import exclusive
from pretrain_bench.harness.clusters.jobs import has_ended
from pretrain_bench.harness.contract.events import EVENTS_FILE
from pretrain_bench.harness.contract.records import Record
from pretrain_bench.harness.store.store import ATTEMPTS, GONE, Store, is_done


def remove_remains(store: Store, published: Iterable[Record]) -> None:
    """Remove the remains of these runs, and finish interrupted removals. Keeps the state of other attempts, and what a process
    uses. On a file system without hard links, `bench clean --abandoned` removes them."""
    kinds = {record.key: record.kind for record in published if is_done(record)}
    for folder in store.partial_folders():
        if folder.name.startswith(GONE):
            remove_tree(folder)
        elif folder.name in kinds and not folder.is_symlink():
            _remove(store, kinds[folder.name], folder.name)


def _remove(store: Store, kind: str, key: str) -> None:
    def give_up(holder: str) -> None:
        raise WrongUse(holder)

    if _are_remains(store, kind, key):
        with contextlib.suppress(OSError, WrongUse), exclusive(store.partial(key) / "lock", give_up, has_ended):
            if _are_remains(store, kind, key):
                store.drop_partial(key)


def _are_remains(store: Store, kind: str, key: str) -> bool:
    """Whether a partial folder holds only a lock, or the attempt that was published, whose events are linked to the run."""
    partial, root = store.partial(key), store.partial(key) / "root"
    if any(partial.glob("complete-*")):
        return False
    try:
        return os.path.samefile(root / "out" / EVENTS_FILE, store.folder(kind, key) / EVENTS_FILE)
    except OSError:
        return not root.exists() and not (partial / ATTEMPTS).exists()
