"""The interface between the scheduler, which owns the graph of stages, and the place where stages run.

The scheduler decides which stages run, in which order, and how to handle those that have ended. A place accepts ready stages
with their demand and reports their ends. On a cluster only the store counts: a stage has succeeded when its record is in the
store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from pretrain_bench.benchmarks.support.errors import EnvironmentCannot
from pretrain_bench.harness.planning.stage_specs import PlannedStage
from pretrain_bench.harness.running.capacity import Demand
from pretrain_bench.harness.running.stage_runner import StageReport


class Interrupted(EnvironmentCannot):
    """A job ended before its stage: preempted, out of time, killed, or on a lost node. The stage may be submitted again and
    resumes from its last checkpoint.

    `step` is the last step it had reached, by which the scheduler distinguishes progress from a loop; `started` is false if
    the job ended before this stage's turn.
    """

    def __init__(self, message: str, step: int = 0, started: bool = True) -> None:
        super().__init__(message)
        self.step, self.started = step, started


class ReadyStage(NamedTuple):
    """A stage whose parents are done, for a place to run. `needs_artifacts` as in `StageJob`; `seconds` is an estimate, 0 if
    unknown."""

    planned: PlannedStage
    key: str
    demand: Demand
    needs_artifacts: bool = False
    seconds: float = 0.0


class Ended(NamedTuple):
    """A stage that a place has finished: its report, or its error. A cluster gives neither for a stage that ran to its end: the
    scheduler then reads the record from the store."""

    key: str
    report: StageReport | None = None
    problem: BaseException | None = None


class JobState(NamedTuple):
    """Where a submitted stage is: the cluster's name of its job, `pending` or `running`, and its host if any."""

    job: str
    state: str
    host: str = ""
    title: str = ""


class Place(Protocol):
    """Runs stages: this machine, or a cluster."""

    limit: int
    """Largest number of submitted stages that have not ended."""
    waits_for_others: bool
    """Whether to submit a stage that another process runs, to wait there; otherwise the scheduler watches for its record."""

    def attach(self, stages: Sequence[ReadyStage]) -> Iterable[str]:
        """Take over running stages that an earlier command on the same store submitted; returns their keys."""

    def demand(self, planned: PlannedStage) -> Demand:
        """The maximum use of a stage here."""

    def has_room(self, demand: Demand) -> bool:
        """Whether a stage with this demand can be submitted now."""

    def submit(self, stages: Sequence[ReadyStage]) -> None:
        """Submit stages, longest chain first. Raises BenchError if the place refuses them."""

    def ended(self, seconds: float) -> list[Ended]:
        """Stages that have ended since the last call; waits up to `seconds` for one. Raises BenchError if the place is lost."""

    def cancel(self) -> Mapping[str, str]:
        """Ask the stages of this command to stop: gracefully the first time, immediately the second time. Returns the stages of
        earlier commands, which continue and are no longer watched: the cluster's name of the job by key."""

    def states(self) -> dict[str, JobState]:
        """The submitted stages, by key."""

    def close(self) -> None:
        """Free the resources that the place holds in this process. Stages on a cluster continue."""
