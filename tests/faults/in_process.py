"""An executor whose stages sleep in a thread of this process: they leave a stage's files without the cost of an interpreter."""

from __future__ import annotations

import time
import traceback
from pathlib import Path

from pretrain_bench.benchmarks.specs.suite import Suite
from pretrain_bench.harness.contract.events import EVENTS_FILE
from pretrain_bench.harness.contract.records import Measured
from pretrain_bench.harness.executors.base import EventTail, Execution, Executor, StageLaunch
from pretrain_bench.harness.executors.usage import folder_bytes
from pretrain_bench.harness.planning.resolved_suite import RunOverrides, resolve_suite
from pretrain_bench.harness.planning.stage_specs import PlannedCell
from pretrain_bench.harness.running.capacity import Capacity
from pretrain_bench.harness.running.display import Silent
from pretrain_bench.harness.running.scheduler import run_cells
from pretrain_bench.harness.running.stage_runner import RunOptions, StageRunner
from pretrain_bench.harness.store.store import Store
from tests.faults.sleeper import sleep_and_leave


class SleepingInProcess:
    """Runs `tests.faults.sleeper` as a function. It cannot be killed and enforces no caps; tests of these start processes."""

    name, label_isolation, not_enforced = "local", "none", ("everything",)

    def run(self, launch: StageLaunch) -> Execution:
        """See `Executor.run`; an exception in the stage gives exit code 1, as in a process."""
        began, code = time.monotonic(), 0
        with launch.log.open("a") as log:
            try:
                sleep_and_leave(launch.root)
            except Exception:
                traceback.print_exc(file=log)
                code = 1
        for event in EventTail(launch.root / "out" / EVENTS_FILE).new_events():
            launch.on_event(event)
        seconds = time.monotonic() - began
        measured = Measured(
            wall_seconds=seconds,
            cpu_seconds=seconds,
            peak_memory_bytes=1,
            output_bytes=folder_bytes(launch.root / "out"),
        )
        return Execution(code, None, False, measured)


def cells_of(suite: Suite, overrides: RunOverrides) -> list[PlannedCell]:
    """The cells of a suite, with prepared data."""
    return resolve_suite(suite, [], overrides).prepare(False, lambda _: lambda items: items, lambda _: None)


def run_with(executor: Executor, cells: list[PlannedCell], runs: Path) -> None:
    """Run cells into a store; raises AssertionError if a stage fails."""
    reports = run_cells(cells, StageRunner(Store(runs), executor, Silent(), RunOptions()), Capacity(2, 1 << 20))
    assert {r.record.outcome for r in reports} == {"ok"}


class WaitingForASignal(SleepingInProcess):
    """A stage that waits until its job is signalled."""

    def run(self, launch: StageLaunch) -> Execution:
        """See `Executor.run`."""
        while not launch.allocation.stop.asked:
            time.sleep(0.05)
        return Execution(130, "cancel", False, Measured())
