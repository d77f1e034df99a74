"""One process at a time. The operating system drops a lock with its holder, however that ends: there is no stale lock."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pretrain_bench.benchmarks.support.foreign_files import open_plain

_MOST_HOLDER_BYTES = 1000


@contextlib.contextmanager
def exclusive(path: Path, waiting: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Hold the lock file at `path`, made with its folder where missing; `waiting` is reported once who holds it, if somebody
    does, and may raise to give up. The file may be removed by its holder before the lock is dropped.

    Raises OSError for anything but a plain file in its place.
    """
    reported = False
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = open_plain(path, os.O_RDWR | os.O_CREAT)  # a received store may hold a link in its place
        except FileNotFoundError:
            continue  # a holder that has finished removed the folder just now
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not reported:
                file.seek(0)
                reported = True
                try:
                    waiting(file.read().decode(errors="replace").strip() or "another process")
                except BaseException:
                    file.close()
                    raise
            file.close()
            time.sleep(0.2)
            continue
        # The holder before us may have removed the file that we have open; then another one is the lock by now.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                break
        file.close()
    try:
        file.truncate(0)
        file.seek(0)
        file.write(f"{host()}, pid {os.getpid()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}".encode())
        file.flush()
        yield
    finally:
        file.close()


def host() -> str:
    """The name of this machine, as others on a shared store see it."""
    return socket.gethostname()


def holder(path: Path) -> str | None:
    """What the process that holds the lock file wrote into it, None where nobody holds it."""
    try:
        with open_plain(path) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read(_MOST_HOLDER_BYTES).decode(errors="replace").strip() or "another process"
    except OSError:
        pass
    return None
