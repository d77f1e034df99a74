"""Processors, memory and shared memory available to this process under its affinity, control groups and batch job.

A container or batch system gives a process less than the whole machine; plain counts of processors and memory do not show this.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
SHARED_MEMORY = Path("/dev/shm")
COUNTERS = Path("/proc/vmstat")


def usable_cpus() -> int:
    """Number of processors for this process, at least 1: the minimum of its affinity, the whole processors in its control group's
    quota, and those of its Slurm job."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in cgroup_folders("cpu") if (quota := _cpu_quota(folder)) is not None]
    return max(1, int(min([own, *quotas, *_of_job("SLURM_CPUS_ON_NODE")])))


def usable_memory_bytes() -> int:
    """Memory in bytes for this process: that of the machine, or less if its control group or Slurm job limits it."""
    import psutil

    limits = [limit for folder in cgroup_folders("memory") if (limit := _memory_limit(folder)) is not None]
    per_cpu = [mib * cpus for mib in _of_job("SLURM_MEM_PER_CPU") for cpus in _of_job("SLURM_CPUS_ON_NODE")]
    job = [mib << 20 for mib in (*_of_job("SLURM_MEM_PER_NODE"), *per_cpu)]
    return min([psutil.virtual_memory().total, *limits, *job])


def _of_job(variable: str) -> list[int]:
    """A per-node number of the Slurm job, as a list of at most one; 0 means the whole node and gives none."""
    text = os.environ.get(variable, "") if "SLURM_JOB_ID" in os.environ else ""
    return [int(text)] if text.isdigit() and int(text) > 0 else []


def shared_memory_bytes() -> int | None:
    """Size of /dev/shm in bytes; None if it does not exist."""
    try:
        size = os.statvfs(SHARED_MEMORY)
    except OSError:
        return None
    return size.f_blocks * size.f_frsize


def killed_for_memory() -> int:
    """Number of processes in this process's control groups killed by the kernel for lack of memory; 0 if it does not report
    them."""
    return max([0, *map(memory_kills, cgroup_folders("memory"))])


def memory_kills(group: Path) -> int:
    """Number of processes in one control group killed by the kernel for lack of memory; 0 if it does not report them."""
    return max(_oom_kills(group / name) for name in ("memory.events", "memory.oom_control"))


def memory_kills_of_the_machine() -> int:
    """Number of processes killed by the kernel for lack of memory since boot, in any control group; 0 if it does not report
    them."""
    return _oom_kills(COUNTERS)


def _oom_kills(file: Path) -> int:
    fields = dict(line.split() for line in _read(file).splitlines() if len(line.split()) == 2)
    return int(fields.get("oom_kill", 0))


def cgroup_folders(controller: str) -> Iterator[Path]:
    """Yield this process's control group for `controller` (cpu or memory) and its parents, in versions 2 and 1.

    In a container the path may be the host's, of which only the last folders exist; missing folders are skipped.
    """
    for line in _read(OWN_CGROUPS).splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers and controller not in controllers.split(","):
            continue
        mount = CGROUPS / controller if controllers else CGROUPS
        below = Path(path.lstrip("/"))
        for folder in [mount / below, *(mount / parent for parent in below.parents)]:
            if folder.is_dir():
                yield folder


def _cpu_quota(folder: Path) -> float | None:
    """Processors in a control group's quota; None without one."""
    quota, period = (*_read(folder / "cpu.max").split(), "", "")[:2]
    if not quota:
        quota, period = (_read(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    if not (quota.isdigit() and period.isdigit() and int(period)):  # "max", or -1 in version 1
        return None
    return int(quota) / int(period)


def _memory_limit(folder: Path) -> int | None:
    """Bytes that a control group may use; None without a limit, which version 1 writes as a huge number."""
    text = (_read(folder / "memory.max") or _read(folder / "memory.limit_in_bytes")).strip()
    return int(text) if text.isdigit() else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
