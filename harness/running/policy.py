"""Which stages start next, and where: the policy of the scheduler, without clock, threads or store.

`bench run` asks it on a real machine, `bench plan --simulate` on an imagined cluster. A stage starts when the stages that it
builds on have succeeded and a node has its demand free. The first waiting stage that fits comes first, on the first such node.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from pretrain_bench.harness.running.capacity import Capacity, Demand


class Place(NamedTuple):
    """Where a stage runs: the number of the node, and the GPUs that it holds there."""

    node: int
    gpus: tuple[str, ...] = ()


class Policy:
    """The stages of a schedule, by key, and what is free on its nodes; at most `workers` stages run at once.

    `parents` holds every stage, in the order in which they start where nothing else decides, with the keys of the stages that
    it builds on.
    """

    def __init__(
        self,
        parents: Mapping[str, Iterable[str]],
        demands: Mapping[str, Demand],
        nodes: Sequence[Capacity],
        workers: int,
    ) -> None:
        self.parents = {key: tuple(of) for key, of in parents.items()}
        self.demands, self.workers = demands, workers
        self.waiting = dict.fromkeys(self.parents)
        self.running: dict[str, Place] = {}
        self.succeeded: set[str] = set()
        self.cpus = [node.cpus for node in nodes]
        self.memory_mib = [node.memory_mib for node in nodes]
        self.gpus = [list(node.gpus) for node in nodes]

    def startable(self) -> Iterator[tuple[str, Place]]:
        """Each waiting stage that may start now, with its place; the caller starts it, or leaves it waiting, before the next."""
        for key in list(self.waiting):
            if len(self.running) >= self.workers or all(cpus <= 0 for cpus in self.cpus):
                return
            if self.is_ready(key) and (place := self._place(self.demands[key])) is not None:
                yield key, place

    def is_ready(self, key: str) -> bool:
        """Whether every stage that it builds on has succeeded."""
        return all(parent in self.succeeded for parent in self.parents[key])

    def start(self, key: str, place: Place) -> None:
        """Take the demand of a waiting stage, at a place that `startable` gave."""
        del self.waiting[key]
        self.running[key] = place
        self._add(key, place, -1)
        self.gpus[place.node] = [gpu for gpu in self.gpus[place.node] if gpu not in place.gpus]

    def end(self, key: str, succeeded: bool) -> None:
        """Free the demand of a running stage, or count a waiting one as ended before."""
        place = self.running.pop(key, None)
        self.waiting.pop(key, None)
        if place is not None:
            self._add(key, place, 1)
            self.gpus[place.node] = sorted([*self.gpus[place.node], *place.gpus])
        if succeeded:
            self.succeeded.add(key)

    def drop_blocked(self) -> None:
        """Drop the waiting stages that build on one that ended without success, or that was dropped."""
        for key in list(self.waiting):
            pending = (p for p in self.parents[key] if p not in self.succeeded)
            if any(p not in self.waiting and p not in self.running for p in pending):
                del self.waiting[key]

    def _place(self, need: Demand) -> Place | None:
        for node, gpus in enumerate(self.gpus):
            if need.cpus <= self.cpus[node] and need.memory_mib <= self.memory_mib[node] and need.gpus <= len(gpus):
                return Place(node, tuple(gpus[: need.gpus]))
        return None

    def _add(self, key: str, place: Place, sign: int) -> None:
        need = self.demands[key]
        self.cpus[place.node] += sign * need.cpus
        self.memory_mib[place.node] += sign * need.memory_mib


def chain_seconds(parents: Mapping[str, Iterable[str]], seconds: Mapping[str, float]) -> dict[str, float]:
    """For each stage, the time from its start to the end of the longest chain of stages that begins with it, in `seconds`' unit.

    A stage follows all of its `parents` in their mapping; parents outside the mapping are left out.
    """
    length = {key: seconds[key] for key in parents}
    for key in reversed(list(parents)):
        for parent in parents[key]:
            if parent in length:
                length[parent] = max(length[parent], seconds[parent] + length[key])
    return length
