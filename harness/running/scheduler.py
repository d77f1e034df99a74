"""Run the stages of many cells in parallel in one place: on this machine within its capacity, or on a cluster.

A stage is submitted once its parent stages are done and the place has room for its demand; stages at the head of the longest
chain of estimated time come first. A failed stage blocks only the stages that build on it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from pretrain_bench.benchmarks.support.errors import BenchError, EnvironmentCannot
from pretrain_bench.harness.clusters.base import Ended, Interrupted, Place, ReadyStage
from pretrain_bench.harness.clusters.local import LocalMachine
from pretrain_bench.harness.planning.stage_specs import PlannedCell, PlannedStage
from pretrain_bench.harness.running.capacity import Capacity, Demand
from pretrain_bench.harness.running.stage_runner import Cancelled, StageReport, StageRunner
from pretrain_bench.harness.store.store import is_done

WAIT_SECONDS = 0.2
MOST_WITHOUT_PROGRESS = 3
"""Number of interrupted jobs without further progress after which a stage is not submitted again."""
OnReport = Callable[[StageReport], None]


def run_cells(
    cells: Iterable[PlannedCell],
    runner: StageRunner,
    capacity: Capacity,
    workers: int | None = None,
    on_report: OnReport = lambda report: None,
) -> list[StageReport]:
    """Run every stage of the cells once on this machine; see `run_stages`."""
    return run_stages(stages_of(cells), runner, capacity, workers, on_report)


def stages_of(cells: Iterable[PlannedCell]) -> Iterable[PlannedStage]:
    """All stages of the cells; a stage shared by several cells appears several times."""
    return (stage for cell in cells for stage in cell.stages)


def run_stages(
    stages: Iterable[PlannedStage],
    runner: StageRunner,
    capacity: Capacity,
    workers: int | None = None,
    on_report: OnReport = lambda report: None,
) -> list[StageReport]:
    """Run every stage once on this machine, up to `workers` at a time, by default as many as fit; see `run_in`."""
    return run_in(LocalMachine(runner, capacity, workers), stages, runner, on_report)


def run_in(
    place: Place,
    stages: Iterable[PlannedStage],
    runner: StageRunner,
    on_report: OnReport = lambda report: None,
    seconds: Mapping[str, float] | None = None,
) -> list[StageReport]:
    """Run every stage once in a place, which is closed at the end. `seconds` are estimates by key.

    Returns the reports in the order of the stages; stages that build on a failed one have none. `on_report` receives each
    report in this thread as it arrives. The first Ctrl-C asks running stages to stop, the second stops them at once; then
    Cancelled is raised. EnvironmentCannot is raised once the running stages have ended, and any other BenchError of a stage
    once all others are done.
    """
    planned: dict[str, PlannedStage] = {}
    for stage in stages:
        planned.setdefault(stage.spec.key, stage)
    reports = _Scheduler(planned, runner, place, on_report, seconds or {}).run()
    return [reports[key] for key in planned if key in reports]


def chain_seconds(planned: Mapping[str, PlannedStage], seconds: Mapping[str, float]) -> dict[str, float]:
    """Estimated seconds of each stage plus the longest chain of stages that build on it, by key. Parents precede the stages that
    build on them, as in a cell."""
    chains: dict[str, float] = {}
    behind: dict[str, float] = {}
    for key, stage in reversed(list(planned.items())):
        chains[key] = seconds.get(key, 0.0) + behind.get(key, 0.0)
        for parent in stage.spec.parents.values():
            behind[parent] = max(behind.get(parent, 0.0), chains[key])
    return chains


class _Scheduler:
    """Submits stages; all its state is used from the thread that calls `run`."""

    def __init__(
        self,
        planned: dict[str, PlannedStage],
        runner: StageRunner,
        place: Place,
        on_report: OnReport,
        seconds: Mapping[str, float],
    ) -> None:
        self.planned, self.runner, self.place, self.on_report = planned, runner, place, on_report
        self.seconds = seconds
        chains = chain_seconds(planned, seconds)
        self.waiting = {key: planned[key] for key in sorted(planned, key=lambda key: -chains[key])}
        self.demands: dict[str, Demand] = {key: place.demand(stage) for key, stage in planned.items()}
        self.running: set[str] = set()
        self.ends: deque[Ended] = deque()
        self.reports: dict[str, StageReport] = {}
        self.needed: set[str] = set()
        """Keys of stages whose artifacts other stages need."""
        self.attempts: dict[str, int] = {}
        """Attempt number of the record that a stage had before submission."""
        self.idle: dict[str, tuple[int, int]] = {}
        """Step that an interrupted stage had reached, and its number of interruptions since without further progress."""
        self.left: dict[str, str] = {}
        """Jobs of an earlier command that continue after Ctrl-C, by the key of their stage."""
        self.stopping = self.cancelled = False
        self.error: BaseException | None = None

    def run(self) -> dict[str, StageReport]:
        """Run all stages and return the reports by key; raises as `run_in`."""
        try:
            self._reuse()
            self._attach()
            while self.waiting or self.running:
                try:
                    held_elsewhere = self._start_ready()
                    if not self.running and not held_elsewhere:
                        break
                    if self.running:
                        self.ends += self.place.ended(WAIT_SECONDS)
                        while self.ends:  # Ctrl-C may interrupt this; the rest are finished in the next round
                            self._finish(self.ends.popleft())
                    else:
                        time.sleep(WAIT_SECONDS)
                    self._look_for(held_elsewhere)
                except KeyboardInterrupt:
                    self.stopping = self.cancelled = True
                    self.left |= self.place.cancel()
                    self.running -= self.left.keys()
                    # An end that was being handed over is lost, but not its record.
                    self.running &= self.place.states().keys() | {ended.key for ended in self.ends}
        finally:
            self.place.close()
        self.runner.remove_remains(self.reports.values())
        if self.cancelled and not isinstance(self.error, Cancelled):
            raise Cancelled(f"stopped; rerun the same command to resume{self._left_running()}")
        if self.error is not None:
            raise self.error
        return self.reports

    def _left_running(self) -> str:
        if not self.left:
            return ""
        jobs = ", ".join(sorted(set(self.left.values())))
        return f". Stages that an earlier command submitted continue ({jobs}); your cluster's command stops them, such as scancel"

    def _reuse(self) -> None:
        """Report stages that need no run. Later stages come first, since they determine whose artifacts are needed."""
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

    def _attach(self) -> None:
        """Follow stages that an earlier command submitted, instead of submitting them again."""
        for key in list(self.place.attach([self._ready(key) for key in self.waiting])):
            self._hand_over(key)

    def _start_ready(self) -> list[str]:
        """Submit stages that are ready and have room. Returns those that another process runs, which must wait."""
        self._cancel_blocked()
        held_elsewhere, chosen = [], []
        for key in list(self.waiting):
            if len(self.running) >= self.place.limit:
                break
            if self._is_ready(key) and self.place.has_room(self.demands[key]):
                if self.runner.store.held_by(key):
                    held_elsewhere.append(key)
                else:
                    chosen.append(self._hand_over(key))
                    if self.place.waits_for_others:  # it occupies its room at once
                        self.place.submit(chosen[-1:])
        if self.place.waits_for_others:
            if held_elsewhere and not self.running:
                self.place.submit([self._hand_over(held_elsewhere[0])])
            return []
        if chosen:
            self.place.submit(chosen)
        return held_elsewhere

    def _ready(self, key: str) -> ReadyStage:
        return ReadyStage(self.planned[key], key, self.demands[key], key in self.needed, self.seconds.get(key, 0.0))

    def _hand_over(self, key: str) -> ReadyStage:
        """Count a stage as running; returns it in the form that the place expects."""
        stage = self.waiting.pop(key)
        if not self.place.waits_for_others:
            self.runner.store.drop_gone_owner(key)
            before = self.runner.store.record(stage.spec.kind, key)
            self.attempts[key] = before.attempt if before is not None else 0
        self.running.add(key)
        return self._ready(key)

    def _look_for(self, held_elsewhere: Iterable[str]) -> None:
        """Report stages that another process has completed meanwhile."""
        for key in held_elsewhere:
            report = self.runner.reusable(self.planned[key], key, key in self.needed)
            if report is not None:
                del self.waiting[key]
                self._report(key, report)

    def _is_ready(self, key: str) -> bool:
        return all(self._has_succeeded(parent) for parent in self.planned[key].spec.parents.values())

    def _has_succeeded(self, key: str) -> bool:
        return key in self.reports and is_done(self.reports[key].record)

    def _cancel_blocked(self) -> None:
        """Drop waiting stages that build on a failed one, or all waiting stages once the schedule is stopping."""
        unfinished = self.waiting.keys() | self.running
        for key in [key for key in self.planned if key in self.waiting]:
            parents = self.planned[key].spec.parents.values()
            if self.stopping or any(p not in unfinished and not self._has_succeeded(p) for p in parents):
                del self.waiting[key]
                unfinished.discard(key)

    def _finish(self, ended: Ended) -> None:
        """Report a stage that has ended, submit it again, or keep its error."""
        key, error = ended.key, ended.problem
        self.running.discard(key)
        if ended.report is not None:
            self._report(key, ended.report)
            return
        record = None if self.place.waits_for_others else self._new_record(key)
        if record is not None:
            self._report(key, record)
            return
        error = error or Interrupted(f"{self.planned[key].title}: its job ended without a record in the store")
        if isinstance(error, Interrupted) and self._may_run_again(key, error):
            self.waiting[key] = self.planned[key]
            return
        if self.error is None or isinstance(error, Cancelled):
            self.error = error
        if isinstance(error, Interrupted) and not self.cancelled:
            return  # it affects only this stage
        if isinstance(error, Cancelled | EnvironmentCannot) or not isinstance(error, BenchError):
            self.stopping = True

    def _new_record(self, key: str) -> StageReport | None:
        """The report of a stage that a cluster ran, from the store; None if it left no record."""
        planned = self.planned[key]
        record = self.runner.store.record(planned.spec.kind, key)
        if record is None:
            return None
        if record.attempt > self.attempts[key]:
            return StageReport(planned, record, reused=False)
        # The record from before counts unless it was to be repeated: failed, or pruned and needed.
        before = self.runner.reusable(planned, key, key in self.needed)
        return before._replace(reused=False) if before is not None and is_done(record) else None

    def _may_run_again(self, key: str, error: Interrupted) -> bool:
        """Whether to submit an interrupted stage again: it made progress, or this is a new interruption."""
        if self.stopping or self.runner.options.retry == "none":
            return False
        if not error.started:
            return True
        step, times = self.idle.get(key, (0, 0))
        times = 1 if error.step > step else times + 1
        self.idle[key] = (max(step, error.step), times)
        return times < MOST_WITHOUT_PROGRESS

    def _report(self, key: str, report: StageReport) -> None:
        self.reports[key] = report
        self.on_report(report)
