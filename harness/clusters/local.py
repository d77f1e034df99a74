"""This machine as a place: a thread for each stage, within the machine's processors, memory and GPUs.

A stage larger than the machine runs alone, and so does one without a memory cap and GPUs. Stages that need less than a whole
GPU share one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from pretrain_bench.harness.clusters.base import Ended, JobState, ReadyStage
from pretrain_bench.harness.executors.base import Allocation, Stop
from pretrain_bench.harness.planning.stage_specs import PlannedStage
from pretrain_bench.harness.running.capacity import Capacity, Demand, FreeCapacity, demand
from pretrain_bench.harness.running.stage_runner import StageJob, StageReport, StageRunner


class LocalMachine:
    """Runs stages in threads; its state is used only from the calling thread. `limit` is the number of parallel stages, by
    default the number of processors."""

    waits_for_others = True

    def __init__(
        self, runner: StageRunner, capacity: Capacity, limit: int | None = None, stop: Stop | None = None
    ) -> None:
        self.runner, self.capacity = runner, capacity
        self.limit = limit or max(1, capacity.cpus)
        self.stop = stop or Stop()
        self._threads = ThreadPoolExecutor(self.limit, thread_name_prefix="stage")
        self._running: dict[Future[StageReport], StageJob] = {}
        self._free = FreeCapacity(capacity)

    def attach(self, stages: Sequence[ReadyStage]) -> Iterable[str]:
        """Nothing to take over: stages of this machine end with their command."""
        return ()

    def demand(self, planned: PlannedStage) -> Demand:
        """See `Place.demand`."""
        return demand(planned, self.capacity)

    def has_room(self, demand: Demand) -> bool:
        """Whether that much of the machine is free; never for more stages than `limit`."""
        return len(self._running) < self.limit and self._free.gpus_for(demand) is not None

    def submit(self, stages: Sequence[ReadyStage]) -> None:
        """Start stages that have room."""
        for stage in stages:
            need = stage.demand
            gpus = self._free.gpus_for(need) or ()
            self._free.take(need, gpus)
            job = StageJob(stage.planned, stage.key, need, Allocation(self.stop, gpus), stage.needs_artifacts)
            self._running[self._threads.submit(self.runner.run, job)] = job

    def ended(self, seconds: float) -> list[Ended]:
        """See `Place.ended`."""
        done, _ = wait(self._running, timeout=seconds, return_when="FIRST_COMPLETED")
        ends = []
        for future in done:
            error = future.exception()
            ends.append(Ended(self._running[future].key, None if error else future.result(), error))
        for future in done:
            job = self._running.pop(future)
            self._free.give_back(job.demand, job.allocation.gpus)
        return ends

    def cancel(self) -> dict[str, str]:
        """See `Place.cancel`."""
        self.stop.ask()
        return {}

    def states(self) -> dict[str, JobState]:
        """The running stages, as jobs without a name."""
        return {job.key: JobState("", "running") for job in self._running.values()}

    def close(self) -> None:
        """Return once no stage runs."""
        self._threads.shutdown()
