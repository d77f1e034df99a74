"""One process at a time. The operating system drops a lock with its holder, however that ends: there is no stale lock."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def exclusive(path: Path, waiting: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Hold the lock file at `path`, made with its folder where missing. `waiting` is called once with the holder if another
    process holds it. The holder may remove the file before it drops the lock."""
    reported = False
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("a+")
        except FileNotFoundError:
            continue  # a holder that has finished removed the folder just now
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not reported:
                file.seek(0)
                waiting(file.read().strip() or "another process")
                reported = True
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
        file.write(f"{host()}, pid {os.getpid()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        file.flush()
        yield
    finally:
        file.close()


def host() -> str:
    """The name of this machine, as others on a shared store see it."""
    return socket.gethostname()


def holder(path: Path) -> str | None:
    """The text that the holder of the lock file wrote into it; None where no process holds it."""
    try:
        with path.open("r") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().strip() or "another process"
    except OSError:
        pass
    return None
