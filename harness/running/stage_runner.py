"""Run one stage: reuse its record if it is done; otherwise lay out its folders, execute, judge and record it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

from pretrain_bench.benchmarks.specs.budget import BudgetHalf
from pretrain_bench.benchmarks.support.errors import BenchError, EnvironmentCannot, WrongUse, cannot_write
from pretrain_bench.harness.contract.events import EVENTS_FILE, read_events
from pretrain_bench.harness.contract.records import Measured, Outcome, Record
from pretrain_bench.harness.executors.base import Allocation, Execution, Executor, StageLaunch
from pretrain_bench.harness.executors.disk_quota import recover
from pretrain_bench.harness.executors.local import end_left_over_child
from pretrain_bench.harness.executors.output_folder import plain_modes
from pretrain_bench.harness.planning.stage_specs import PlannedStage
from pretrain_bench.harness.running.account import StageAccount
from pretrain_bench.harness.running.capacity import Demand
from pretrain_bench.harness.running.display import Display
from pretrain_bench.harness.running.layout import lay_out, unchanged_code, with_users_paths
from pretrain_bench.harness.running.scratch import kept_in, stage_root
from pretrain_bench.harness.running.untrusted_text import clean_items, clean_metrics, fit_to_keep
from pretrain_bench.harness.running.verdict import Evidence, Verdict, ended_early_unasked, judge, refusal
from pretrain_bench.harness.store.hashes import hash_artifacts, hash_side_files
from pretrain_bench.harness.store.provenance import provenance
from pretrain_bench.harness.store.remains import remove_remains
from pretrain_bench.harness.store.retention import pruned
from pretrain_bench.harness.store.store import (
    ARTIFACTS,
    CODE,
    CONFUSION,
    LOG,
    RECORD,
    Store,
    is_done,
)

PAUSE_SECONDS = 2.0
CLEANING_SECONDS = 60.0
"""How long a stage waits for a cleaning of what it builds on."""
NO_EXECUTION = Execution(-1, None, False, Measured())
LEAST_WALL_SECONDS = 30.0
"""A resumed stage gets at least this much wall time, to start and to save its result."""
STOPPED_BY_OTHERS = (
    "a signal that `bench` had not sent ended the stage early (from kill, a memory guard or an administrator, for example), or "
    "the method reports `stopped` by itself, which it must not"
)
SIGNALS_SECONDS = 1.0
"""All processes of a job have received its signal within this time."""

Retry = Literal["none", "infra", "failed"]
"""Which ended stages to rerun: none; those interrupted by the machine (infra_error); or also failed ones."""


class Cancelled(BenchError):
    """The user stopped the run; everything complete is kept."""


class InfraError(EnvironmentCannot):
    """A run interrupted by the machine, not by the stage; it may be retried."""


class EndedEarly(InfraError):
    """A stage that says it was asked to end early, though this process did not ask it."""


class RunOptions(NamedTuple):
    """Options for every stage of a command. `imagenet_weights` is a file; `scratch` is a folder on this machine's own disk,
    for stages whose store is on another disk."""

    retry: Retry = "infra"
    imagenet_weights: Path | None = None
    scratch: Path | None = None


class StageJob(NamedTuple):
    """A stage to run now. `demand` is its share of the machine; `needs_artifacts` is set if another stage needs its artifacts,
    which may have been pruned."""

    planned: PlannedStage
    key: str
    demand: Demand
    allocation: Allocation
    needs_artifacts: bool = False


class StageReport(NamedTuple):
    """The record of a stage; `reused` if it existed before this command."""

    planned: PlannedStage
    record: Record
    reused: bool


class StageRunner:
    """Runs single stages into one store with one executor. Several threads may use it."""

    def __init__(self, store: Store, executor: Executor, display: Display, options: RunOptions) -> None:
        self.store, self.executor, self.display, self.options = store, executor, display, options

    def reusable(self, planned: PlannedStage, key: str, needs_artifacts: bool) -> StageReport | None:
        """A report for a stage that need not run, else None. Raises WrongUse for an unreadable record."""
        record = self.store.record(planned.spec.kind, key)
        if record is not None:
            if needs_artifacts and pruned(self.store.folder(planned.spec.kind, key)):
                return None
            wanted = is_done(record) or self.options.retry != "failed"
            return StageReport(planned, record, reused=True) if wanted else None
        if self.options.retry == "none":
            record = self.store.last_attempt(key)
            if record is not None and record.outcome == Outcome.infra_error:
                return StageReport(planned, record, reused=True)
        return None

    def run(self, job: StageJob) -> StageReport:
        """Run one stage whose parents are done, or reuse its record if another process has completed it meanwhile.

        A run interrupted by the machine is retried once; one that ends early unasked both times has failed. Raises Cancelled
        after Ctrl-C, WrongUse if the stage refuses its input, and EnvironmentCannot for a full disk, an unwritable store, an
        unresponsive engine or code edited meanwhile. In each case the store stays consistent, and the same command resumes the
        run.
        """
        try:
            try:
                return self._run_once(job)
            except InfraError as error:
                if self.options.retry == "none" or job.allocation.stop.asked:
                    raise
                has_ended_early = isinstance(error, EndedEarly)
            time.sleep(PAUSE_SECONDS)
            return self._run_once(job, has_ended_early)
        except OSError as error:
            raise cannot_write(self.store.root, error, job.planned.title) from error

    def remove_remains(self, reports: Iterable[StageReport]) -> None:
        """Remove what killed processes have left of runs that they had published, if the store allows it."""
        with contextlib.suppress(OSError, WrongUse):
            remove_remains(self.store, (report.record for report in reports))

    def _run_once(self, job: StageJob, has_ended_early: bool = False) -> StageReport:
        title, said = job.planned.title, set[str]()

        def wait(holder: str) -> None:
            if holder not in said:
                said.add(holder)
                self.display.say(f"{title}: waiting for {holder}, which runs this stage")
            if job.allocation.stop.asked:
                raise Cancelled(f"{title}: stopped waiting for {holder}, which runs this stage")

        with self.store.lock(job.key, wait) as partial:
            # Another process may have completed the stage before this one got the lock.
            report = self.reusable(job.planned, job.key, job.needs_artifacts)
            if report is None:
                end_left_over_child(partial)
                with stage_root(partial, self.options.scratch) as root:
                    record = _Attempt(self, job, partial, root).run(has_ended_early)
                    return StageReport(job.planned, record, reused=False)
            if report.record.outcome != Outcome.infra_error:  # such a record is in the partial folder
                self.store.drop_partial(job.key)
            return report


class _Attempt:
    """One attempt at a locked stage; `partial` is the folder of its resumable state, `root` where it is laid out."""

    def __init__(self, runner: StageRunner, job: StageJob, partial: Path, root: Path) -> None:
        self.store, self.executor, self.display = runner.store, runner.executor, runner.display
        self.imagenet_weights = runner.options.imagenet_weights
        self.job, self.planned, self.spec = job, job.planned, job.planned.spec
        self.partial, self.root, self.artifacts = partial, root, root / "out" / ARTIFACTS
        self.events = root / "out" / EVENTS_FILE
        self.parents = {
            s: self.store.folder(self.spec.parents_kind, k) / ARTIFACTS for s, k in self.spec.parents.items()
        }
        self.before = self.account = StageAccount()
        """The stage's own account of its earlier attempts, and with this one."""
        self.number = self.store.next_attempt(self.spec)
        self.started_at = _now()

    def run(self, has_ended_early: bool) -> Record:
        """Lay out, execute, judge and record the stage; raises as `StageRunner.run`. `has_ended_early`: the attempt before did so
        unasked."""
        code = unchanged_code(self.planned)
        recover(self.root / "out")
        self._check_labels()
        lay_out(self.root, self.planned, self.parents, self.imagenet_weights)
        self.before = StageAccount(read_events(self.events))
        execution = self._execute()
        plain_modes(self.root / "out")
        if (message := refusal(execution, self.account, self.before.starts)) is not None:
            if not self.before.starts and not (self.partial / "attempts").is_dir():
                self.store.drop_partial(self.job.key)
            raise WrongUse(f"{self.planned.title}: {self._named(message)}")
        failed_twice = None
        if ended_early_unasked(execution, self.account):
            if self._is_asked_to_stop():
                execution = execution._replace(killed_by="cancel")
            elif has_ended_early:
                failed_twice = Verdict(Outcome.crashed, f"twice, {STOPPED_BY_OTHERS}")
            else:
                message = f"{self.planned.title}: {STOPPED_BY_OTHERS}; the same command resumes the stage"
                raise self._interrupted(EndedEarly(message), execution)
        self._check_labels()
        log = self.partial / LOG
        evidence = Evidence(self.planned, execution, self.account, self.artifacts, log, self.store.root)
        verdict = failed_twice or judge(evidence)
        verdict = verdict._replace(message=self._named(verdict.message))
        if verdict.outcome == Outcome.infra_error:
            self._keep_infra_error(execution, verdict.message)
            raise EnvironmentCannot(verdict.message)
        record = self._record(execution, verdict)
        if verdict.outcome == Outcome.cancelled:
            self.store.keep_attempt(record)
            raise Cancelled(f"{self.planned.title}: cancelled; the same command resumes from its last checkpoint")
        beside = {CODE: code, CONFUSION: verdict.confusion}
        files = hash_side_files(self.root / "out", log, beside)
        record = record.model_copy(update={"files": files}).sealed()
        self.store.complete(self.spec, record, code, verdict.confusion)
        return record

    def _is_asked_to_stop(self) -> bool:
        """Whether this process is asked to stop too: a batch system signals all processes of a job, in any order."""
        deadline = time.monotonic() + SIGNALS_SECONDS
        while not self.job.allocation.stop.asked and time.monotonic() < deadline:
            time.sleep(SIGNALS_SECONDS / 20)
        return self.job.allocation.stop.asked > 0

    def _check_parents(self) -> None:
        """Raises WrongUse if a stage that this one builds on was withdrawn or pruned after it was looked up.

        Cleaning locks a run before it looks for stages that need it. From the moment that this stage's spec is in its partial
        folder, cleaning therefore either finds it, or holds the lock that is waited for here.
        """
        title = self.planned.title
        for stage, key in self.spec.parents.items():
            deadline = time.monotonic() + CLEANING_SECONDS
            while (by := self.store.held_by(key)) is not None and time.monotonic() < deadline:
                time.sleep(CLEANING_SECONDS / 300)
            parent = self.store.folder(self.spec.parents_kind, key)
            if by is not None:
                raise WrongUse(f"{title}: {by} is cleaning or repeating its stage {stage}; try again once it has ended")
            if not (parent / RECORD).is_file() or pruned(parent):
                raise WrongUse(
                    f"{title}: `bench clean` has removed its stage {stage} since this command started; give the same command "
                    "again, and both are run"
                )

    def _check_labels(self) -> None:
        """Raises DataError if the labels that the stage trains on or is scored by differ from the manifest."""
        data, split = self.spec.data, self.spec.split
        if self.planned.data is None or data is None or data.view != "labelled":
            return
        self.planned.data.check_labels((*split.train, *split.selection, *split.test) if split else data.scenes)

    def _execute(self) -> Execution:
        """Run the stage to its end. Raises InfraError if the machine cannot."""
        show, caps = self.display.stage(self.planned.title), self._remaining_caps()
        launch = StageLaunch(self.root, self.spec, caps, self.partial / LOG, show, self.job.allocation)
        try:
            try:
                with kept_in(self.partial / "root", self.root):
                    self._check_parents()
                    return self.executor.run(launch)
            finally:  # before an interrupted attempt is recorded
                self.account = StageAccount(read_events(self.events))
                self.display.stage_ended(show)
        except EnvironmentCannot as error:
            raise self._interrupted(InfraError(self._named(str(error)))) from error

    def _remaining_caps(self) -> BudgetHalf:
        """The stage's caps, without the wall time that its earlier attempts have used, and within this process's memory."""
        caps, rest = self.planned.caps, dict[str, float]()
        if caps.memory_mib is not None:
            # With a larger limit than this process has, the kernel would kill a process, perhaps this one.
            rest["memory_mib"] = min(caps.memory_mib, self.job.demand.memory_mib)
        if caps.wall_seconds is not None:
            left = caps.wall_seconds - self.before.ledger.wall_seconds
            rest["wall_seconds"] = max(left, min(caps.wall_seconds, LEAST_WALL_SECONDS))
        return caps.model_copy(update=rest)

    def _interrupted(self, error: InfraError, execution: Execution = NO_EXECUTION) -> InfraError:
        """Keep the record of this attempt as interrupted by the machine; returns the error to raise."""
        self._keep_infra_error(execution, str(error))
        return error

    def _named(self, message: str) -> str:
        """A message with the user's files in place of those in the stage's folders."""
        return with_users_paths(message, self.root, self.planned, self.parents, self.imagenet_weights)

    def _keep_infra_error(self, execution: Execution, message: str) -> None:
        """Keep the record of an attempt that the machine interrupted; a full disk may have no room for it."""
        with contextlib.suppress(OSError):
            self.store.keep_attempt(self._record(execution, Verdict(Outcome.infra_error, message)))

    def _record(self, execution: Execution, verdict: Verdict) -> Record:
        account, end = self.account, self.account.end
        return Record(
            key=self.job.key,
            kind=self.spec.kind,
            method=self.spec.method,
            method_card=self.planned.method.card,
            imported=self.planned.imported,
            stage=self.spec.stage,
            attempt=self.number,
            outcome=verdict.outcome,
            message=fit_to_keep(verdict.message),
            stopped=end.stopped if end else None,
            cell=self.planned.cell,
            dataset=self.spec.data.dataset if self.spec.data else None,
            synthetic=self.planned.synthetic,
            metrics=verdict.metrics,
            coverage=self.spec.coverage if verdict.metrics else None,
            contamination=self.planned.contamination,
            stage_metrics=clean_metrics(end.metrics) if end else {},
            ledger=account.ledger,
            measured=execution.measured,
            executor=self.executor.name,
            image=execution.image,
            label_isolation=self.executor.label_isolation,
            not_enforced=self.executor.not_enforced,
            provenance=provenance(account.numerics),
            notes=clean_items(end.notes) if end else {},
            warnings=tuple(account.warnings),
            artifacts=hash_artifacts(self.artifacts) if verdict.outcome == Outcome.ok else {},
            left_out_scenes=self.planned.left_out_scenes,
            parents=self.spec.parents,
            started_at=self.started_at,
            ended_at=_now(),
        ).sealed()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
