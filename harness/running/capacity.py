"""The capacity of a machine, and a stage's demand for it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pretrain_bench.benchmarks.support.process_limits import usable_cpus, usable_memory_bytes
from pretrain_bench.harness.planning.stage_specs import PlannedStage

ROUNDING = 1e-9


class Capacity(NamedTuple):
    """Processors, memory and GPU ids of a machine, or of part of it."""

    cpus: int
    memory_mib: int
    gpus: tuple[str, ...] = ()

    def holds(self, need: Demand) -> int:
        """The number of stages with this demand that run in parallel."""
        free, number = FreeCapacity(self), 0
        while (gpus := free.gpus_for(need)) is not None:
            free.take(need, gpus)
            number += 1
        return number


class Demand(NamedTuple):
    """Processors, memory and number of GPUs that a stage may use; a number below 1 is a share of one GPU."""

    cpus: int
    memory_mib: int
    gpus: float


def whole_machine(device: str) -> Capacity:
    """The capacity available to this process; GPUs only if `device` is cuda."""
    return Capacity(usable_cpus(), usable_memory_bytes() >> 20, gpu_ids() if device == "cuda" else ())


def gpu_ids() -> tuple[str, ...]:
    """GPUs that CUDA offers to this process, as UUIDs if torch knows them: these identify a device to CUDA, NVML and container
    engines in any order. Otherwise by CUDA's index from 0, since device files are numbered differently in containers with only
    some of a machine's GPUs."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible == "":
        return ()
    names = [name.strip() for name in (visible or "").split(",")]
    uuids = _cuda_uuids()
    if (
        names[0] and not names[0].isdigit()
    ):  # given UUIDs: with a part of a GPU (MIG) torch may only know the UUID of the whole one
        return tuple(names[: len(uuids)])
    files = len(list(Path("/dev").glob("nvidia[0-9]*")))
    return uuids or tuple(map(str, range(files)))


def _cuda_uuids() -> tuple[str, ...]:
    """The GPUs that torch finds, by UUID, or by number where it knows no UUIDs."""
    try:
        import torch

        uuids = [getattr(torch.cuda.get_device_properties(i), "uuid", None) for i in range(torch.cuda.device_count())]
    except (ImportError, RuntimeError):
        return ()
    return tuple(str(i) if u is None else f"GPU-{str(u).removeprefix('GPU-')}" for i, u in enumerate(uuids))


def asked(planned: PlannedStage) -> Demand:
    """The demand in a stage's specs: threads and loader processes, its memory cap (0 without one), and its GPUs."""
    spec, caps = planned.spec, planned.caps
    gpus = (caps.gpus or 1) if spec.device == "cuda" else 0
    return Demand(spec.threads + spec.limits.loader_workers, caps.memory_mib or 0, gpus)


def demand(planned: PlannedStage, capacity: Capacity) -> Demand:
    """The maximum use of a stage, limited to the whole capacity. Without a memory cap a stage takes all memory, or the part that
    belongs to its GPUs."""
    cpus, memory_mib, gpus = asked(planned)
    gpus = min(len(capacity.gpus), gpus)
    uncapped_mib = int(capacity.memory_mib * gpus / len(capacity.gpus)) if gpus else capacity.memory_mib
    return Demand(min(capacity.cpus, cpus), min(capacity.memory_mib, memory_mib or uncapped_mib), gpus)


class FreeCapacity:
    """The free part of a capacity. Stages that need less than a whole GPU share one."""

    def __init__(self, capacity: Capacity) -> None:
        self._cpus, self._memory_mib = capacity.cpus, capacity.memory_mib
        self._gpus = dict.fromkeys(capacity.gpus, 1.0)

    def gpus_for(self, need: Demand) -> tuple[str, ...] | None:
        """The GPUs that a stage with this demand would get, empty if it needs none; None if it does not fit."""
        if self._cpus <= 0 or need.cpus > self._cpus or need.memory_mib > self._memory_mib:
            return None
        if need.gpus >= 1 or need.gpus == 0:
            whole = [gpu for gpu, free in self._gpus.items() if free > 1 - ROUNDING]
            return tuple(whole[: int(need.gpus)]) if len(whole) >= need.gpus else None
        shared = [(free, gpu) for gpu, free in self._gpus.items() if free >= need.gpus - ROUNDING]
        return (min(shared)[1],) if shared else None

    def take(self, need: Demand, gpus: Iterable[str]) -> None:
        """Reserve a demand on these GPUs."""
        self._add(need, gpus, -1)

    def give_back(self, need: Demand, gpus: Iterable[str]) -> None:
        """Release a reserved demand."""
        self._add(need, gpus, 1)

    def _add(self, need: Demand, gpus: Iterable[str], sign: int) -> None:
        self._cpus += sign * need.cpus
        self._memory_mib += sign * need.memory_mib
        for gpu in gpus:
            self._gpus[gpu] += sign * min(need.gpus, 1.0)
