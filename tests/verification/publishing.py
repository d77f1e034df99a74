"""Publishing in a store, for verifications that interrupt it: the steps of a process, and the invariants afterwards."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.contract.events import EVENTS_FILE
from pretrain_bench.harness.contract.records import Outcome, Record
from pretrain_bench.harness.contract.stage import StageSpec
from pretrain_bench.harness.store import chain
from pretrain_bench.harness.store.hashes import hash_artifacts, hash_side_files
from pretrain_bench.harness.store.store import (
    ATTEMPTS,
    LOG,
    RECORD,
    Store,
    is_done,
    read_record,
)
from tests.harness.store.test_store import fill, record, spec

CODE, CONFUSION = {"module": "0" * 64}, {"final": {"voxel": [[1]]}}
Done = tuple[str, int, str]
"""Key, attempt and record hash of a run reported as finished."""


def publish(store: Store, of: StageSpec, outcome: Outcome = Outcome.ok) -> Done:
    """Act as a stage runner: own the stage, reuse a finished run, else write output and complete the next attempt."""
    store.check_writable()
    with store.lock(of.key, lambda _: None) as partial:
        existing = store.record(of.kind, of.key)
        if existing is not None and (is_done(existing) or existing.outcome == outcome):
            store.drop_partial(of.key)
            return of.key, existing.attempt, existing.sha256
        attempt = store.next_attempt(of)
        fill(store, of, f"weights of attempt {attempt} " * 500)
        (partial / "root/out" / EVENTS_FILE).write_text(f'{{"attempt": {attempt}}}\n' * 200)
        (partial / LOG).write_text("a line\n" * 500)
        artifacts = hash_artifacts(partial / "root/out/artifacts") if outcome == Outcome.ok else {}
        files = hash_side_files(partial / "root/out", partial / LOG, {"code.json": CODE, "confusion.json": CONFUSION})
        made = record(of, attempt, outcome, artifacts=artifacts, files=files)
        store.complete(of, made, CODE, CONFUSION)
        return of.key, attempt, made.sha256


def first(store: Store) -> Done:
    """Publish a run for the first time."""
    return publish(store, spec())


def replacing(store: Store) -> Done:
    """Publish a failed run, then the attempt that replaces it."""
    publish(store, spec(), Outcome.crashed)
    return publish(store, spec())


SCENARIOS: dict[str, Callable[[Store], Done]] = {"first": first, "replacing": replacing}


def problems(store: Store, promised: list[Done], ended: bool) -> Iterator[str]:
    """Lost, duplicated, damaged or leftover runs and files. `promised` were reported as finished; `ended`: no work is in progress."""
    if store.root.is_dir():  # killed before it was created
        yield from store.unreadable()
    attempts: dict[str, dict[int, str]] = {}
    for kind_key in sorted(store.root.glob("*/*/record.json")):
        folder = kind_key.parent
        try:
            counted = read_record(kind_key)
            attempts[folder.name] = {int(p.name): read_record(p / RECORD).sha256 for p in (folder / ATTEMPTS).iterdir()}
        except WrongUse as error:
            yield str(error)
            continue
        if attempts[folder.name].get(counted.attempt) != counted.sha256:
            yield f"{folder.name}: the record that counts is not that of its attempt"
        yield from _damaged(folder, counted)
    for key, attempt, sha256 in promised:
        if attempts.get(key, {}).get(attempt) != sha256:
            yield f"{key}: attempt {attempt} was finished and is lost"
    yield from _chain_problems(store, attempts, ended)
    if ended:
        left = [
            p.relative_to(store.root)
            for p in (store.root / ".partial").glob("*")
            if not p.name.startswith(".chain.lock")
        ]
        yield from (f"{path} is left behind" for path in left)


def _damaged(folder: Path, counted: Record) -> Iterator[str]:
    entries = [(f"artifacts/{name}", entry) for name, entry in counted.artifacts.items()] + list(counted.files.items())
    for name, entry in entries:
        try:
            content = (folder / name).read_bytes()
        except OSError as error:
            yield f"{folder.name}/{name}: {error.strerror}"
            continue
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            yield f"{folder.name}/{name}: {len(content)} bytes are not what the record names"


def _chain_problems(store: Store, attempts: dict[str, dict[int, str]], ended: bool) -> Iterator[str]:
    read = chain.read(store.root)
    links = read.links if read else []
    yield from read.faults if read else ()
    named = [link.record_sha256 for link in links if link.outcome not in chain.NOTES]
    if len(named) != len(set(named)):
        yield "the chain names a run twice"
    if any(link.outcome == chain.LOST for link in links):
        yield "the chain admits a loss"
    published = {sha256 for of_key in attempts.values() for sha256 in of_key.values()}
    if ended and published - set(named):
        yield "the chain does not name a run that is here"
    if ended and set(named) - published:
        yield "the chain names a run that is not here"
