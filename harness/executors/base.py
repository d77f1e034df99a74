"""What every executor takes and gives back."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from benchmarks.specs import BudgetHalf
from harness.contract.events import MAX_LINE_BYTES, open_plain, parse_event
from harness.contract.records import Measured
from harness.contract.stage import StageSpec

KilledBy = Literal["wall", "memory", "disk", "cancel"]


CANCEL_GRACE_SECONDS = 30.0


class Execution(NamedTuple):
    """How a stage's process ended. `killed_by` is our own doing; `returncode` is negative for a signal; `image` is an id."""

    returncode: int
    killed_by: KilledBy | None
    soft_limited: bool
    measured: Measured
    image: str | None = None


class Executor(Protocol):
    """Runs the command of one stage; `root` is laid out as the contract says."""

    name: str
    label_isolation: str

    def run(
        self, root: Path, spec: StageSpec, caps: BudgetHalf, log: Path, on_event: Callable[[object], None]
    ) -> Execution:
        """Run to the end, or until a cap of the budget stops it. KeyboardInterrupt stops the stage softly first."""


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


def thread_variables(threads: int) -> dict[str, str]:
    """Variables that hold libraries to a number of threads."""
    return {
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads)),
        # With more threads than free cores, spinning threads starve the others: two stages side by side on two cores were
        # a hundred times slower. A short spin costs nothing alone and four times less together.
        "GOMP_SPINCOUNT": "1000",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }
