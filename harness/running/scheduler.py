"""Runs the stages of many cells side by side on one machine, within its capacity.

A stage starts when the stages that it builds on are done and the machine has its demand free: its threads and loader processes,
its memory cap, its GPUs (policy.py decides). A stage that is larger than the machine runs alone, and so does one without a memory
cap that uses no GPU. A failed stage holds up only the stages that build on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from pretrain_bench.benchmarks.support.errors import BenchError, EnvironmentCannot
from pretrain_bench.harness.executors.base import Allocation, Stop
from pretrain_bench.harness.planning.stage_specs import PlannedCell, PlannedStage
from pretrain_bench.harness.running.capacity import Capacity, demand
from pretrain_bench.harness.running.policy import Place, Policy
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
    parents = {key: stage.spec.parents.values() for key, stage in planned.items()}
    demands = {key: demand(stage, capacity) for key, stage in planned.items()}
    policy = Policy(parents, demands, [capacity], workers or max(1, capacity.cpus))
    reports = _Scheduler(planned, runner, policy, on_report).run()
    return [reports[key] for key in planned if key in reports]


class _Scheduler:
    """Starts stages in threads; all its own state is used from the thread that calls `run`."""

    def __init__(
        self, planned: dict[str, PlannedStage], runner: StageRunner, policy: Policy, on_report: OnReport
    ) -> None:
        self.planned, self.runner, self.policy, self.on_report = planned, runner, policy, on_report
        self.running: dict[Future[StageReport], StageJob] = {}
        self.reports: dict[str, StageReport] = {}
        self.needed: set[str] = set()
        """Keys of the stages whose artifacts another stage is to read."""
        self.stop = Stop()
        self.stopping = False
        self.error: BaseException | None = None

    def run(self) -> dict[str, StageReport]:
        """Run all stages and return the reports by key; raises as `run_stages`."""
        self._reuse()
        with ThreadPoolExecutor(self.policy.workers, thread_name_prefix="stage") as threads:
            while self.policy.waiting or self.running:
                try:
                    self._start_ready(threads)
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
            self._report(key, reusable[key])

    def _start_ready(self, threads: ThreadPoolExecutor) -> None:
        """Start the stages that are ready and fit; one that another process runs only when nothing else runs."""
        self.policy.drop_blocked()
        if self.stopping:
            self.policy.waiting.clear()
        held_elsewhere = []
        for key, place in self.policy.startable():
            if self.runner.store.held_by(key):
                held_elsewhere.append((key, place))
            else:
                self._start(threads, key, place)
        if held_elsewhere and not self.running:
            self._start(threads, *held_elsewhere[0])

    def _start(self, threads: ThreadPoolExecutor, key: str, place: Place) -> None:
        self.policy.start(key, place)
        allocation = Allocation(self.stop, place.gpus)
        job = StageJob(self.planned[key], key, self.policy.demands[key], allocation, key in self.needed)
        self.running[threads.submit(self.runner.run, job)] = job

    def _finish(self, future: Future[StageReport]) -> None:
        """Report a stage that has ended, or keep its error."""
        job, error = self.running.pop(future), future.exception()
        if error is None:
            self._report(job.key, future.result())
            return
        self.policy.end(job.key, succeeded=False)
        if self.error is None or isinstance(error, Cancelled):
            self.error = error
        if isinstance(error, Cancelled | EnvironmentCannot) or not isinstance(error, BenchError):
            self.stopping = True

    def _report(self, key: str, report: StageReport) -> None:
        self.policy.end(key, is_done(report.record))
        self.reports[key] = report
        self.on_report(report)
