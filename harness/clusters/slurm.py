"""Slurm as a place: stages as job arrays through submitit, with several short ones per job. Needs only sbatch, squeue and
scancel.

A stage's end is its end note or, if its job ended without one (a node was lost, or the job was killed), squeue's report. A
restarted driver takes over what it or another driver on the same store had submitted.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pretrain_bench.benchmarks.support.errors import BenchError, EnvironmentCannot, WrongUse
from pretrain_bench.benchmarks.support.ownership import JOB_VARIABLE
from pretrain_bench.harness.clusters.base import Ended, Interrupted, JobState, ReadyStage
from pretrain_bench.harness.clusters.jobs import squeue
from pretrain_bench.harness.clusters.slurm_options import (
    GRACE_SECONDS,
    PACK_MINUTES,
    SlurmOptions,
    Values,
    packs,
    sbatch_parameters,
)
from pretrain_bench.harness.clusters.submissions import OWN_FILES, Submission, announce, submissions
from pretrain_bench.harness.clusters.ticket import Job, ticket_of
from pretrain_bench.harness.clusters.worker import TICKET, run_files
from pretrain_bench.harness.planning.stage_specs import PlannedStage
from pretrain_bench.harness.running.capacity import Demand, asked
from pretrain_bench.harness.running.last_events import last_step
from pretrain_bench.harness.store.store import Store

NAME = "slurm"
LOOK_SECONDS, ASK_SECONDS = 0.5, 5.0
"""Interval between checks for end notes, and between queries of squeue."""
SETTLE_SECONDS = 30.0
"""A submission without a number that squeue still does not list after this time never reached Slurm."""
MOST_PENDING = 200
REFILL_SHARE = 0.75
"""After reaching the limit of stages, submit more once this share of it is free, so that they can be packed."""


class Slurm:
    """Submits stages; see the module's text."""

    waits_for_others = False

    def __init__(self, store: Store, job: Job, options: SlurmOptions, limit: int | None = None) -> None:
        self.store, self.job, self.options = store, job, options
        self.limit = limit or MOST_PENDING
        self._of: dict[str, Submission] = {}
        """The submission of each submitted stage that has not ended."""
        self._titles: dict[str, str] = {}
        self._own: set[str] = set()
        """Names of the submissions of this driver."""
        self._problems: set[str] = set()
        """Names of the submissions that keep their logs."""
        self._listed: dict[str, tuple[str, str]] = {}
        self._missing: dict[str, int] = {}
        """Number of consecutive squeue answers that did not list a stage's job."""
        self._users = {os.getuid()}
        """Ids of the users whose jobs are watched: colleagues may have submitted to a shared store."""
        self._looked = self._asked = 0.0
        self._is_full = False
        self._cancelled = 0

    def demand(self, planned: PlannedStage) -> Demand:
        """The demand in the stage's specs; 0 MiB without a cap, which means the site's default."""
        return asked(planned)

    def has_room(self, demand: Demand) -> bool:
        """Whether more stages may be submitted; see REFILL_SHARE."""
        self._is_full = len(self._of) > REFILL_SHARE * self.limit if self._is_full else len(self._of) >= self.limit
        return not self._is_full

    def attach(self, stages: Sequence[ReadyStage]) -> Iterable[str]:
        """See `Place.attach`."""
        wanted = {stage.key: stage for stage in stages}
        known = list(submissions(self.store, NAME))
        self._users |= owners(known)
        if not self._ask(at_once=True) and known:
            raise EnvironmentCannot(
                f"{self.store.root}: earlier commands submitted stages to Slurm, and squeue does not say which of them still "
                "run; try again once it answers"
            )
        for submission in known:
            submission, ended = self._numbered(submission), submission.ended()
            left = [key for key in submission.keys if key not in ended and self._may_run(submission, key)]
            if not left:
                submission.drop()
            for key in (key for key in left if key in wanted):
                self._of[key], self._titles[key] = submission, wanted[key].planned.title
                yield key

    def _may_run(self, submission: Submission, key: str) -> bool:
        """Whether a stage's job is in Slurm, or may be about to arrive there."""
        job = submission.job_of(key)
        if job is None:
            return time.time() - submission.intent.began < SETTLE_SECONDS
        return job in self._listed

    @staticmethod
    def _numbered(submission: Submission) -> Submission:
        """A submission with its number, looked up by name if the driver was killed just after sbatch and did not store it."""
        listed = squeue("--name", submission.intent.name) if submission.number is None else None
        return submission.with_number(next(iter(listed)).partition("_")[0]) if listed else submission

    def submit(self, stages: Sequence[ReadyStage]) -> None:
        """Submit stages as job arrays, one for each shape. Raises WrongUse if sbatch refuses them, EnvironmentCannot without
        sbatch."""
        shapes: dict[tuple[str, Demand], list[ReadyStage]] = defaultdict(list)
        for stage in stages:
            shapes[stage.planned.spec.kind, stage.demand].append(stage)
        for (kind, need), alike in shapes.items():
            values = self.options.of(kind)
            jobs = packs(alike, float(values.get("pack", PACK_MINUTES)))
            tickets = [[ticket_of(stage, self.job) for stage in stages_of_job] for stages_of_job in jobs]
            try:
                submission = announce(self.store, NAME, tickets)
            except OSError as error:
                raise EnvironmentCannot(f"{self.store.root}: the submission cannot be written: {error}") from error
            self._own.add(submission.intent.name)
            for stage in alike:
                self._of[stage.key], self._titles[stage.key] = submission, stage.planned.title
            try:
                number = sbatch(submission, values, need)
            except BenchError:
                for stage in alike:
                    del self._of[stage.key]
                submission.drop()
                raise
            numbered = submission.with_number(number)
            self._of.update((stage.key, numbered) for stage in alike)

    def ended(self, seconds: float) -> list[Ended]:
        """See `Place.ended`."""
        time.sleep(max(0.0, min(seconds, self._looked + LOOK_SECONDS - time.monotonic())))
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return []
        self._looked = time.monotonic()
        ends = [self._taken(end) for end in list(self._noted())]
        if self._ask():
            ends += [self._taken(end) for end in list(self._lost())]
        return ends

    def _taken(self, end: Ended) -> Ended:
        """A stage that has ended, removed from those being watched."""
        submission = self._of.pop(end.key)
        self._missing.pop(end.key, None)
        if end.problem is not None:
            self._problems.add(submission.intent.name)
        return end

    def _noted(self) -> Iterator[Ended]:
        """Stages with an end note."""
        ended = {name: submission.ended() for name, submission in self._current().items()}
        for key, submission in self._of.items():
            note = submission.note(key) if key in ended[submission.intent.name] else None
            if note is None:
                continue
            problem = note.as_error()
            if isinstance(problem, Interrupted):
                message = (
                    f"{self._titles[key]}: job {submission.job_of(key)} on {note.host} was stopped at step {problem.step}, by "
                    f"its time limit or by preemption; a longer limit may help (--slurm time=HH:MM:SS): {note.message}"
                )
                problem = Interrupted(message, problem.step, problem.started)
            yield Ended(key, problem=problem)

    def _lost(self) -> Iterator[Ended]:
        """Stages whose job ended without an end note in two squeue answers: files from another node arrive with a delay."""
        numbered = {name: self._numbered(submission) for name, submission in self._current().items()}
        self._of = {key: numbered[submission.intent.name] for key, submission in self._of.items()}
        for key, submission in self._of.items():
            if self._may_run(submission, key):
                self._missing.pop(key, None)
                continue
            self._missing[key] = self._missing.get(key, 0) + 1
            if self._missing[key] > 1:
                job, logs = submission.job_of(key), submission.folder / OWN_FILES
                what = f"job {job} ended without a report" if job else "its job never reached Slurm"
                message = f"{self._titles[key]}: {what}: killed, out of memory, or its node was lost; see {logs}"
                yield Ended(key, problem=Interrupted(message, last_step(self.store, key)))

    def _ask(self, at_once: bool = False) -> bool:
        """Query squeue every few seconds; False if it was not queried or did not answer, as during a restart of the
        controller. The states of jobs are then unknown."""
        if not at_once and time.monotonic() - self._asked < ASK_SECONDS:
            return False
        self._asked = time.monotonic()
        listed = squeue_of(self._users)
        if listed is None:
            return False
        self._listed = listed
        return True

    def _current(self) -> dict[str, Submission]:
        return {submission.intent.name: submission for submission in self._of.values()}

    def cancel(self) -> dict[str, str]:
        """Signal the jobs of this driver; kill them the second time. Those of other drivers, which may be alive, continue."""
        self._cancelled += 1
        others = {k: s.job_of(k) or s.intent.name for k, s in self._of.items() if s.intent.name not in self._own}
        for key in others:
            del self._of[key]
        jobs = [submission.job_of(key) for key, submission in self._of.items()]
        own = list(dict.fromkeys(job for job in jobs if job is not None))
        softly = [] if self._cancelled > 1 else ["--signal=TERM"]
        pending = [job for job in own if self._listed.get(job, ("PENDING", ""))[0] == "PENDING"]
        for options, numbers in ((softly, own), ([], pending)):
            if numbers:
                subprocess.run(["scancel", *options, *numbers], check=False, capture_output=True)
        return others

    def states(self) -> dict[str, JobState]:
        """See `Place.states`."""
        return {key: job_state(submission, key, self._listed) for key, submission in self._of.items()}

    def close(self) -> None:
        """Remove the files of this driver's submissions that ended without a problem."""
        current = self._current()
        for submission in submissions(self.store, NAME):
            name = submission.intent.name
            if name in self._own and name not in current and name not in self._problems:
                submission.drop()


def owners(known: Iterable[Submission]) -> set[int]:
    """Ids of the users who submitted, without those of folders that have been removed meanwhile."""
    found = set()
    for submission in known:
        with contextlib.suppress(FileNotFoundError):
            found.add(submission.folder.stat().st_uid)
    return found


def squeue_of(users: Iterable[int]) -> dict[str, tuple[str, str]] | None:
    """The jobs of these users; see `squeue`."""
    return squeue("--user", ",".join(map(str, sorted(users))))


def job_state(submission: Submission, key: str, listed: Mapping[str, tuple[str, str]]) -> JobState:
    """The state of a submission's stage, according to squeue's list."""
    job = submission.job_of(key) or submission.intent.name
    state, host = listed.get(job, ("UNKNOWN", ""))
    return JobState(f"{NAME}:{job}", state.lower(), host, submission.intent.titles.get(key, ""))


def under_way(store: Store) -> dict[str, JobState]:
    """The stages of a store that are in Slurm and have not ended, for `bench status`. Empty if squeue does not answer."""
    known = list(submissions(store, NAME))
    listed = squeue_of(owners(known)) if known else None
    if listed is None:
        return {}
    ended = {s.intent.name: s.ended() for s in known}
    states = {key: job_state(s, key, listed) for s in known for key in s.keys if key not in ended[s.intent.name]}
    return {key: state for key, state in states.items() if state.state != "unknown"}


def sbatch(submission: Submission, values: Values, need: Demand) -> str:
    """Submit to Slurm; returns the job's number. Raises as `submit_calls`."""
    files = [[submission.folder / f"{key}{TICKET}" for key in keys] for keys in submission.intent.jobs]
    return submit_calls(
        [functools.partial(work, paths) for paths in files], submission, sbatch_parameters(values, need), values
    )


def submit_calls(
    calls: Sequence[functools.partial[int]],
    submission: Submission,
    parameters: Mapping[str, str | bool],
    values: Values,
    as_step: bool = True,
) -> str:
    """Submit calls as one job, or as an array; returns Slurm's number. A call that submits jobs itself must not run as a step.

    Raises WrongUse if sbatch refuses them, and EnvironmentCannot without sbatch.
    """
    try:
        import submitit
    except ImportError:
        raise EnvironmentCannot(
            "--on slurm needs submitit, which is not installed: pip install 'pretrain-bench[slurm]'"
        ) from None
    folder = submission.folder / OWN_FILES
    with _without_own_job():
        try:
            executor = submitit.SlurmExecutor(folder)
        except RuntimeError:
            raise EnvironmentCannot(
                "--on slurm: srun and sbatch are not on this machine's PATH; run it on a login node"
            ) from None
        executor.update_parameters(
            job_name=submission.intent.name,
            signal_delay_s=int(float(values.get("grace", GRACE_SECONDS))),
            stderr_to_stdout=True,
            wckey=None,
            use_srun=as_step,
            additional_parameters={"no_requeue": True, **parameters},
        )
        try:
            with executor.batch():
                jobs = [executor.submit(call) for call in calls]
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError, OSError) as error:
            reason = " ".join(str(error).split("sbatch: error:")[-1].split()) or str(error)
            raise WrongUse(
                f"--slurm: sbatch refused the job: {reason}; `sinfo` lists partitions and their limits"
            ) from None
    return str(jobs[0].job_id).partition("_")[0]


@contextlib.contextmanager
def _without_own_job() -> Iterator[None]:
    """Keep a driver that is a Slurm job itself (--detach) from passing its own job's limits to the jobs it submits."""
    own = {
        name: os.environ.pop(name) for name in list(os.environ) if name.startswith("SLURM_") and name != "SLURM_CONF"
    }
    try:
        yield
    finally:
        os.environ.update(own)


def work(files: Sequence[Path]) -> int:
    """Entry point of a job: run the stages of its ticket files."""
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    number = f"{array}_{index}" if array else os.environ.get("SLURM_JOB_ID", "")
    os.environ[JOB_VARIABLE] = f"{NAME}:{number}"
    return run_files(files)
