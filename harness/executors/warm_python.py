"""A Python process that has imported torch and forks one stage at a time, which saves each stage the seconds of that import.

Each stage is a separate process with its own session, limits, output and working folder, as if started by `python -m MODULE`. The
waiting process imports only third-party packages, so a stage reads this project's code as it is when the stage starts. Linux
only. This file also runs as a script, so it imports only the standard library.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import random
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

PRELOADED = ("torch", "numpy", "pydantic", "yaml")
IDLE_SECONDS = 60.0
"""Idle time after which a waiting process ends."""
LOOK_SECONDS = 0.5
"""Interval between checks whether the harness is alive."""
START_SECONDS = 300.0
"""How long importing the packages may take. Then the stage is started without, under its own limits."""
STAGE_SIGNALS: dict[signal.Signals, Any] = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
"""Signals that the waiting process ignores, and their handlers at the start of a stage."""
LARGEST_MESSAGE = 1 << 16
PR_SET_PDEATHSIG = 1


class ForkedStage:
    """A stage that a warm process forked, with the part of `subprocess.Popen` that following it needs."""

    def __init__(self, warm: WarmPython, pid: int) -> None:
        self.pid = pid
        self.returncode: int | Any = None
        self._warm = warm

    def poll(self) -> int | None:
        """The exit code of a stage that has ended (negative: the signal that ended it), else None."""
        if self.returncode is None and self._warm.has_message(0.0):
            self._end(self._warm.receive())
        return self.returncode

    def wait(self) -> int:
        """Wait for the end, and return the exit code."""
        while self.poll() is None:
            self._warm.has_message(LOOK_SECONDS)
        return self.returncode or 0

    def _end(self, message: dict[str, Any] | None) -> None:
        """Take the exit code; a stage whose warm process is gone was killed with it."""
        self.returncode = message["exit"] if message else -signal.SIGKILL
        if message:
            self._warm.put_back()


class WarmPython:
    """This side of a warm process. One that idles is used again by a stage with the same environment."""

    _idle: defaultdict[tuple[tuple[str, str], ...], list[WarmPython]] = defaultdict(list)
    _lock = threading.Lock()

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = tuple(sorted(environment.items()))
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno()), str(os.getpid())],
                cwd="/",
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=[theirs.fileno()],
            )

    @classmethod
    def take(cls, environment: Mapping[str, str]) -> WarmPython:
        """Return an idle process with this environment, or start one."""
        with cls._lock:
            for idle in cls._idle.values():
                # An idle process sends nothing: it is readable only when it has ended.
                for ended in [warm for warm in idle if warm.has_message(0.0)]:
                    idle.remove(ended)
                    ended.close()
            if same := cls._idle[tuple(sorted(environment.items()))]:
                return same.pop()
        return cls(environment)

    def put_back(self) -> None:
        """Keep it for the next stage."""
        with self._lock:
            self._idle[self._environment].append(self)

    def fork(
        self,
        arguments: Sequence[str],
        folder: Path,
        output: BinaryIO,
        disk_mib: int | None,
        cancelled: Callable[[], bool],
    ) -> ForkedStage | None:
        """Fork a stage that runs the module `arguments[0]` with the other arguments in `folder`, prints to `output` and may
        write files of `disk_mib` MiB. Returns None if the process ended or failed to start, for example without torch.

        Raises KeyboardInterrupt if `cancelled` becomes true before the stage has started.
        """
        request = {"arguments": list(arguments), "folder": str(folder), "disk_mib": disk_mib}
        try:
            socket.send_fds(self._channel, [json.dumps(request).encode()], [output.fileno()])
            deadline = time.monotonic() + START_SECONDS
            while not self.has_message(LOOK_SECONDS):
                if cancelled():
                    raise KeyboardInterrupt
                if time.monotonic() > deadline:
                    raise TimeoutError
        except OSError:
            self.close()
            return None
        except BaseException:
            self.close()
            raise
        message = self.receive()
        if message is None or "pid" not in message:  # the fork ended before it was a stage
            self.close()
            return None
        return ForkedStage(self, message["pid"])

    def has_message(self, seconds: float) -> bool:
        """Whether a message, or the end of the process, comes within `seconds`."""
        return first_readable([self._channel.fileno()], seconds) is not None

    def receive(self) -> dict[str, Any] | None:
        """The next message; None where the process has ended."""
        try:
            content = self._channel.recv(LARGEST_MESSAGE)
        except OSError:
            content = b""
        if not content:
            self.close()
            return None
        return dict(json.loads(content))

    def close(self) -> None:
        """End the process, and with it its stage."""
        self._channel.close()
        self._process.kill()
        self._process.wait()


def main(channel: socket.socket, harness: int) -> None:
    """Import the packages, then fork a stage for each request; end with the harness, or when idle for IDLE_SECONDS."""
    # A batch system signals every process of a job, but the harness and the stage decide what that means.
    for number in (*STAGE_SIGNALS, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    os.close(os.pidfd_open(os.getpid()))  # where the kernel has no such call, this process ends before it forks a stage
    for name in PRELOADED:
        __import__(name)
    gc.collect()
    gc.freeze()  # a stage's collections leave the pages of these modules shared
    own = os.getpid()
    while wait_for_one([channel.fileno()], harness, IDLE_SECONDS) is not None:
        content, descriptors, *_ = socket.recv_fds(channel, LARGEST_MESSAGE, 1)
        if not content:
            return
        child = os.fork()
        if not child:
            run_stage(json.loads(content), descriptors[0], channel, own)
            return
        os.close(descriptors[0])
        ended = os.pidfd_open(child)
        if wait_for_one([ended, channel.fileno()], harness, None) != ended:
            return  # the stage dies with this process
        os.close(ended)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        channel.send(json.dumps({"exit": code}).encode())


def wait_for_one(descriptors: Sequence[int], harness: int, seconds: float | None) -> int | None:
    """The first descriptor that can be read; None after `seconds`, or where the harness is gone."""
    waited = 0.0
    while (ready := first_readable(descriptors, LOOK_SECONDS)) is None:
        waited += LOOK_SECONDS
        if os.getppid() != harness or (seconds is not None and waited > seconds):
            return None
    return ready


def first_readable(descriptors: Sequence[int], seconds: float) -> int | None:
    """The first of the descriptors that can be read within `seconds`. Unlike select, this takes descriptors of any number."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    ready = {descriptor for descriptor, _ in poll.poll(1000 * seconds)}
    return next((descriptor for descriptor in descriptors if descriptor in ready), None)


def run_stage(request: dict[str, Any], output: int, channel: socket.socket, parent: int) -> None:
    """In the forked process: become the stage, tell the harness its process id, and run its module."""
    os.setsid()
    limit_process(request["disk_mib"])
    if os.getppid() != parent:
        os._exit(1)
    for number in (1, 2):
        os.dup2(output, number)
    os.close(output)
    os.chdir(request["folder"])
    for number, handler in STAGE_SIGNALS.items():
        signal.signal(number, handler)
    channel.send(json.dumps({"pid": os.getpid()}).encode())
    channel.close()
    # Unseeded random numbers must differ between stages.
    random.seed()
    sys.modules["numpy"].random.seed()
    module, *arguments = request["arguments"]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def limit_process(disk_mib: int | None) -> None:
    """Allow no core dumps and no file above the disk cap; on Linux, have the kernel kill this process with its parent. SIGUSR2,
    which a batch system sends to every process of a job before its time is up, is for the harness."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if disk_mib is not None:
        # One byte more, so that the size of the output shows that the cap was exceeded.
        resource.setrlimit(resource.RLIMIT_FSIZE, ((disk_mib << 20) + 1, resource.RLIM_INFINITY))
    die_with_parent()


def die_with_parent() -> None:
    """On Linux, have the kernel kill the calling process when the thread that started it ends."""
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
