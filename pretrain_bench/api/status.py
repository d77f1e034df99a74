"""Status: stages that run in a store now, and how the others ended."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ValidationError

from pretrain_bench.api.stores import Runs, open_runs
from pretrain_bench.benchmarks.support.foreign_files import open_plain, read_plain
from pretrain_bench.harness.contract.events import EVENTS_FILE, Event, Start, Step, parse_event
from pretrain_bench.harness.contract.records import Outcome
from pretrain_bench.harness.contract.stage import STAGE_FILE
from pretrain_bench.harness.store.store import KINDS, RECORD, Store

TAIL_BYTES = 1 << 16
RATE_STEPS = 50
"""Steps over which the current rate is averaged, the latest ones."""
DAMAGED = "damaged"


class StageUnderWay(NamedTuple):
    """A stage that runs, or that was left and can be resumed."""

    key: str
    stage: str
    state: str
    """`running` or `left`."""
    by: str | None
    """The process that runs it."""
    step: int
    steps: int
    steps_per_second: float | None
    seconds_left: float | None


class Status(NamedTuple):
    """Stages under way, and the number of runs by outcome; `damaged` counts records that cannot be read."""

    under_way: list[StageUnderWay]
    outcomes: dict[str, int]


class _Ended(BaseModel):
    """What a count of outcomes needs of a record."""

    outcome: Outcome


class _Described(BaseModel):
    """What a title needs of a stage's spec."""

    kind: str
    method: str
    stage: str
    task: str | None = None


def status(runs: Runs = "runs") -> Status:
    """Read what runs in a folder now, from another process, and how many runs ended in which way. Raises WrongUse."""
    store = open_runs(runs)
    store.check()
    root = store.root
    partial = (folder for folder in sorted((root / ".partial").glob("[!.]*")) if folder.is_dir())
    ended = (_outcome(root / kind / name) for kind in KINDS for name in _names(root / kind))
    outcomes = Counter(outcome for outcome in ended if outcome is not None)
    return Status([_under_way(store, folder) for folder in partial], dict(outcomes))


def _names(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []


def _under_way(store: Store, folder: Path) -> StageUnderWay:
    holder = store.held_by(folder.name)
    events = list(_first_and_last(folder / "root/out" / EVENTS_FILE))
    starts = [e for e in events if isinstance(e, Start)]
    steps = [e for e in events if isinstance(e, Step)]
    seconds = [e.seconds for e in steps[-RATE_STEPS:]]
    rate = len(seconds) / sum(seconds) if sum(seconds) > 0 else None
    step, total = (steps[-1].step if steps else 0), (starts[-1].total_steps if starts else 0)
    if steps and steps[-1].done:
        total = round(step / steps[-1].done)
    return StageUnderWay(
        key=folder.name,
        stage=_title(folder / "root/in" / STAGE_FILE),
        state="running" if holder else "left",
        by=holder,
        step=step,
        steps=total,
        steps_per_second=rate,
        seconds_left=(total - step) / rate if rate and holder else None,
    )


def _title(path: Path) -> str:
    try:
        spec = _Described.model_validate_json(read_plain(path))
    except (OSError, ValidationError):
        return "?"
    return f"{spec.method}/{spec.stage}" if spec.kind == "pretrain" else f"{spec.method} -> {spec.task}"


def _first_and_last(path: Path) -> Iterator[Event]:
    """The events at the beginning and at the end of a file, which may be long."""
    try:
        with open_plain(path, os.O_RDONLY) as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(TAIL_BYTES)
            file.seek(max(len(head), size - TAIL_BYTES))
            tail = file.read(TAIL_BYTES)
    except OSError:
        return
    for line in [*head.splitlines(keepends=True), *tail.splitlines(keepends=True)]:
        event = parse_event(line)
        if event is not None:
            yield event


def _outcome(folder: Path) -> str | None:
    """The outcome in a run's record; None where there is no record."""
    try:
        return _Ended.model_validate_json(read_plain(folder / RECORD)).outcome.value
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError):  # a link, a pipe or a folder in its place; not JSON; not an outcome
        return DAMAGED
