"""Worker processes that do not outlive the one they work for."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from benchmarks.errors import EnvironmentCannot

POLL_SECONDS = 0.2


@contextmanager
def process_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool whose processes end when their parent is killed: they hold its locks as long as they live.

    Raises EnvironmentCannot where one of them is killed.
    """
    try:
        with ProcessPoolExecutor(workers, initializer=_end_with, initargs=(os.getpid(),)) as pool:
            yield pool
    except BrokenProcessPool:
        raise EnvironmentCannot(
            "a worker process was killed, perhaps for want of memory; free some, or look at the system's log, and try again"
        ) from None


def _end_with(parent: int) -> None:
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
