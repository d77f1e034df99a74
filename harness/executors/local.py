"""A stage as a subprocess of this user, for machines without a container engine.

Enforced: wall time (soft signal, grace, kill of the whole process group), memory of the process tree and size of the output
by sampling, thread count. Not enforced: CPU and GPU limits beyond the thread count, the network, and reading other files of
the same user; so the label isolation is "none".
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from benchmarks.specs import BudgetHalf
from harness.code import package_folder
from harness.contract.events import EVENTS_FILE
from harness.contract.stage import StageSpec
from harness.executors.base import CANCEL_GRACE_SECONDS, EventTail, Execution, KilledBy, thread_variables
from harness.usage import TreeSampler, folder_bytes

POLL_SECONDS = 0.05
SAMPLE_SECONDS = 0.5
FOLDER_SECONDS = 2.0
PR_SET_PDEATHSIG = 1


class LocalExecutor:
    """See the module's text."""

    name = "local"
    label_isolation = "none"

    def run(
        self, root: Path, spec: StageSpec, caps: BudgetHalf, log: Path, on_event: Callable[[object], None]
    ) -> Execution:
        """Run one stage; see `Executor.run`."""
        command = [sys.executable, "-m", "methods.stage", spec.kind, "--root", str(root)]
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                cwd=root,
                env=_environment(spec),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        remember_child(root.parent, process.pid)
        return _Watch(process, root, caps, on_event).until_the_end()


class _Watch:
    """Follows a running stage: its events, what it uses, and the caps."""

    def __init__(
        self, process: subprocess.Popen[bytes], root: Path, caps: BudgetHalf, on_event: Callable[[object], None]
    ) -> None:
        self.process, self.root, self.caps, self.on_event = process, root, caps, on_event
        self.began = time.monotonic()
        self.sampler = TreeSampler(process.pid)
        self.tail = EventTail(root / "out" / EVENTS_FILE)
        self.soft_at: float | None = None
        self.killed_by: KilledBy | None = None
        self.sampled = self.measured_folder = 0.0
        self.output_bytes = 0

    def until_the_end(self) -> Execution:
        while self.process.poll() is None:
            try:
                self._look()
                time.sleep(POLL_SECONDS)
            except KeyboardInterrupt:
                self._cancel()
        self._signal(signal.SIGKILL)  # whatever the stage left running in its group
        while self._events():
            pass
        self.output_bytes = folder_bytes(self.root / "out")
        measured = self.sampler.measured(time.monotonic() - self.began, self.output_bytes)
        return Execution(self.process.returncode, self.killed_by, self.soft_at is not None, measured)

    def _look(self) -> None:
        now = time.monotonic()
        self._events()
        if now - self.sampled > SAMPLE_SECONDS:
            self.sampled = now
            self.sampler.sample()
            if self.caps.memory_mib and self.sampler.memory_bytes > self.caps.memory_mib << 20:
                self._kill("memory")
        if now - self.measured_folder > FOLDER_SECONDS and self.caps.disk_mib:
            self.measured_folder = now
            if folder_bytes(self.root / "out") > self.caps.disk_mib << 20:
                self._kill("disk")
        if self.caps.wall_seconds is not None:
            if self.soft_at is None and now - self.began > self.caps.wall_seconds:
                self.soft_at = now
                self._signal(signal.SIGTERM)
            elif self.soft_at is not None and now - self.soft_at > self.caps.grace_seconds:
                self._kill("wall")

    def _events(self) -> bool:
        """Pass on what is new; true while there may be more to read."""
        before = self.tail.position
        for event in self.tail.new_events():
            self.on_event(event)
        return self.tail.position > before

    def _cancel(self) -> None:
        if self.killed_by == "cancel":
            self._signal(signal.SIGKILL)
            return
        self.killed_by = "cancel"
        self._signal(signal.SIGINT)
        deadline = time.monotonic() + CANCEL_GRACE_SECONDS
        with contextlib.suppress(KeyboardInterrupt):
            while self.process.poll() is None and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
        if self.process.poll() is None:
            self._signal(signal.SIGKILL)

    def _kill(self, why: KilledBy) -> None:
        self.killed_by = self.killed_by or why
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)


def _environment(spec: StageSpec) -> dict[str, str]:
    """The variables a stage gets: enough to start Python, nothing of the user's own."""
    kept = {
        k: os.environ[k]
        for k in ("PATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "TMPDIR", "LANG")
        if k in os.environ
    }
    return {
        **kept,
        "PYTHONPATH": str(package_folder("benchmarks").parent),
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        **thread_variables(spec.threads),
    }


def _die_with_parent() -> None:
    """On Linux: the stage is killed when the harness dies, however it dies."""
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def remember_child(folder: Path, pid: int) -> None:
    """Note the stage's process, so that the next harness can end it where the kernel did not."""
    with contextlib.suppress(psutil.Error):
        created = psutil.Process(pid).create_time()
        (folder / "child.json").write_text(json.dumps({"pid": pid, "created": created}))


def end_left_over_child(folder: Path) -> None:
    """End a stage process that a killed harness left behind in this partial folder."""
    try:
        noted = json.loads((folder / "child.json").read_text())
        process = psutil.Process(noted["pid"])
        if abs(process.create_time() - noted["created"]) < 1:
            os.killpg(noted["pid"], signal.SIGKILL)
            process.wait(timeout=10)
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return
