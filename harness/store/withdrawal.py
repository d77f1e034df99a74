"""Withdraw runs: remove them and all that builds on them, and say why in the chain, so that an audit can name them."""

from __future__ import annotations

import os
from collections.abc import Iterable

from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.benchmarks.support.files import remove_tree, sync
from pretrain_bench.harness.contract.records import Record
from pretrain_bench.harness.store import chain
from pretrain_bench.harness.store.retention import needed_by_stages_under_way
from pretrain_bench.harness.store.store import GONE, Store


def withdrawable(store: Store, prefixes: Iterable[str]) -> list[Record]:
    """The runs whose keys begin with the prefixes, and all runs that build on them; a run comes after those that build on it.

    Raises WrongUse for a prefix of no run or of several, an unreadable run, and runs that a stage in progress needs.
    """
    named = [store.find(prefix).name for prefix in prefixes]
    records = {record.key: record for record in store.records()}
    if problems := store.unreadable():
        raise WrongUse(f"nothing was removed: {problems[0]}")
    parents = {key: store.spec(record.kind, key).parents.values() for key, record in records.items()}
    found: list[Record] = []

    def add(key: str) -> None:
        for other, needed in parents.items():
            if key in needed:
                add(other)
        if records[key] not in found:
            found.append(records[key])

    for key in named:
        add(key)
    in_use = needed_by_stages_under_way(store)
    for record in found:
        if record.key in in_use or store.held_by(record.key) is not None:
            name = f"{record.kind}/{record.key}"
            raise WrongUse(f"nothing was removed: a stage in progress needs {name}; try again once it has ended")
    return found


def withdraw(store: Store, record: Record, why: str) -> None:
    """Remove a run with its resumable state, after adding a line to the chain for each of its attempts.

    If the process is killed in between, the run is still there; withdrawing it again finishes the removal. Raises WrongUse if
    another process holds the stage, and OSError.
    """

    def give_up(holder: str) -> None:
        raise WrongUse(f"{record.kind}/{record.key} was not removed: {holder} runs this stage")

    folder = store.folder(record.kind, record.key)
    with store.lock(record.key, give_up) as partial:
        chain.append_withdrawn(store.root, record.kind, record.key, why)
        gone = partial.with_name(f"{GONE}{record.key}-{os.getpid()}-run")
        os.rename(folder, gone)
        sync(folder.parent)
        remove_tree(gone)
        store.drop_partial(record.key)
