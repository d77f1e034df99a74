"""Remove what a process that is killed between publishing a run and removing its partial state leaves behind.

Every later command finds the run in the store and has no reason to lock its stage, so the scheduler removes these remains once it
has finished.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from functools import partial

from pretrain_bench.harness.contract.events import EVENTS_FILE
from pretrain_bench.harness.contract.records import Record
from pretrain_bench.harness.store.store import ATTEMPTS, GONE, Store, is_done


def remove_remains(store: Store, published: Iterable[Record]) -> None:
    """Remove the remains of these runs, and finish interrupted removals. Keeps the state of other attempts, and what a process
    uses. On a file system without hard links, `bench clean --abandoned` removes them."""
    kinds = {record.key: record.kind for record in published if is_done(record)}
    for folder in store.partial_folders():
        if folder.name.startswith(GONE):
            store.drop_abandoned(folder)
        elif folder.name in kinds and not folder.is_symlink():
            are_remains = partial(_are_remains, store, kinds[folder.name], folder.name)
            if are_remains():
                with contextlib.suppress(OSError):
                    store.drop_abandoned(folder, are_remains)


def _are_remains(store: Store, kind: str, key: str) -> bool:
    """Whether a partial folder holds only a lock, or the attempt that was published, whose events are linked to the run."""
    folder, root = store.partial(key), store.partial(key) / "root"
    if any(folder.glob("complete-*")):
        return False
    try:
        return os.path.samefile(root / "out" / EVENTS_FILE, store.folder(kind, key) / EVENTS_FILE)
    except OSError:
        return not root.exists() and not (folder / ATTEMPTS).exists()
