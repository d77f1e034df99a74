"""The capacity of a machine, and a stage's demand for it."""

from __future__ import annotations

import os
from typing import NamedTuple

from pretrain_bench.benchmarks.support.process_limits import usable_cpus, usable_memory_bytes
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
    return Capacity(usable_cpus(), usable_memory_bytes() >> 20, gpu_ids() if device == "cuda" else ())


def gpu_ids() -> tuple[str, ...]:
    """The GPUs that CUDA offers to this process, as UUIDs where torch knows them: those mean the same device to CUDA, NVML and a
    container engine, in any order of devices. In a container the numbers of device files are not CUDA's."""
    import torch

    count = torch.cuda.device_count()
    visible = [i.strip() for i in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    if (
        visible[0] and not visible[0].isdigit()
    ):  # UUIDs already; of a part of a GPU (MIG), torch may know the whole one's only
        return tuple(visible[:count])
    uuids = (getattr(torch.cuda.get_device_properties(i), "uuid", None) for i in range(count))
    return tuple(
        f"GPU-{str(uuid).removeprefix('GPU-')}" if uuid is not None else str(i) for i, uuid in enumerate(uuids)
    )


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
