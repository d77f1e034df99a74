"""A simulated cluster as a place for stages: the scheduler submits stages as usual, and a simulated clock advances by their
estimated times. Nothing runs."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError

from pretrain_bench.benchmarks.specs.base import Spec
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.clusters.base import Ended, JobState, ReadyStage
from pretrain_bench.harness.contract.records import Outcome, Record
from pretrain_bench.harness.executors.local import LocalExecutor
from pretrain_bench.harness.planning.plan import StageState, State
from pretrain_bench.harness.planning.stage_specs import PlannedStage
from pretrain_bench.harness.running.capacity import Capacity, Demand, FreeCapacity, demand
from pretrain_bench.harness.running.display import Silent
from pretrain_bench.harness.running.scheduler import chain_seconds, run_in
from pretrain_bench.harness.running.stage_runner import RunOptions, StageReport, StageRunner
from pretrain_bench.harness.store.store import Store

CPUS_A_GPU, MIB_A_CPU = 16, 16 << 10
"""CPUs per GPU, and MiB per CPU, of nodes that do not state them: usual for GPU servers."""
EXPECTED = "expected nodes=N,gpus=N[,cpus=N][,memory=GIB][,node=RATES], such as nodes=16,gpus=8,node=h100"


class ClusterShape(Spec):
    """A cluster of equal nodes. Nodes without GPUs need `cpus`."""

    nodes: PositiveInt
    gpus: NonNegativeInt = Field(0, description="GPUs of each node")
    cpus: PositiveInt | None = Field(None, description="CPUs of each node; by default 16 for each GPU")
    memory: PositiveInt | None = Field(None, description="GiB of each node; by default 16 for each CPU")
    node: str | None = Field(None, description="rates of a GPU or CPU core, as for `bench plan --on`")

    @classmethod
    def parse(cls, text: str) -> ClusterShape:
        """Parse `nodes=16,gpus=8,node=h100`. Raises WrongUse for anything else."""
        fields = dict(part.partition("=")[::2] for part in text.split(","))
        try:
            shape = cls.model_validate(fields, strict=False)
        except ValidationError as error:
            first = error.errors()[0]
            raise WrongUse(f"--simulate {text!r}: {first['loc'][0]}: {first['msg']}; {EXPECTED}") from None
        if not shape.gpus and shape.cpus is None:
            raise WrongUse(f"--simulate {text!r}: nodes without GPUs need cpus; {EXPECTED}")
        return shape

    def capacity(self) -> Capacity:
        """The capacity of one node."""
        cpus = self.cpus or CPUS_A_GPU * self.gpus
        memory_mib = self.memory << 10 if self.memory else MIB_A_CPU * cpus
        return Capacity(cpus, memory_mib, tuple(map(str, range(self.gpus))))


class Simulation(NamedTuple):
    """A cluster's simulated execution of a plan. Times are wall time, utilisations shares from 0 to 1."""

    stages: int
    blocked: int
    """Stages that never start because they build on a failed one that is not retried."""
    makespan_seconds: float
    gpus: int
    cpus: int
    gpu_utilisation: float
    cpu_utilisation: float
    longest_chain: tuple[str, ...]
    """Titles of the stages of the chain that takes longest, in order."""
    longest_chain_seconds: float
    least_seconds: float
    """Lower bound for any schedule: the longest chain, or the total demand for GPUs or CPUs spread over all of them."""
    packing_cost: float
    """Makespan over `least_seconds`, minus 1: the cost of placing whole stages on whole nodes in this order."""


def simulate(stages: Sequence[StageState], shape: ClusterShape, retry_failed: bool = False) -> Simulation:
    """Execute the stages of a plan on the nodes of a simulated cluster.

    A stage takes its estimated time on any node; copying, queueing and worker start-up take none. Raises WrongUse if stages
    need a GPU and the nodes have none.
    """
    ended = [State.done] if retry_failed else [State.done, State.failed]
    node = shape.capacity()
    if not node.gpus and any(s.planned.spec.device == "cuda" for s in stages if s.state not in ended):
        raise WrongUse(f"--simulate: the stages need GPUs, but the nodes have none; {EXPECTED}")
    known = {stage.key: stage.planned for stage in stages}
    before = {s.key: _report(s.planned, s.state == State.done) for s in stages if s.state in ended}
    seconds = {s.key: s.estimate.seconds if s.estimate else 0.0 for s in stages if s.state not in ended}
    cluster = SimulatedCluster(node, shape.nodes)
    run_in(cluster, known.values(), _PastRuns(before), seconds=seconds)
    gpus, cpus, makespan = shape.nodes * len(node.gpus), shape.nodes * node.cpus, cluster.now
    chain = _longest_chain({key: known[key] for key in known if key in cluster.taken}, seconds)
    chain_length = sum(seconds[key] for key in chain)
    gpu_seconds = sum(need.gpus * seconds[key] for key, need in cluster.taken.items())
    cpu_seconds = sum(need.cpus * seconds[key] for key, need in cluster.taken.items())
    least = max(chain_length, gpu_seconds / gpus if gpus else 0.0, cpu_seconds / cpus)
    return Simulation(
        stages=len(cluster.taken),
        blocked=len(seconds) - len(cluster.taken),
        makespan_seconds=makespan,
        gpus=gpus,
        cpus=cpus,
        gpu_utilisation=gpu_seconds / (gpus * makespan) if gpus and makespan else 0.0,
        cpu_utilisation=cpu_seconds / (cpus * makespan) if makespan else 0.0,
        longest_chain=tuple(known[key].long_title for key in chain),
        longest_chain_seconds=chain_length,
        least_seconds=least,
        packing_cost=makespan / least - 1 if least else 0.0,
    )


class SimulatedCluster:
    """Equal nodes; a stage starts on the first with room, and ends after its estimated seconds of the clock `now`."""

    waits_for_others = True

    def __init__(self, node: Capacity, nodes: int) -> None:
        self.node, self.limit, self.now = node, nodes * node.cpus, 0.0
        self.taken: dict[str, Demand] = {}
        """Demand of every started stage, by key."""
        self._free = [FreeCapacity(node) for _ in range(nodes)]
        self._running: list[tuple[float, int, ReadyStage, FreeCapacity, tuple[str, ...]]] = []
        self._order = itertools.count()

    def attach(self, stages: Sequence[ReadyStage]) -> Iterable[str]:
        """Nothing to take over: it starts empty."""
        return ()

    def demand(self, planned: PlannedStage) -> Demand:
        """See `Place.demand`."""
        return demand(planned, self.node)

    def has_room(self, demand: Demand) -> bool:
        """Whether a node has that much free."""
        return self._place(demand) is not None

    def submit(self, stages: Sequence[ReadyStage]) -> None:
        """Start stages that have room."""
        for stage in stages:
            place = self._place(stage.demand)
            assert place is not None
            place[0].take(stage.demand, place[1])
            self.taken[stage.key] = stage.demand
            heapq.heappush(self._running, (self.now + stage.seconds, next(self._order), stage, *place))

    def ended(self, seconds: float) -> list[Ended]:
        """The next stage to end, immediately; the clock advances to its end."""
        self.now, _, stage, node, gpus = heapq.heappop(self._running)
        node.give_back(stage.demand, gpus)
        return [Ended(stage.key, _report(stage.planned, True))]

    def cancel(self) -> dict[str, str]:
        """See `Place.cancel`; a simulation ends by itself."""
        return {}

    def states(self) -> dict[str, JobState]:
        """See `Place.states`."""
        return {entry[2].key: JobState("", "running") for entry in self._running}

    def close(self) -> None:
        """See `Place.close`."""

    def _place(self, need: Demand) -> tuple[FreeCapacity, tuple[str, ...]] | None:
        return next(((free, gpus) for free in self._free if (gpus := free.gpus_for(need)) is not None), None)


class _PastRuns(StageRunner):
    """Knows the outcomes of stages by key, in place of a store; runs none."""

    def __init__(self, ended: Mapping[str, StageReport]) -> None:
        super().__init__(_Unlocked(Path()), LocalExecutor(), Silent(), RunOptions())
        self.ended = ended

    def reusable(self, planned: PlannedStage, key: str, needs_artifacts: bool) -> StageReport | None:
        """See `StageRunner.reusable`."""
        return self.ended.get(key)

    def remove_remains(self, reports: Iterable[StageReport]) -> None:
        """Nothing: a simulation touches no store."""


class _Unlocked(Store):
    """A store in which no other process works."""

    def held_by(self, key: str) -> str | None:
        """See `Store.held_by`."""
        return None


def _report(planned: PlannedStage, succeeded: bool) -> StageReport:
    """The outcome of a stage that never ran or ran earlier; nothing else of its record is used."""
    known: dict[str, Any] = {"outcome": Outcome.ok if succeeded else Outcome.crashed}
    return StageReport(planned, Record.model_construct(**known), reused=False)


def _longest_chain(planned: Mapping[str, PlannedStage], seconds: Mapping[str, float]) -> list[str]:
    """Keys of the chain of stages that takes longest, in order; empty if nothing runs."""
    length = chain_seconds(planned, seconds)
    chain: list[str] = []
    nexts = list(planned)
    while nexts:
        chain.append(max(nexts, key=length.__getitem__))
        nexts = [key for key, stage in planned.items() if chain[-1] in stage.spec.parents.values()]
    return chain
