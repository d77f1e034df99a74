"""The interface of every executor, and the watch over a running stage that they share."""

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
"""How the end by SIGKILL of a process reads, and as passed on by a process around it."""
CANCEL_GRACE_SECONDS = 30.0
STALL_FACTOR = 20.0
"""A stage counts as stalled only when it has been silent for more than this many times its mean step time."""
USUAL_STEPS = 50
"""Steps that the usual time is the mean of, the latest ones."""
STACKS_SECONDS = 2.0
"""The time that a stalled stage has to write to its log where it hangs."""
MOST_BETWEEN_CHECKS_SECONDS = 10.0
"""More between two checks is time in which this process was stopped as well, and perhaps the stage with it."""


class Execution(NamedTuple):
    """How a stage's process ended. `killed_by` is our own doing; `returncode` is negative for a signal; `image` is an id."""

    returncode: int
    killed_by: KilledBy | None
    soft_limited: bool
    measured: Measured
    image: str | None = None


class Stop:
    """Asks stages in other threads to stop: softly the first time, at once the second time."""

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
    """One stage, ready to run: `root` is laid out as the contract says, `caps` are the limits that the executor enforces, output
    is appended to `log`, and `on_event` takes the stage's events as they come."""

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
    """Limits that a stage is trusted to keep, because this executor cannot; every record names them."""

    def run(self, launch: StageLaunch) -> Execution:
        """Run a stage until it ends or exceeds a cap. KeyboardInterrupt and `launch.allocation.stop` first ask it to stop.

        Raises EnvironmentCannot where the machine cannot run it.
        """


class EventTail:
    """Reads complete new lines of a growing (and sometimes truncated) event file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position = 0
        self.rest = b""

    def new_events(self) -> list[object]:
        """Events appended since the last call; lines that do not parse are skipped."""
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
    """How long a stage has shown no sign of life. A change of its events file is one, an event or not."""

    def __init__(self, events: Path) -> None:
        self.events = events
        self.changed: int | None = None
        self.silent_seconds = 0.0
        self.checked = time.monotonic()
        self.steps: deque[float] = deque(maxlen=USUAL_STEPS)

    def take(self, event: object) -> None:
        """Learn from a step's event how long steps usually take."""
        if isinstance(event, Step):
            self.steps.append(event.seconds)

    def is_stalled(self, now: float, stall_seconds: float | None) -> bool:
        """Whether, at the monotonic time `now`, the silence is longer than `stall_seconds` and STALL_FACTOR usual steps."""
        with contextlib.suppress(OSError):
            changed = os.lstat(self.events).st_mtime_ns
            if changed != self.changed:
                self.changed, self.silent_seconds, self.checked = changed, 0.0, now
        self.silent_seconds += min(now - self.checked, MOST_BETWEEN_CHECKS_SECONDS)
        self.checked = now
        usual = sum(self.steps) / len(self.steps) if self.steps else 0.0
        return stall_seconds is not None and self.silent_seconds > max(stall_seconds, STALL_FACTOR * usual)


class Watch:
    """Follows a running stage: its events, and the caps that are watched from outside. Each executor adds how to sample it, how
    to signal it and how to know that it has ended."""

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
        """Wait up to `seconds`; true where the stage has ended."""
        raise NotImplementedError

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the whole stage; does nothing where it has ended."""
        raise NotImplementedError

    def sample(self) -> None:
        """Measure what the stage uses, and kill it where that exceeds a cap."""
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
        """Pass new events on; true while there may be more to read."""
        before = self.tail.position
        for event in self.tail.new_events():
            self.life.take(event)
            self.on_event(event)
        return self.tail.position > before

    def output_bytes(self) -> int:
        """Size of the output of a stage that has ended; more than its cap counts as a kill, since it came between two looks."""
        size = folder_bytes(self.out)
        if self.caps.disk_mib is not None and size > self.caps.disk_mib << 20:
            self.killed_by = self.killed_by or "disk"
        return size

    def kill(self, why: KilledBy) -> None:
        """Kill the stage; of several reasons the first is kept. One that hangs first writes to its log where."""
        self.killed_by = self.killed_by or why
        if why == "stall":
            self.send(signal.SIGABRT)
            self.ended(STACKS_SECONDS)
        self.send(signal.SIGKILL)

    def _check(self) -> None:
        """Pass events on, sample the stage and enforce its caps."""
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


def thread_variables(threads: int) -> dict[str, str]:
    """Environment variables that limit libraries to a number of threads."""
    return {
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads)),
        # With more threads than free cores, spinning threads starve the others: two stages side by side on two cores were
        # a hundred times slower. A short spin costs nothing alone and four times less together.
        "GOMP_SPINCOUNT": "1000",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }
