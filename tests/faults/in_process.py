"""An executor whose stages sleep in a thread of this process: what a stage leaves, without the interpreter that it costs."""

from __future__ import annotations

import time
import traceback

from pretrain_bench.harness.contract.events import EVENTS_FILE
from pretrain_bench.harness.contract.records import Measured
from pretrain_bench.harness.executors.base import EventTail, Execution, StageLaunch
from pretrain_bench.harness.executors.usage import folder_bytes
from tests.faults.sleeper import sleep_and_leave


class SleepingInProcess:
    """Runs `tests.faults.sleeper` as a function. It cannot be killed and enforces no cap: tests of that start processes."""

    name, label_isolation, not_enforced = "local", "none", ("everything",)

    def run(self, launch: StageLaunch) -> Execution:
        """See `Executor.run`; an exception of the stage is exit code 1, as of a process."""
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
