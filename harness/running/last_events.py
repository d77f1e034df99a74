"""Read the first and last events of a stage's possibly long file, for its identity and progress."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pretrain_bench.benchmarks.support.foreign_files import open_plain
from pretrain_bench.harness.contract.events import EVENTS_FILE, Event, Step, parse_event
from pretrain_bench.harness.store.store import Store

TAIL_BYTES = 1 << 16


def first_and_last(path: Path) -> Iterator[Event]:
    """The events at the beginning and end of a possibly long file."""
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


def last_step(store: Store, key: str) -> int:
    """The last step that a running stage has reported; 0 if none."""
    events = first_and_last(store.partial(key) / "root/out" / EVENTS_FILE)
    return max((event.step for event in events if isinstance(event, Step)), default=0)
