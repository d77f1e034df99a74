"""What every executor takes and gives back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from benchmarks.specs import BudgetHalf
from harness.contract.records import Measured
from harness.contract.stage import StageSpec

KilledBy = Literal["wall", "memory", "disk", "cancel"]


class Execution(NamedTuple):
    """How a stage's process ended. `killed_by` is our own doing; `returncode` is negative for a signal."""

    returncode: int
    killed_by: KilledBy | None
    soft_limited: bool
    measured: Measured


class Executor(Protocol):
    """Runs the command of one stage; `root` is laid out as the contract says."""

    name: str
    label_isolation: str

    def run(
        self, root: Path, spec: StageSpec, caps: BudgetHalf, log: Path, on_event: Callable[[object], None]
    ) -> Execution:
        """Run to the end, or until a cap of the budget stops it. KeyboardInterrupt stops the stage softly first."""
