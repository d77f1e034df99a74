"""The seam between the scheduler, which owns the graph of stages, and the place where stages run.

The scheduler decides which stages run, in which order, and what becomes of one that has ended. A place takes ready stages with
their demand and reports their ends. On a cluster the store is the only truth: a stage has succeeded when its record is in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from pretrain_bench.benchmarks.support.errors import EnvironmentCannot
from pretrain_bench.harness.planning.stage_specs import PlannedStage
from pretrain_bench.harness.running.capacity import Demand
from pretrain_bench.harness.running.stage_runner import StageReport


class Interrupted(EnvironmentCannot):
    """A job ended before its stage did: preempted, out of its time, killed, or on a node that was lost. The stage may be handed
    over again and resumes from its last checkpoint.

    `step` is the last step that it had reached, so that the scheduler can tell progress from a loop; `started` is false where
    the job ended before this stage's turn.
    """

    def __init__(self, message: str, step: int = 0, started: bool = True) -> None:
        super().__init__(message)
        self.step, self.started = step, started


class ReadyStage(NamedTuple):
    """A stage whose parents are done, for a place to run. `needs_artifacts` as in `StageJob`; `seconds` is an estimate, 0 where
    there is none."""

    planned: PlannedStage
    key: str
    demand: Demand
    needs_artifacts: bool = False
    seconds: float = 0.0


class Ended(NamedTuple):
    """A stage that a place has finished with: its report, or what went wrong. A cluster gives neither for a stage that ran to
    its end: the scheduler then reads the record from the store."""

    key: str
    report: StageReport | None = None
    problem: BaseException | None = None


class JobState(NamedTuple):
    """Where a stage is that was handed over: the cluster's name of its job, `pending` or `running`, and its host if any."""

    job: str
    state: str
    host: str = ""
    title: str = ""


class Place(Protocol):
    """Runs stages: this machine, or a cluster."""

    limit: int
    """Most stages that the scheduler hands over and has not seen end."""
    waits_for_others: bool
    """Whether a stage that another process runs may be handed over and waits there; else the scheduler watches for its record."""

    def attach(self, stages: Sequence[ReadyStage]) -> Iterable[str]:
        """Take over stages that an earlier command on the same store handed over and that are under way; returns their keys."""

    def demand(self, planned: PlannedStage) -> Demand:
        """The most that a stage may use here."""

    def has_room(self, demand: Demand) -> bool:
        """Whether a stage of this demand can be handed over now."""

    def submit(self, stages: Sequence[ReadyStage]) -> None:
        """Hand stages over, longest chain first. Raises BenchError where the place refuses them."""

    def ended(self, seconds: float) -> list[Ended]:
        """Stages that have ended since the last call; waits up to `seconds` for one. Raises BenchError if the place is lost."""

    def cancel(self) -> None:
        """Ask the stages of this command to stop: softly the first time, at once the second time."""

    def states(self) -> dict[str, JobState]:
        """The stages that are handed over, by key."""

    def close(self) -> None:
        """Free what the place holds in this process. Stages on a cluster run on."""
