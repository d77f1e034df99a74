"""Cleaning: prune artifacts and withdraw runs on the record, and delete abandoned partial runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, get_args

from pretrain_bench.api.stores import Runs, folder_to_write
from pretrain_bench.benchmarks.support.errors import WrongUse, writing
from pretrain_bench.benchmarks.support.files import readable
from pretrain_bench.harness.executors.usage import folder_bytes
from pretrain_bench.harness.store.chain import MOST_REASON
from pretrain_bench.harness.store.retention import Keep, prunable, prune
from pretrain_bench.harness.store.withdrawal import publish_complete, withdrawable
from pretrain_bench.harness.store.withdrawal import withdraw as withdraw_runs


class Removed(NamedTuple):
    """Files that were removed from one run, or would be in a dry run."""

    key: str
    stage: str
    files: int
    bytes: int


def clean(runs: Runs = "runs", *, keep: Keep = "best", abandoned: bool = False, dry_run: bool = False) -> list[Removed]:
    """Prune artifacts of a folder of runs; records, events and logs stay, and an audit distinguishes pruned from
    missing files.

    Args:
        runs: the folder of runs.
        keep: `none`: no weights, no predictions; `final`: backbones and final predictions; `best`: all weights of
            pre-training and all predictions; `all`: everything.
        abandoned: also delete partial runs that no process works on, so that they cannot be resumed.
        dry_run: remove nothing.

    Raises WrongUse for a bundle, and for a record that cannot be read, before anything is removed; EnvironmentCannot where
    the folder cannot be written.
    """
    if keep not in get_args(Keep):
        raise WrongUse(f"--keep {keep!r}: expected one of {', '.join(get_args(Keep))}")
    store = folder_to_write(runs)
    root = store.root
    removable = list(prunable(store, keep))
    if problems := store.unreadable():
        raise WrongUse(f"nothing was removed: {problems[0]}")
    folders = store.partial_folders() if abandoned else []
    idle = [p for p in folders if store.held_by(p.name) is None]
    left = {p: Removed(p.name, "left under way", sum(1 for _ in p.rglob("*")), folder_bytes(p)) for p in idle}
    if not dry_run:
        with writing(root, "pruning"):
            removable = [one for one in removable if prune(one, keep)]
            # A process may have taken one up meanwhile.
            left = {folder: one for folder, one in left.items() if store.drop_abandoned(folder)}
    removed = [Removed(f.record.key, f"{f.record.method}/{f.record.stage}", len(f.names), f.bytes) for f in removable]
    return [*removed, *left.values()]


def withdraw(runs: Runs, keys: str | Iterable[str], *, why: str, dry_run: bool = False) -> list[Removed]:
    """Remove runs and all runs that build on them. The chain keeps a line for each with the reason, which audits print.

    Args:
        runs: the folder of runs.
        keys: the beginnings of their keys.
        why: the reason, for readers of an audit, in at most 500 characters.
        dry_run: remove nothing.

    Raises WrongUse for a bundle, a reason that is empty or too long, a key of no run or of several, unreadable runs, and runs
    that a stage in progress needs; nothing is removed then. Raises EnvironmentCannot where the folder cannot be written.
    """
    why = readable(why).strip()
    if not why or len(why) > MOST_REASON:
        raise WrongUse(
            f"--withdraw: give the reason, which audits print, with --why TEXT (at most {MOST_REASON} characters)"
        )
    store, keys = folder_to_write(runs), [keys] if isinstance(keys, str) else list(keys)
    store.check()
    if not dry_run:
        with writing(store.root, "withdrawing runs"):
            publish_complete(store)  # otherwise a run that is only complete would be missed, here and in the list
    removed = []
    for record in withdrawable(store, keys):
        folder = store.folder(record.kind, record.key)
        files = sum(p.is_file() for p in folder.rglob("*"))
        removed.append(Removed(record.key, f"{record.method}/{record.stage}", files, folder_bytes(folder)))
    if not dry_run:
        with writing(store.root, "withdrawing runs"):
            withdraw_runs(store, keys, why)
    return removed
