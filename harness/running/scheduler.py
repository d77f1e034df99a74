"""Runs the stages of many cells side by side on one machine, within its capacity.

A stage starts when the stages that it builds on are done and the machine has its demand free: its threads and loader processes,
its memory cap, its GPUs. A stage that is larger than the machine runs alone, and so does one without a memory cap that uses no
GPU. A failed stage holds up only the stages that build on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from pretrain_bench.benchmarks.support.errors import BenchError, EnvironmentCannot
from pretrain_bench.harness.executors.base import Allocation, Stop
from pretrain_bench.harness.planning.stage_specs import PlannedCell, PlannedStage
from pretrain_bench.harness.running.capacity import Capacity, Demand, demand
from pretrain_bench.harness.running.stage_runner import Cancelled, StageJob, StageReport, StageRunner
from pretrain_bench.harness.store.store import is_done

WAIT_SECONDS = 0.2
OnReport = Callable[[StageReport], None]


def run_cells(
    cells: Iterable[PlannedCell],
    runner: StageRunner,
    capacity: Capacity,
    workers: int | None = None,
    on_report: OnReport = lambda report: None,
) -> list[StageReport]:
    """Run every stage of the cells once; see `run_stages`."""
    return run_stages((stage for cell in cells for stage in cell.stages), runner, capacity, workers, on_report)


def run_stages(
    stages: Iterable[PlannedStage],
    runner: StageRunner,
    capacity: Capacity,
    workers: int | None = None,
    on_report: OnReport = lambda report: None,
) -> list[StageReport]:
    """Run every stage once, up to `workers` at a time; without it, as many as the capacity allows.

    Returns the reports in the order of the stages; stages that build on a failed one have none. `on_report` takes each report in
    this thread as soon as it is there. The first Ctrl-C asks the running stages to stop, the second stops them at once; then
    Cancelled is raised. EnvironmentCannot is raised as soon as the running stages have ended; any other BenchError of a stage
    when all others are done.
    """
    planned: dict[str, PlannedStage] = {}
    for stage in stages:
        planned.setdefault(stage.spec.key, stage)
    reports = _Scheduler(planned, runner, capacity, on_report).run(workers or max(1, capacity.cpus))
    return [reports[key] for key in planned if key in reports]


class _Scheduler:
    """Starts stages in threads; all its own state is used from the thread that calls `run`."""

    def __init__(
        self, planned: dict[str, PlannedStage], runner: StageRunner, capacity: Capacity, on_report: OnReport
    ) -> None:
        self.planned, self.runner, self.on_report = planned, runner, on_report
        self.demands: dict[str, Demand] = {key: demand(stage, capacity) for key, stage in planned.items()}
        self.waiting = dict(planned)
        self.running: dict[Future[StageReport], StageJob] = {}
        self.reports: dict[str, StageReport] = {}
        self.needed: set[str] = set()
        """Keys of the stages whose artifacts another stage is to read."""
        self.free_cpus, self.free_memory_mib, self.free_gpus = capacity.cpus, capacity.memory_mib, list(capacity.gpus)
        self.stop = Stop()
        self.stopping = False
        self.error: BaseException | None = None

    def run(self, workers: int) -> dict[str, StageReport]:
        """Run all stages and return the reports by key; raises as `run_stages`."""
        self._reuse()
        with ThreadPoolExecutor(workers, thread_name_prefix="stage") as threads:
            while self.waiting or self.running:
                try:
                    self._start_ready(threads, workers)
                    if not self.running:
                        break
                    done, _ = wait(self.running, timeout=WAIT_SECONDS, return_when="FIRST_COMPLETED")
                    for future in done:
                        self._finish(future)
                except KeyboardInterrupt:
                    self.stopping = True
                    self.stop.ask()
        if self.stop.asked and not isinstance(self.error, Cancelled):
            raise Cancelled("stopped; the same command resumes there")
        if self.error is not None:
            raise self.error
        return self.reports

    def _reuse(self) -> None:
        """Report the stages that need no run. Later stages come first: they decide whose artifacts are needed."""
        reusable: dict[str, StageReport] = {}
        for key, stage in reversed(self.planned.items()):
            report = self.runner.reusable(stage, key, key in self.needed)
            if report is None:
                self.needed |= set(stage.spec.parents.values())
            else:
                reusable[key] = report
        for key in [key for key in self.planned if key in reusable]:
            del self.waiting[key]
            self._report(key, reusable[key])

    def _start_ready(self, threads: ThreadPoolExecutor, workers: int) -> None:
        """Start the stages that are ready and fit; one that another process runs only when nothing else runs."""
        self._cancel_blocked()
        held_elsewhere = []
        for key in list(self.waiting):
            if len(self.running) >= workers or self.free_cpus <= 0:
                return
            if self._is_ready(key) and self._fits(self.demands[key]):
                if self.runner.store.held_by(key):
                    held_elsewhere.append(key)
                else:
                    self._start(threads, key)
        if held_elsewhere and not self.running:
            self._start(threads, held_elsewhere[0])

    def _start(self, threads: ThreadPoolExecutor, key: str) -> None:
        need = self.demands[key]
        gpus, self.free_gpus = tuple(self.free_gpus[: need.gpus]), self.free_gpus[need.gpus :]
        self.free_cpus -= need.cpus
        self.free_memory_mib -= need.memory_mib
        job = StageJob(self.waiting.pop(key), key, need, Allocation(self.stop, gpus), key in self.needed)
        self.running[threads.submit(self.runner.run, job)] = job

    def _fits(self, need: Demand) -> bool:
        return (
            need.cpus <= self.free_cpus and need.memory_mib <= self.free_memory_mib and need.gpus <= len(self.free_gpus)
        )

    def _is_ready(self, key: str) -> bool:
        return all(self._has_succeeded(parent) for parent in self.planned[key].spec.parents.values())

    def _has_succeeded(self, key: str) -> bool:
        return key in self.reports and is_done(self.reports[key].record)

    def _cancel_blocked(self) -> None:
        """Drop the waiting stages that build on a failed one; all waiting stages once the schedule is stopping."""
        unfinished = {*self.waiting, *(job.key for job in self.running.values())}
        for key in list(self.waiting):
            parents = self.planned[key].spec.parents.values()
            is_blocked = any(p not in unfinished and not self._has_succeeded(p) for p in parents)
            if is_blocked or self.stopping:
                del self.waiting[key]
                unfinished.discard(key)

    def _finish(self, future: Future[StageReport]) -> None:
        """Free the capacity of a stage that has ended, and report it or keep its error."""
        job = self.running.pop(future)
        self.free_gpus = sorted([*self.free_gpus, *job.allocation.gpus])
        self.free_cpus += job.demand.cpus
        self.free_memory_mib += job.demand.memory_mib
        error = future.exception()
        if error is None:
            self._report(job.key, future.result())
            return
        if self.error is None or isinstance(error, Cancelled):
            self.error = error
        if isinstance(error, Cancelled | EnvironmentCannot) or not isinstance(error, BenchError):
            self.stopping = True

    def _report(self, key: str, report: StageReport) -> None:
        self.reports[key] = report
        self.on_report(report)
