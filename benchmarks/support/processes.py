"""Worker processes that do not outlive the one they work for."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from pretrain_bench.benchmarks.support.errors import EnvironmentCannot

POLL_SECONDS = 0.2


@contextmanager
def process_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool whose processes end when their parent is killed: they hold its locks as long as they live. One that is interrupted
    ends them at once: a second Ctrl-C, while it waited for them, would leave them waiting for it.

    Raises EnvironmentCannot where one of them is killed, or none can be started.
    """
    try:
        multiprocessing.Lock()  # the pool needs some
    except OSError as error:
        raise EnvironmentCannot(
            f"worker processes cannot be started: {error.strerror or error}; they need semaphores, so /dev/shm must be mounted, "
            "writable and not full"
        ) from None
    others = set(multiprocessing.active_children())
    try:
        with ProcessPoolExecutor(workers, initializer=_end_with, initargs=(os.getpid(),)) as pool:
            try:
                yield pool
            except Exception:
                pool.shutdown(cancel_futures=True)
                raise
            except BaseException:
                for worker in set(multiprocessing.active_children()) - others:
                    worker.kill()
                raise
    except BrokenProcessPool:
        raise EnvironmentCannot(
            "a worker process was killed, perhaps for lack of memory; free some, or look at the system's log, and try again"
        ) from None


def _end_with(parent: int) -> None:
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal tells the parent as well, which ends this one
    threading.Thread(target=watch, daemon=True).start()
