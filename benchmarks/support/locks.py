"""One process at a time, on one machine and on several that share a file system.

The operating system drops a lock with its holder, however that ends, but only among the processes of one machine. The owner file
beside the lock (ownership.py) holds for other machines too.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from io import TextIOWrapper
from pathlib import Path

from pretrain_bench.benchmarks.support import ownership
from pretrain_bench.benchmarks.support.ownership import JobEnded, never

WAIT_SECONDS = 0.2
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
"""Errors of a file system without locks, such as Lustre mounted without `flock`."""


@contextlib.contextmanager
def exclusive(
    path: Path, waiting: Callable[[str], None] = lambda _: None, job_ended: JobEnded = never
) -> Iterator[None]:
    """Hold the lock file at `path`, made with its folder where missing. `waiting` is called once with the holder if another
    process holds it. The holder may remove the file before it drops the lock. `job_ended`: whether the job of a holder has
    ended, by the word of its cluster."""
    reported = False
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("a+")
        except FileNotFoundError:
            continue  # a holder that has finished removed the folder just now
        try:
            holds = _hold(file, path, job_ended)
        except FileNotFoundError:
            file.close()
            continue
        if holds is None:
            break
        if holds and not reported:
            waiting(holds)
            reported = True
        file.close()
        time.sleep(WAIT_SECONDS if holds else 0)
    try:
        file.truncate(0)
        file.write(ownership.this_process())
        file.flush()
        yield
    finally:
        ownership.release(owner_file(path))
        file.close()


def _hold(file: TextIOWrapper, path: Path, job_ended: JobEnded) -> str | None:
    """Try to hold the lock file that is open. Returns None, or the holder; the empty text where it is not the lock any more."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        return file.read().strip() or "another process"
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    # The holder before us may have removed the file that we have open; then another one is the lock by now.
    if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
        return ""
    return ownership.claim(owner_file(path), job_ended)


def owner_file(path: Path) -> Path:
    """The owner file of a lock file."""
    return path.with_name(path.name + ".owner")


def host() -> str:
    """The name of this machine, as others on a shared store see it."""
    return socket.gethostname()


def holder(path: Path, job_ended: JobEnded = never) -> str | None:
    """The process that holds the lock file, as it describes itself; None where there is none."""
    try:
        with path.open("r") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().strip() or "another process"
    except OSError:
        pass
    return ownership.owner(owner_file(path), job_ended)
