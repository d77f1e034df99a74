"""Replays the scheduler's policy on an imagined cluster, over estimated times: nothing runs."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError

from pretrain_bench.benchmarks.specs.base import Spec
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.planning.plan import StageState, State
from pretrain_bench.harness.running.capacity import Capacity, demand
from pretrain_bench.harness.running.policy import Policy, chain_seconds

CPUS_A_GPU, MIB_A_CPU = 16, 16 << 10
"""Of a node whose CPUs or memory are not given: usual of GPU servers."""
EXPECTED = "expected nodes=N,gpus=N[,cpus=N][,memory=GIB][,node=RATES], such as nodes=16,gpus=8,node=h100"


class ClusterShape(Spec):
    """A cluster of equal nodes. Nodes without GPUs need `cpus`."""

    nodes: PositiveInt
    gpus: NonNegativeInt = Field(0, description="of each node")
    cpus: PositiveInt | None = Field(None, description="of each node; 16 for each GPU where not given")
    memory: PositiveInt | None = Field(None, description="GiB of each node; 16 for each CPU where not given")
    node: str | None = Field(None, description="rates of a GPU or CPU core, as `bench plan --on` takes them")

    @classmethod
    def parse(cls, text: str) -> ClusterShape:
        """The shape in `nodes=16,gpus=8,node=h100`. Raises WrongUse for anything else."""
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
        """What one node offers."""
        cpus = self.cpus or CPUS_A_GPU * self.gpus
        memory_mib = self.memory << 10 if self.memory else MIB_A_CPU * cpus
        return Capacity(cpus, memory_mib, tuple(map(str, range(self.gpus))))


class Simulation(NamedTuple):
    """How a cluster would work off a plan. Times are wall time, utilisations shares from 0 to 1."""

    stages: int
    blocked: int
    """Stages that never start, because they build on a failed one that is not retried."""
    makespan_seconds: float
    gpus: int
    cpus: int
    gpu_utilisation: float
    cpu_utilisation: float
    longest_chain: tuple[str, ...]
    """Titles of the stages of the chain that takes longest, in order."""
    longest_chain_seconds: float
    least_seconds: float
    """No schedule takes less: the longest chain, or the whole demand for GPUs or CPUs spread over all of them."""
    packing_cost: float
    """Makespan over `least_seconds`, less 1: the price of whole stages on whole nodes, in this order."""


def simulate(stages: Sequence[StageState], shape: ClusterShape, retry_failed: bool = False) -> Simulation:
    """Work off the stages of a plan, in its order, on the nodes of a cluster.

    A stage takes its estimate, wherever it runs; copying, queueing and the start of a worker count nothing. Raises WrongUse where
    stages need a GPU and the nodes have none.
    """
    known = {stage.key: stage for stage in stages}
    ended = [State.done] if retry_failed else [State.done, State.failed]
    node = shape.capacity()
    if not node.gpus and any(s.planned.spec.device == "cuda" for s in stages if s.state not in ended):
        raise WrongUse(f"--simulate: the stages run on GPUs, and the nodes have none; {EXPECTED}")
    parents = {key: tuple(stage.planned.spec.parents.values()) for key, stage in known.items()}
    demands = {key: demand(stage.planned, node) for key, stage in known.items()}
    policy = Policy(parents, demands, [node] * shape.nodes, shape.nodes * node.cpus)
    seconds = {}
    for key, stage in known.items():
        if stage.state in ended:
            policy.end(key, stage.state == State.done)
        else:
            seconds[key] = 0.0 if stage.estimate is None else stage.estimate.seconds
    ends = replay(policy, seconds)
    gpu_seconds = sum(demands[key].gpus * seconds[key] for key in ends)
    cpu_seconds = sum(demands[key].cpus * seconds[key] for key in ends)
    chain = _longest_chain(ends, parents, seconds)
    gpus, cpus, makespan = shape.nodes * len(node.gpus), shape.nodes * node.cpus, max(ends.values(), default=0.0)
    chain_length = sum(seconds[key] for key in chain)
    least = max(chain_length, gpu_seconds / gpus if gpus else 0.0, cpu_seconds / cpus)
    return Simulation(
        stages=len(ends),
        blocked=len(seconds) - len(ends),
        makespan_seconds=makespan,
        gpus=gpus,
        cpus=cpus,
        gpu_utilisation=gpu_seconds / (gpus * makespan) if gpus and makespan else 0.0,
        cpu_utilisation=cpu_seconds / (cpus * makespan) if makespan else 0.0,
        longest_chain=tuple(known[key].planned.long_title for key in chain),
        longest_chain_seconds=chain_length,
        least_seconds=least,
        packing_cost=makespan / least - 1 if least else 0.0,
    )


def replay(policy: Policy, seconds: Mapping[str, float]) -> dict[str, float]:
    """Run every stage of a policy that can run, each for its seconds; returns the time at which each ended, from 0."""
    now, ends = 0.0, dict[str, float]()
    order, running = itertools.count(), list[tuple[float, int, str]]()
    while True:
        policy.drop_blocked()
        for key, place in policy.startable():
            policy.start(key, place)
            heapq.heappush(running, (now + seconds[key], next(order), key))
        if not running:
            return ends
        now, _, key = heapq.heappop(running)
        policy.end(key, succeeded=True)
        ends[key] = now


def _longest_chain(ran: Iterable[str], parents: Mapping[str, Iterable[str]], seconds: Mapping[str, float]) -> list[str]:
    """The chain of stages that takes longest, in order; empty where nothing runs."""
    of_ran = {key: [p for p in parents[key] if p in seconds] for key in parents if key in set(ran)}
    length = chain_seconds(of_ran, seconds)
    chain: list[str] = []
    nexts: Iterable[str] = of_ran
    while (key := max(nexts, key=length.__getitem__, default=None)) is not None:
        chain.append(key)
        nexts = [child for child, of in of_ran.items() if key in of]
    return chain
