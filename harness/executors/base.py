"""The interface of every executor, and the monitoring of a running stage that they share."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from pretrain_bench.benchmarks.specs.budget import BudgetHalf
from pretrain_bench.benchmarks.support.foreign_files import open_plain
from pretrain_bench.harness.contract.events import EVENTS_FILE, MAX_LINE_BYTES, Step, parse_event
from pretrain_bench.harness.contract.records import Measured
from pretrain_bench.harness.contract.stage import StageSpec
from pretrain_bench.harness.executors.usage import folder_bytes

KilledBy = Literal["wall", "memory", "disk", "pids", "cancel", "stall"]
KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
"""Exit codes of a process killed by SIGKILL: as seen by its parent, and as passed on by a wrapper such as a shell."""
CANCEL_GRACE_SECONDS = 30.0
STALL_FACTOR = 20.0
"""A stage counts as stalled only after more than this many mean step times without a sign of life."""
USUAL_STEPS = 50
"""Number of recent steps in the mean step time."""
STACKS_SECONDS = 2.0
"""Time that a stalled stage gets to write its stack traces to the log."""
MOST_BETWEEN_CHECKS_SECONDS = 10.0
"""A longer gap between two checks means that this process was suspended, and perhaps the stage too."""


class Execution(NamedTuple):
    """How a stage's process ended. `killed_by` is the harness's reason for killing it; `returncode` is negative for a signal;
    `image` is an image id."""

    returncode: int
    killed_by: KilledBy | None
    soft_limited: bool
    measured: Measured
    image: str | None = None


class Stop:
    """Asks stages in other threads to stop: gracefully at the first request, immediately at the second."""

    def __init__(self) -> None:
        self.asked = 0

    def ask(self) -> None:
        """Record one Ctrl-C."""
        self.asked += 1


class Allocation(NamedTuple):
    """The GPUs that a stage may use, and the flag that asks it to stop."""

    stop: Stop
    gpus: tuple[str, ...] = ()


class StageLaunch(NamedTuple):
    """A stage ready to run: `root` is laid out as in the contract, `caps` are limits for the executor to enforce, output is
    appended to `log`, and `on_event` receives the stage's events as they arrive."""

    root: Path
    spec: StageSpec
    caps: BudgetHalf
    log: Path
    on_event: Callable[[object], None]
    allocation: Allocation


class Executor(Protocol):
    """Runs the command of one stage."""

    name: str
    label_isolation: str
    not_enforced: tuple[str, ...]
    """Limits that this executor cannot enforce, so that stages are trusted to keep them; every record lists them."""

    def run(self, launch: StageLaunch) -> Execution:
        """Run a stage until it ends or exceeds a cap. KeyboardInterrupt or `launch.allocation.stop` asks it to stop.

        Raises EnvironmentCannot if the machine cannot run the stage.
        """


class EventTail:
    """Reads complete new lines of a growing (and sometimes truncated) event file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position = 0
        self.rest = b""

    def new_events(self) -> list[object]:
        """Events appended since the last call; invalid lines are skipped."""
        try:
            file = open_plain(self.path, os.O_RDONLY)
        except OSError:
            return []
        with file:
            if os.fstat(file.fileno()).st_size < self.position:
                self.position, self.rest = 0, b""
            file.seek(self.position)
            content = file.read(8 * MAX_LINE_BYTES)
        self.position += len(content)
        *lines, self.rest = (self.rest + content).split(b"\n")
        if len(self.rest) > MAX_LINE_BYTES:
            self.rest = b""
        return [event for line in lines if (event := parse_event(line + b"\n")) is not None]


class StageLife:
    """Tracks the time since a stage's last sign of life: any change of its events file, even without a valid event."""

    def __init__(self, events: Path) -> None:
        self.events = events
        self.changed: int | None = None
        self.silent_seconds = 0.0
        self.checked = time.monotonic()
        self.steps: deque[float] = deque(maxlen=USUAL_STEPS)

    def take(self, event: object) -> None:
        """Update the mean step time from a step event."""
        if isinstance(event, Step):
            self.steps.append(event.seconds)

    def is_stalled(self, now: float, stall_seconds: float | None) -> bool:
        """Whether, at monotonic time `now`, the silence exceeds both `stall_seconds` and STALL_FACTOR mean steps."""
        with contextlib.suppress(OSError):
            changed = os.lstat(self.events).st_mtime_ns
            if changed != self.changed:
                self.changed, self.silent_seconds, self.checked = changed, 0.0, now
        self.silent_seconds += min(now - self.checked, MOST_BETWEEN_CHECKS_SECONDS)
        self.checked = now
        usual = sum(self.steps) / len(self.steps) if self.steps else 0.0
        return stall_seconds is not None and self.silent_seconds > max(stall_seconds, STALL_FACTOR * usual)


class Watch:
    """Monitors a running stage: its events, and the caps that are enforced from outside. Each executor implements sampling,
    signalling and detecting the end."""

    poll_seconds: float
    sample_seconds: float
    folder_seconds: float

    def __init__(self, launch: StageLaunch) -> None:
        self.out, self.caps, self.on_event = launch.root / "out", launch.caps, launch.on_event
        self.stop = launch.allocation.stop
        self.tail = EventTail(self.out / EVENTS_FILE)
        self.began = time.monotonic()
        self.soft_at: float | None = None
        self.killed_by: KilledBy | None = None
        self.sampled = self.measured_folder = 0.0
        self.life = StageLife(self.out / EVENTS_FILE)

    def ended(self, seconds: float) -> bool:
        """Wait up to `seconds`; return whether the stage has ended."""
        raise NotImplementedError

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all processes of the stage; does nothing after it has ended."""
        raise NotImplementedError

    def sample(self) -> None:
        """Measure the stage's resource use, and kill the stage if it exceeds a cap."""
        raise NotImplementedError

    def follow(self) -> None:
        """Return when the stage has ended by itself, by a cap or by KeyboardInterrupt."""
        while True:
            try:
                self._check()
                if self.stop.asked and self.killed_by is None:
                    self._cancel()
                if self.ended(self.poll_seconds):
                    return
            except KeyboardInterrupt:
                self._cancel()

    def pass_events(self) -> bool:
        """Pass on new events; return whether there may be more to read."""
        before = self.tail.position
        for event in self.tail.new_events():
            self.life.take(event)
            self.on_event(event)
        return self.tail.position > before

    def output_bytes(self) -> int:
        """Size of the output after the end of a stage. Exceeding the cap counts as a kill, since it happened between two
        checks."""
        size = folder_bytes(self.out)
        if self.caps.disk_mib is not None and size > self.caps.disk_mib << 20:
            self.killed_by = self.killed_by or "disk"
        return size

    def kill(self, why: KilledBy) -> None:
        """Kill the stage and keep the first reason. A stalled stage may first write its stack traces to the log."""
        self.killed_by = self.killed_by or why
        if why == "stall":
            self.send(signal.SIGABRT)
            self.ended(STACKS_SECONDS)
        self.send(signal.SIGKILL)

    def _check(self) -> None:
        """Pass on events, sample the stage and enforce its caps."""
        now = time.monotonic()
        self.pass_events()
        if now - self.sampled > self.sample_seconds:
            self.sampled = now
            self.sample()
        if self.caps.disk_mib is not None and now - self.measured_folder > self.folder_seconds:
            self.measured_folder = now
            if folder_bytes(self.out) > self.caps.disk_mib << 20:
                self.kill("disk")
        if self.killed_by is None and self.life.is_stalled(now, self.caps.stall_seconds):
            self.kill("stall")
        if self.caps.wall_seconds is None:
            return
        if self.soft_at is None and now - self.began > self.caps.wall_seconds:
            self.soft_at = now
            self.send(signal.SIGTERM)
        elif self.soft_at is not None and now - self.soft_at > self.caps.grace_seconds:
            self.kill("wall")

    def _cancel(self) -> None:
        if self.killed_by == "cancel":
            self.send(signal.SIGKILL)
            return
        self.killed_by = "cancel"
        self.send(signal.SIGINT)
        deadline = time.monotonic() + CANCEL_GRACE_SECONDS
        asked = self.stop.asked
        with contextlib.suppress(KeyboardInterrupt):
            while time.monotonic() < deadline and self.stop.asked == asked:
                if self.ended(self.poll_seconds):
                    return
        self.send(signal.SIGKILL)


def library_variables(threads: int) -> dict[str, str]:
    """Environment variables of a stage: they limit threads, make cuBLAS deterministic, and let glibc reuse freed memory."""
    return {
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads)),
        # With more threads than free cores, spinning threads starve the others: two concurrent stages on two cores were a
        # hundred times slower. A short spin costs nothing for one stage, and a factor of four less for two.
        "GOMP_SPINCOUNT": "1000",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        # By default glibc returns every large array to the system, which zeroes its pages again at the next allocation: 20 % of a
        # step of a small network. A glibc that refuses thresholds above 32 MiB keeps its default.
        "MALLOC_MMAP_THRESHOLD_": str(4 * 2**30),
        "MALLOC_TRIM_THRESHOLD_": str(4 * 2**30),
        "MALLOC_TOP_PAD_": str(64 * 2**20),
    }
