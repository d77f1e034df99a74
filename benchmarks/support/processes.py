"""Worker processes that end with their parent."""

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
    """Yield a pool whose processes end when their parent is killed, because they hold its locks while they live. An interrupt
    ends them at once: otherwise a second Ctrl-C during shutdown would leave them waiting for their parent.

    Raises EnvironmentCannot if a process is killed or none can be started.
    """
    try:
        multiprocessing.Lock()  # the pool needs semaphores
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
            "a worker process was killed, perhaps for lack of memory; free some memory, or check the system log, and try again"
        ) from None


def _end_with(parent: int) -> None:
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal signals the parent too, which ends this process
    threading.Thread(target=watch, daemon=True).start()
