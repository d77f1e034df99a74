"""Ownership of a place on a file system shared by several machines, by a file that only one process can create.

`flock` covers one machine, and not every network file system. The owner file names host, process, job and a token, and a thread
touches it every few seconds. It is taken over only if its owner is known to be gone: on this machine, if the process has
ended; on another machine, if the cluster reports the job as ended, or if the heartbeat is old and the host does not answer.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from pretrain_bench.benchmarks.specs.base import Spec
from pretrain_bench.benchmarks.support.errors import EnvironmentCannot
from pretrain_bench.benchmarks.support.foreign_files import read_plain

CLOCK_SECONDS = 5.0
"""Largest step of the clock, and so of a process's start time, that does not make it another process."""
HEARTBEAT_SECONDS = 10.0
ASK_AFTER_SECONDS = 30.0
"""Age of a heartbeat from which the cluster is asked whether the job has ended."""
OLD_SECONDS = 120.0
"""Age from which a heartbeat counts as old; clocks of a cluster differ by less."""
ANSWER_SECONDS = 3.0
MOST_OWNER_BYTES = 4096
JOB_VARIABLE = "BENCH_JOB"
"""Environment variable with the job of this process, as `slurm:17_3`; a worker sets it."""

JobEnded = Callable[[str], bool]
"""Whether a job has ended according to its cluster; False if the cluster does not answer."""


class Owner(Spec):
    """The owner of a place. `boot` and `namespace` tell which process ids can be compared."""

    host: str
    boot: str
    namespace: str
    pid: int
    started: float
    job: str | None = None
    since: str
    token: str

    def __str__(self) -> str:
        job = f", job {self.job}" if self.job else ""
        return f"{self.host}, pid {self.pid}{job}, since {self.since}"


def this_process() -> str:
    """The description of this process for others that wait for it."""
    return str(_this_process())


def never(job: str) -> bool:
    """Always false: without a cluster, no job is known to have ended."""
    return False


def claim(path: Path, job_ended: JobEnded = never, locked_here: bool = False) -> str | None:
    """Make this process the owner of `path`. Returns None, or the present owner. Raises FileNotFoundError if its folder is gone.

    `locked_here`: this process holds a lock that would exclude every process of this machine, in any container.
    """
    mine = _this_process()
    if _create(path, mine.model_dump_json()):
        _hearts.add(path, mine.token)
        return None
    theirs = _read(path)
    if not _is_gone(path, theirs, job_ended, locked_here):
        return "another process" if theirs is None else str(theirs)
    # Only the creator of this file may replace the owner, so that the owner file itself is never absent.
    marker = path.with_name(f"{path.name}.after-{'' if theirs is None else theirs.token}")
    if not _create(marker, ""):
        if _age(marker) > OLD_SECONDS:
            marker.unlink(missing_ok=True)
        return "another process, which takes it over"
    try:
        if _read(path) != theirs:
            return "another process"
        temporary = path.with_name(f"{path.name}.{mine.token}")
        temporary.write_text(mine.model_dump_json())
        os.replace(temporary, path)
    finally:
        marker.unlink(missing_ok=True)
    _hearts.add(path, mine.token)
    return None


def release(path: Path) -> None:
    """End this process's ownership of `path`, if any."""
    token = _hearts.drop(path)
    held = _read(path)
    if token is not None and held is not None and held.token == token:
        path.unlink(missing_ok=True)


def owner(path: Path, job_ended: JobEnded = never, locked_here: bool = False) -> str | None:
    """The owner of `path`; None if there is none or it is known to be gone. `locked_here` as in `claim`."""
    if not path.exists():
        return None
    held = _read(path)
    if _is_gone(path, held, job_ended, locked_here):
        return None
    silent = _age(path)
    late = f", silent for {silent:.0f} s; remove {path} if that process has ended" if silent > OLD_SECONDS else ""
    return ("another process" if held is None else str(held)) + late


def drop_gone(path: Path, job_ended: JobEnded) -> None:
    """Remove the file of an owner known to be gone, since processes elsewhere may be unable to tell."""
    if path.exists() and owner(path, job_ended) is None and claim(path, job_ended) is None:
        release(path)


def check_owned(path: Path) -> None:
    """Raises EnvironmentCannot if this process owned `path` and another one has taken it over."""
    token, held = _hearts.token(path), _read(path)
    if token is not None and (held is None or held.token != token):
        by = "and has ended since" if held is None else str(held)
        raise EnvironmentCannot(
            f"{path.parent}: this process was silent too long, so another one took over its stage ({by}); nothing was lost: run "
            "the command again"
        )


def _is_gone(path: Path, held: Owner | None, job_ended: JobEnded, locked_here: bool) -> bool:
    """Whether an owner is known to be gone. An unreadable file is being written, or was left half-written."""
    age = _age(path)
    if held is None:
        return age > OLD_SECONDS
    here = _this_process()
    if held.host == here.host and held.boot != here.boot:
        return True  # the machine has rebooted
    if locked_here and held.boot and held.boot == here.boot:
        return True  # also for another container of this machine, whose processes are invisible
    if (held.boot, held.namespace) == (here.boot, here.namespace):
        return not is_running(held.pid, held.started)
    if held.job is not None and age > ASK_AFTER_SECONDS and job_ended(held.job):
        return True
    return age > OLD_SECONDS and not _answers(held.host, int(time.monotonic() / OLD_SECONDS))


def process_space() -> str:
    """The scope in which process ids are comparable: this boot of this machine, and this process namespace."""
    return "/".join((socket.gethostname(), _boot(), _namespace()))


def is_running(pid: int, started: float) -> bool:
    """Whether the process with this id and start (Unix time) in this process space is running; true if unknown."""
    import psutil

    try:
        process = psutil.Process(pid)
        differs = abs(process.create_time() - started) >= CLOCK_SECONDS  # false for NaN, which says nothing
        return not differs and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


@functools.lru_cache(maxsize=64)
def _answers(host: str, period: int) -> bool:
    """Whether a host answers, even by refusing the connection; asked once per `period`."""
    try:
        socket.create_connection((host, 22), timeout=ANSWER_SECONDS).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return True


def _create(path: Path, content: str) -> bool:
    """Create a file atomically and durably, as far as the file system allows; False if it exists."""
    try:
        _link_new(path, content)
        return True
    except FileExistsError:
        return False
    except OSError:
        if not path.parent.is_dir():
            raise
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        return False
    with open(descriptor, "w") as file:
        file.write(content)
    return True


def _link_new(path: Path, content: str) -> None:
    """Write an unnamed file, then link it. Raises OSError on file systems without unnamed files, such as NFS."""
    descriptor = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, content.encode())
        os.fsync(descriptor)
        # With a folder descriptor, `link` follows /proc/self/fd to the file itself.
        os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor, follow_symlinks=True)
    finally:
        os.close(descriptor)


def _read(path: Path) -> Owner | None:
    try:
        return Owner.model_validate_json(read_plain(path, MOST_OWNER_BYTES))
    except (OSError, ValidationError):
        return None


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _this_process() -> Owner:
    pid = os.getpid()
    return Owner(
        host=socket.gethostname(), boot=_boot(), namespace=_namespace(), pid=pid, started=_started(pid),
        job=os.environ.get(JOB_VARIABLE), since=time.strftime("%Y-%m-%d %H:%M:%S"), token=uuid.uuid4().hex,
    )  # fmt: skip


@functools.cache
def _started(pid: int) -> float:
    import psutil

    return float(psutil.Process(pid).create_time())


@functools.cache
def _boot() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _namespace() -> str:
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


class _Hearts:
    """The owner files of this process, which one thread touches."""

    def __init__(self) -> None:
        self._tokens: dict[Path, str] = {}
        self._lock = threading.Lock()
        self._beating = 0
        """Process id of the thread that touches the files: a forked process needs its own."""

    def add(self, path: Path, token: str) -> None:
        """Start touching a file."""
        with self._lock:
            self._tokens[path] = token
            if self._beating != os.getpid():
                self._beating = os.getpid()
                threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def drop(self, path: Path) -> str | None:
        """Stop touching a file; returns its token."""
        with self._lock:
            return self._tokens.pop(path, None)

    def token(self, path: Path) -> str | None:
        """The token of a file of this process."""
        with self._lock:
            return self._tokens.get(path)

    def _beat(self) -> None:
        while True:
            time.sleep(HEARTBEAT_SECONDS)
            with self._lock:
                held = dict(self._tokens)
            for path, token in held.items():
                now = _read(path)
                if now is not None and now.token == token:
                    with contextlib.suppress(OSError):
                        os.utime(path)


_hearts = _Hearts()
