"""Runs the sleeping suite on a Ray cluster: `python -m tests.harness.clusters.ray_driver RUNS DATA ADDRESS [SEEDS]`.

Each stage is a process. BENCH_TEST_EXECUTOR=module:Class selects another executor.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pretrain_bench.benchmarks.support.errors import BenchError
from pretrain_bench.harness.clusters.ray_cluster import RayCluster
from pretrain_bench.harness.clusters.ticket import ExecutorChoice, job_of
from pretrain_bench.harness.running.stage_runner import RunOptions, StageReport
from pretrain_bench.harness.store.store import Store
from tests.faults.suite import SLEEPER, planned
from tests.harness.clusters.fake import run_on


def executor() -> ExecutorChoice:
    """The executor of the stages, whose processes do not inherit BENCH_TEST_SLEEP."""
    if name := os.environ.get("BENCH_TEST_EXECUTOR"):
        return ExecutorChoice(name=name)
    sleep = f"BENCH_TEST_SLEEP={os.environ.get('BENCH_TEST_SLEEP', '1')}"
    return ExecutorChoice(name="local", command=("env", sleep, *SLEEPER))


def run_on_ray(runs: Path, s3dis: str, address: str, seeds: int = 1) -> list[StageReport]:
    """Run the suite; each stage runs on the node that Ray chose."""
    store = Store(runs)
    store.check_writable()
    place = RayCluster(store, job_of(store, executor(), RunOptions()), address)
    return run_on(place, store, planned(s3dis, seeds))


if __name__ == "__main__":
    runs, s3dis, address, *seeds = sys.argv[1:]
    try:
        reports = run_on_ray(Path(runs), s3dis, address, *map(int, seeds))
        print(len(reports), sum(r.reused for r in reports))
    except BenchError as error:
        sys.exit(f"exit {error.exit_code}: {error}")
