"""Remaining work of a running `bench run`, noted in its store so that `bench status` can show it from another shell."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from pretrain_bench.benchmarks.specs.base import Spec
from pretrain_bench.benchmarks.support.foreign_files import read_plain
from pretrain_bench.benchmarks.support.locks import exclusive, holder, host
from pretrain_bench.harness.store.store import RECORD, Store, write_json

_NOTE, _LOCK = ".command-{}.json", ".command-{}.lock"


class NotedStage(Spec):
    """One stage that the command has to run."""

    kind: str
    seconds: float
    """Estimate in seconds, made when the command began."""


class ProgressNote(Spec):
    """The stages that a command has to run, by key, and its start in seconds since 1970."""

    began: float
    stages: dict[str, NotedStage]


class CommandUnderWay(NamedTuple):
    """A `bench run` now using a store: its process, the number of its finished stages, and the estimates of the others by key."""

    by: str
    stages: int
    left: dict[str, float]


@contextlib.contextmanager
def noted(store: Store, stages: Mapping[str, NotedStage]) -> Iterator[None]:
    """Publish the command's remaining stages for `bench status`, until the command ends in any way."""
    name, folder = f"{host()}-{os.getpid()}", store.root / ".partial"
    lock, note = folder / _LOCK.format(name), folder / _NOTE.format(name)
    with exclusive(lock):
        try:
            write_json(note, ProgressNote(began=time.time(), stages=dict(stages)).model_dump(mode="json"))
            yield
        finally:
            for path in (note, lock):
                path.unlink(missing_ok=True)


def commands_under_way(store: Store) -> list[CommandUnderWay]:
    """The commands now using a store. Notes of processes that have ended are ignored."""
    found = []
    for lock in sorted((store.root / ".partial").glob(_LOCK.format("*"))):
        by = holder(lock)
        try:
            note = ProgressNote.model_validate_json(read_plain(lock.with_suffix(".json")))
        except (OSError, ValidationError):
            continue
        if by is not None:
            left = {
                key: stage.seconds
                for key, stage in note.stages.items()
                if not _ended_since(store.folder(stage.kind, key) / RECORD, note.began)
            }
            found.append(CommandUnderWay(by, len(note.stages), left))
    return found


def _ended_since(record: Path, began: float) -> bool:
    try:
        return record.stat().st_mtime >= began
    except OSError:
        return False
