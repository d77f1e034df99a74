"""The capacity of a machine, and a stage's demand for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import psutil

from pretrain_bench.harness.planning.stage_specs import PlannedStage


class Capacity(NamedTuple):
    """Processors, memory and GPU ids of a machine, or of a part of it."""

    cpus: int
    memory_mib: int
    gpus: tuple[str, ...] = ()


class Demand(NamedTuple):
    """Processors, memory and number of GPUs that a stage may use."""

    cpus: int
    memory_mib: int
    gpus: int


def whole_machine(device: str) -> Capacity:
    """The capacity that this process may use; GPUs only where `device` is cuda."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Capacity(cpus, psutil.virtual_memory().total >> 20, gpu_ids() if device == "cuda" else ())


def gpu_ids() -> tuple[str, ...]:
    """The GPUs that this process may use: those of CUDA_VISIBLE_DEVICES, otherwise every device file."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(i for i in visible.split(",") if i)
    return tuple(sorted(p.name.removeprefix("nvidia") for p in Path("/dev").glob("nvidia[0-9]*"))) or ("0",)


def demand(planned: PlannedStage, capacity: Capacity) -> Demand:
    """The most that a stage may use, at most the whole capacity. Without a cap on memory a stage takes all of it, or the part
    that belongs to its GPUs."""
    spec, caps = planned.spec, planned.caps
    gpus = min(len(capacity.gpus), caps.gpus or 1) if spec.device == "cuda" else 0
    uncapped_mib = capacity.memory_mib * gpus // len(capacity.gpus) if gpus else capacity.memory_mib
    return Demand(
        min(capacity.cpus, spec.threads + spec.limits.loader_workers),
        min(capacity.memory_mib, caps.memory_mib or uncapped_mib),
        gpus,
    )
