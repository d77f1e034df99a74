"""Runs the stages of many cells side by side on one machine, and never gives away more of it than there is.

A stage runs when the stages that it builds on are done and there is room for it: its threads and loader processes, its cap on
memory, its GPUs. One that is larger than the whole machine runs alone, and so does one without a cap on memory that uses no
GPU. What fails takes only the stages that build on it along.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

import psutil

from pretrain_bench.benchmarks.support.errors import BenchError, EnvironmentCannot
from pretrain_bench.harness.executors.base import Allocation, Executor, Stop
from pretrain_bench.harness.planning.stage_specs import PlannedCell, PlannedStage
from pretrain_bench.harness.running.stage_runner import (
    Cancelled,
    Display,
    RunOptions,
    StageReport,
    reusable_record,
    run_stage,
)
from pretrain_bench.harness.store.store import Store, is_done

WAIT_SECONDS = 0.2


class Capacity(NamedTuple):
    """A part of a machine: processors, memory, GPUs by id."""

    cpus: int
    memory_mib: int
    gpus: tuple[str, ...] = ()


def whole_machine(device: str) -> Capacity:
    """What this process may use."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Capacity(cpus, psutil.virtual_memory().total >> 20, gpu_ids() if device == "cuda" else ())


def gpu_ids() -> tuple[str, ...]:
    """The GPUs that this process may use: those of CUDA_VISIBLE_DEVICES, else every device file."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return tuple(i for i in named.split(",") if i)
    return tuple(sorted(p.name.removeprefix("nvidia") for p in Path("/dev").glob("nvidia[0-9]*"))) or ("0",)


class Demand(NamedTuple):
    """What a stage needs of a machine."""

    cpus: int
    memory_mib: int
    gpus: int


def demand(planned: PlannedStage, machine: Capacity) -> Demand:
    """What a stage may use at most, cut to the machine. Without a cap on memory it is all of it, or of as much as belongs to
    its share of the GPUs."""
    spec, caps = planned.spec, planned.caps
    gpus = min(len(machine.gpus), caps.gpus or 1) if spec.device == "cuda" else 0
    share = machine.memory_mib * gpus // len(machine.gpus) if gpus else machine.memory_mib
    return Demand(
        min(machine.cpus, spec.threads + spec.limits.loader_workers),
        min(machine.memory_mib, caps.memory_mib or share),
        gpus,
    )


class _Job(NamedTuple):
    planned: PlannedStage
    key: str
    demand: Demand


def run_cells(
    cells: Iterable[PlannedCell],
    store: Store,
    executor: Executor,
    display: Display,
    options: RunOptions,
    machine: Capacity,
    workers: int | None = None,
    on_report: Callable[[StageReport], None] = lambda _: None,
) -> list[StageReport]:
    """Run every stage that the cells need, each once; up to `workers` at a time, as many as there is room for without it.

    Ctrl-C once ends the running stages softly, twice at once; then Cancelled is raised. EnvironmentCannot ends the command as
    soon as the running stages have ended; any other error of one stage is raised when all others are done.
    """
    jobs: dict[str, _Job] = {}
    for cell in cells:
        for planned in cell.stages:
            key = planned.spec.key
            if key not in jobs:
                jobs[key] = _Job(planned, key, demand(planned, machine))
    pool = _Pool(jobs, store, executor, display, options, machine, on_report)
    reports = pool.run(workers or max(1, machine.cpus))
    return [reports[key] for key in jobs if key in reports]


class _Pool:
    def __init__(
        self,
        jobs: dict[str, _Job],
        store: Store,
        executor: Executor,
        display: Display,
        options: RunOptions,
        machine: Capacity,
        on_report: Callable[[StageReport], None],
    ) -> None:
        self.store, self.executor, self.display, self.options = store, executor, display, options
        self.jobs, self.waiting = jobs, dict(jobs)
        self.cpus, self.memory_mib, self.gpus = machine.cpus, machine.memory_mib, list(machine.gpus)
        self.on_report = on_report
        self.stop = Stop()
        self.running: dict[Future[StageReport], tuple[_Job, tuple[str, ...]]] = {}
        self.reports: dict[str, StageReport] = {}
        self.error: BaseException | None = None
        self.no_more = False
        self.read: set[str] = set()

    def run(self, workers: int) -> dict[str, StageReport]:
        """All jobs; see `run_cells`."""
        self._reuse()
        with ThreadPoolExecutor(workers, thread_name_prefix="stage") as threads:
            while self.waiting or self.running:
                try:
                    self._start(threads, workers)
                    if not self.running:
                        break
                    done, _ = wait(self.running, timeout=WAIT_SECONDS, return_when="FIRST_COMPLETED")
                    for future in done:
                        self._take(future)
                except KeyboardInterrupt:
                    self.no_more = True
                    self.stop.ask()
        if self.stop.asked and not isinstance(self.error, Cancelled):
            raise Cancelled("stopped; the same command goes on from there")
        if self.error is not None:
            raise self.error
        return self.reports

    def _reuse(self) -> None:
        """Take what needs no run, without a thread for each."""
        found = {}
        for key, job in reversed(
            self.jobs.items()
        ):  # later stages first: they decide what of earlier ones is read again
            record = reusable_record(job.planned, self.store, self.options.retry, key in self.read)
            if record is None:
                self.read |= set(job.planned.spec.parents.values())
            else:
                found[key] = StageReport(job.planned, record, reused=True)
        for key in [k for k in self.jobs if k in found]:
            del self.waiting[key]
            self._report(key, found[key])

    def _start(self, threads: ThreadPoolExecutor, workers: int) -> None:
        """Start what is ready and fits; what another process runs comes last."""
        self._cancel_blocked()
        held = []
        for job in list(self.waiting.values()):
            if len(self.running) >= workers or self.cpus <= 0:
                return
            if self._is_ready(job) and self._fits(job):
                if self.store.held_by(job.key):
                    held.append(job)
                else:
                    self._begin(threads, job)
        if held and not self.running:
            self._begin(threads, held[0])

    def _begin(self, threads: ThreadPoolExecutor, job: _Job) -> None:
        gpus = tuple(self.gpus[: job.demand.gpus])
        self.gpus = self.gpus[job.demand.gpus :]
        self.cpus -= job.demand.cpus
        self.memory_mib -= job.demand.memory_mib
        del self.waiting[job.key]
        allocation = Allocation(self.stop, gpus)
        future = threads.submit(
            run_stage,
            job.planned,
            self.store,
            self.executor,
            self.display,
            self.options,
            allocation,
            job.key in self.read,
        )
        self.running[future] = (job, gpus)

    def _fits(self, job: _Job) -> bool:
        need = job.demand
        return need.cpus <= self.cpus and need.memory_mib <= self.memory_mib and need.gpus <= len(self.gpus)

    def _is_ready(self, job: _Job) -> bool:
        parents = job.planned.spec.parents.values()
        return all(k in self.reports and is_done(self.reports[k].record) for k in parents)

    def _cancel_blocked(self) -> None:
        """Forget what builds on a stage that did not end well; and everything, once no more is to start."""
        alive = {*self.waiting, *(job.key for job, _ in self.running.values())}
        for key, job in list(self.waiting.items()):
            hopeless = any(
                p not in alive and not (p in self.reports and is_done(self.reports[p].record))
                for p in job.planned.spec.parents.values()
            )
            if hopeless or self.no_more:
                del self.waiting[key]
                alive.discard(key)

    def _take(self, future: Future[StageReport]) -> None:
        job, gpus = self.running.pop(future)
        self.gpus = sorted([*self.gpus, *gpus])
        self.cpus += job.demand.cpus
        self.memory_mib += job.demand.memory_mib
        error = future.exception()
        if error is None:
            self._report(job.key, future.result())
            return
        if self.error is None or isinstance(error, Cancelled):
            self.error = error
        if isinstance(error, Cancelled | EnvironmentCannot) or not isinstance(error, BenchError):
            self.no_more = True

    def _report(self, key: str, report: StageReport) -> None:
        self.reports[key] = report
        self.on_report(report)
