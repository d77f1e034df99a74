"""Let one process at a time use a place, among the processes of one machine or of several that share a file system.

The operating system releases a lock when its holder ends in any way, but only on one machine. The owner file beside the lock
(ownership.py) covers other machines.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from io import BufferedRandom, BufferedReader
from pathlib import Path

from pretrain_bench.benchmarks.support import ownership
from pretrain_bench.benchmarks.support.foreign_files import open_plain
from pretrain_bench.benchmarks.support.ownership import JobEnded, never

WAIT_SECONDS = 0.2
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
"""Errors of a file system without locks, such as Lustre mounted without `flock`."""
_MOST_HOLDER_BYTES = 1000


@contextlib.contextmanager
def exclusive(
    path: Path, waiting: Callable[[str], None] = lambda _: None, job_ended: JobEnded = never
) -> Iterator[None]:
    """Hold the lock file at `path`, created with its folder if missing. If another process holds it, `waiting` is called with
    the holder every WAIT_SECONDS, and may raise to give up. The holder may remove the file before releasing the lock.
    `job_ended` asks the holder's cluster whether its job has ended.

    Raises OSError if something other than a plain file is in its place.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = open_plain(path, os.O_RDWR | os.O_CREAT)  # a received store may hold a link in its place
        except FileNotFoundError:
            continue  # a holder that has just finished removed the folder
        with contextlib.ExitStack() as closing:
            closing.callback(file.close)
            try:
                holds = _hold(file, path, job_ended)
            except FileNotFoundError:
                continue
            if holds is None:
                closing.pop_all()
                break
            if holds:
                waiting(holds)
        time.sleep(WAIT_SECONDS if holds else 0)
    try:
        file.truncate(0)
        file.seek(0)
        file.write(ownership.this_process().encode())
        file.flush()
        yield
    finally:
        ownership.release(owner_file(path))
        file.close()


def _hold(file: BufferedReader | BufferedRandom, path: Path, job_ended: JobEnded) -> str | None:
    """Try to lock the open lock file. Returns None on success, the holder, or an empty text if the file is no longer the lock."""
    locks = True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _named_in(file)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        locks = False
    # The previous holder may have removed the open file; a different file is then the lock.
    if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
        return ""
    return ownership.claim(owner_file(path), job_ended, locked_here=locks)


def _named_in(file: BufferedReader | BufferedRandom) -> str:
    """The holder's description in the lock file."""
    file.seek(0)
    return file.read(_MOST_HOLDER_BYTES).decode(errors="replace").strip() or "another process"


def owner_file(path: Path) -> Path:
    """The path of the owner file of a lock file."""
    return path.with_name(path.name + ".owner")


def host() -> str:
    """The name of this machine, as others on a shared store see it."""
    return socket.gethostname()


def holder(path: Path, job_ended: JobEnded = never) -> str | None:
    """The description of the process that holds the lock file; None if it is free."""
    locks = False
    try:
        with open_plain(path) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                locks = True
            except BlockingIOError:
                return _named_in(file)
    except OSError:
        pass
    return ownership.owner(owner_file(path), job_ended, locked_here=locks)
