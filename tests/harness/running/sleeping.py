"""An executor of sleeping stages that records what runs, and a function to run cells with it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from pretrain_bench.benchmarks.support.errors import EnvironmentCannot
from pretrain_bench.harness.contract.stage import StageSpec
from pretrain_bench.harness.executors.base import Execution, Executor, StageLaunch
from pretrain_bench.harness.planning.stage_specs import PlannedCell
from pretrain_bench.harness.running.capacity import Capacity
from pretrain_bench.harness.running.display import Silent
from pretrain_bench.harness.running.scheduler import run_cells
from pretrain_bench.harness.running.stage_runner import RunOptions, StageReport, StageRunner
from pretrain_bench.harness.store.store import Store
from tests.faults.in_process import SleepingInProcess

CAPACITY = Capacity(4, 1 << 20)


class Watched:
    """Sleeping stages; records how many run at once, and with which GPUs; fails for selected stages."""

    name, label_isolation, not_enforced = "local", "none", ()

    def __init__(self, fail: Callable[[StageSpec], bool] = lambda _: False, executor: Executor | None = None) -> None:
        self.executor = executor or SleepingInProcess()
        self.lock, self.now, self.most = threading.Lock(), 0, 0
        self.gpus: list[tuple[str, ...]] = []
        self.held: set[str] = set()
        self.started: list[str] = []
        self.fail = fail

    def run(self, launch: StageLaunch) -> Execution:
        spec, allocation = launch.spec, launch.allocation
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            assert not self.held & set(allocation.gpus), "a GPU is given to one stage at a time"
            self.held |= set(allocation.gpus)
            self.gpus.append(allocation.gpus)
            self.started.append(spec.key)
        try:
            if self.fail(spec):
                raise EnvironmentCannot("the engine is gone")
            return self.executor.run(launch)
        finally:
            with self.lock:
                self.now -= 1
                self.held -= set(allocation.gpus)


def run(cells: list[PlannedCell], runs: Path, executor: Executor, capacity: Capacity = CAPACITY) -> list[StageReport]:
    return run_cells(cells, StageRunner(Store(runs), executor, Silent(), RunOptions("infra")), capacity)
