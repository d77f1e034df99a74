"""Job states reported by a cluster, for the owners of stages. A job is written as `CLUSTER:ID`, as in `slurm:17_3`; Ray's ID has
parts (ray_cluster.py)."""

from __future__ import annotations

import functools
import shutil
import subprocess
import time

ANSWER_SECONDS = 20.0
ASK_EVERY_SECONDS = 10.0


def has_ended(job: str) -> bool:
    """Whether a job has ended according to its cluster; False if that cluster does not answer. Asked every ten seconds."""
    cluster, _, number = job.partition(":")
    if cluster == "slurm":
        return _slurm_job_has_ended(number, int(time.monotonic() / ASK_EVERY_SECONDS))
    if cluster == "ray":
        from pretrain_bench.harness.clusters.ray_cluster import task_has_ended

        return task_has_ended(job)
    return False


@functools.lru_cache(maxsize=64)
def _slurm_job_has_ended(number: str, period: int) -> bool:
    listed = squeue("--jobs", number)
    return listed is not None and number not in listed


def squeue(*arguments: str) -> dict[str, tuple[str, str]] | None:
    """Slurm jobs that have not ended: number (with array index) to state and node. None if squeue does not answer; a
    controller that does not know the jobs lists none."""
    if shutil.which("squeue") is None:
        return None
    command = ["squeue", "--noheader", "--array", "--format=%i|%T|%N", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=ANSWER_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        return {} if "Invalid job id" in done.stderr else None
    rows = [line.split("|") for line in done.stdout.splitlines() if line.count("|") == 2]
    return {number.strip(): (state.strip(), node.strip()) for number, state, node in rows}
