"""Runs the sleeping suite on a Ray cluster: `python -m tests.harness.clusters.ray_driver RUNS DATA ADDRESS`."""

from __future__ import annotations

import sys
from pathlib import Path

from pretrain_bench.benchmarks.support.errors import BenchError
from pretrain_bench.harness.clusters.ray_cluster import RayCluster
from pretrain_bench.harness.clusters.ticket import ExecutorChoice, job_of
from pretrain_bench.harness.running.stage_runner import RunOptions, StageReport
from pretrain_bench.harness.store.store import Store
from tests.faults.suite import SLEEPER, planned
from tests.harness.clusters.fake import run_on


def run_on_ray(runs: Path, s3dis: str, address: str) -> list[StageReport]:
    """Each stage is a process that sleeps, on the node that Ray chose."""
    store = Store(runs)
    store.check_writable()
    place = RayCluster(store, job_of(store, ExecutorChoice(name="local", command=SLEEPER), RunOptions()), address)
    return run_on(place, store, planned(s3dis, seeds=1))


if __name__ == "__main__":
    try:
        reports = run_on_ray(Path(sys.argv[1]), *sys.argv[2:])
        print(len(reports), sum(r.reused for r in reports))
    except BenchError as error:
        sys.exit(f"exit {error.exit_code}: {error}")
