"""Withdraw runs: remove them and all that builds on them, and say why in the chain, so that an audit can name them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from contextlib import ExitStack

from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.benchmarks.support.files import remove_tree, sync
from pretrain_bench.harness.contract.records import Record
from pretrain_bench.harness.store import chain
from pretrain_bench.harness.store.retention import needed_by_stages, parents_of_stage
from pretrain_bench.harness.store.store import GONE, KINDS, Store


def withdrawable(store: Store, prefixes: Iterable[str], locked: Collection[str] = ()) -> list[Record]:
    """The runs whose keys begin with the prefixes, and all runs that build on them; a run comes after those that build on it.
    This process holds the locks of the `locked` ones.

    Raises WrongUse for a prefix of no run or of several, for unreadable runs or a damaged chain, and for runs on which a stage in
    progress builds.
    """
    whole = chain.read(store.root)
    here = {path.name for kind in KINDS for path in (store.root / kind).glob("*")}
    gone = {link.key for link in (whole.links if whole else ()) if link.outcome == chain.WITHDRAWN} - here
    # A withdrawal that was cut off has removed some of its runs already.
    named = [store.find(prefix).name for prefix in prefixes if not _begins(gone, prefix) or _begins(here, prefix)]
    records = {record.key: record for record in store.records()}
    problems = [
        *store.unreadable(),
        *(f"{store.root / chain.CHAIN_FILE}: {fault}" for fault in (whole.faults if whole else [])),
    ]
    problems += [f"{key}: not a run, but a folder or file without a record" for key in named if key not in records]
    if problems:
        raise WrongUse(f"nothing was removed: {problems[0]}")
    try:
        parents = {key: store.spec(record.kind, key).parents.values() for key, record in records.items()}
    except WrongUse as error:
        raise WrongUse(f"nothing was removed: {error}") from None
    found: list[Record] = []

    def add(key: str) -> None:
        for other, needed in parents.items():
            if key in needed:
                add(other)
        if records[key] not in found:
            found.append(records[key])

    for key in named:
        add(key)
    in_use = needed_by_stages(store, only_running=True, but=locked)  # a killed stage runs what it needs again
    for record in found:
        if record.key in in_use:
            name = f"{record.kind}/{record.key}"
            raise WrongUse(f"nothing was removed: a stage in progress builds on {name}; try again once it has ended")
    return found


def _begins(keys: Iterable[str], prefix: str) -> bool:
    return any(key.startswith(prefix) for key in keys)


def withdraw(store: Store, prefixes: Iterable[str], why: str) -> None:
    """Remove the `withdrawable` runs with their resumable state, after adding lines to the chain.

    Raises WrongUse as `withdrawable`, and if a process holds one of the stages or ran another that builds on them; nothing is
    removed then. If this process is killed, what is still there can be withdrawn again. Raises OSError.
    """
    prefixes = list(prefixes)

    def give_up(holder: str) -> None:
        raise WrongUse(f"nothing was removed: {holder} runs one of these stages; try again once it has ended")

    found = withdrawable(store, prefixes)
    with ExitStack() as locks:
        for record in found:
            locks.enter_context(store.lock(record.key, give_up))
        locked = {record.key for record in found}
        if {record.key for record in withdrawable(store, prefixes, locked)} != locked:
            raise WrongUse("nothing was removed: other runs build on these by now; try again")
        for record in found:
            chain.append_withdrawn(store.root, record, why, store.records)
            folder = store.folder(record.kind, record.key)
            gone = store.partial(record.key).with_name(f"{GONE}{record.key}-{os.getpid()}-run")
            os.rename(folder, gone)
            sync(folder.parent)
            remove_tree(gone)
            store.drop_partial(record.key)
    removed = {record.key for record in found}
    for folder in store.partial_folders():
        if parents_of_stage(folder) & removed:
            store.drop_abandoned(folder)  # it would resume from what was made of the withdrawn run


def publish_complete(store: Store) -> None:
    """Publish the runs of processes that were killed just before, so that they are found."""
    for folder in store.partial_folders():
        if any(folder.glob("complete-*")) and store.held_by(folder.name) is None:
            with store.lock(folder.name, lambda holder: None):
                pass
