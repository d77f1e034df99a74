"""Sleeping stages on a Ray cluster of one or two nodes on this machine: overhead per stage, and what a second node adds.

`python -m tests.verification.cluster` runs it; `python -m tests.verification.cluster_ray [--stages N]` prints its numbers alone.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

from pretrain_bench.harness.clusters.ray_cluster import RayCluster
from pretrain_bench.harness.clusters.ticket import ExecutorChoice, job_of
from pretrain_bench.harness.running.stage_runner import RunOptions
from pretrain_bench.harness.store.store import Store
from tests.conftest import REPOSITORY
from tests.faults.injection import check_whole
from tests.faults.suite import planned
from tests.harness.clusters.fake import SLEEPING, run_on
from tests.verification.disturbed import STAGES_A_SEED
from tests.verification.faults import rooms

OBJECT_STORE_BYTES = 80 << 20
NO_RAY = "Ray is not installed"
LONG = "6"
"""BENCH_TEST_SLEEP of the stages that one node and two nodes run: 0.6 to 6 s each."""


@contextmanager
def ray_nodes(number: int, sleep: str) -> Iterator[str]:
    """A Ray cluster on loopback, with nodes of one CPU; yields its address. `sleep`: seconds of each stage."""
    variables = {
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "verify" * 8, "BENCH_TEST_SLEEP": sleep,
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
    }  # fmt: skip
    with mock.patch.dict(os.environ, variables):
        from ray.cluster_utils import Cluster  # reads the environment variables for authentication

        node = {"object_store_memory": OBJECT_STORE_BYTES, "num_cpus": 1}
        cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        for _ in range(number - 1):
            cluster.add_node(**node)
        try:
            yield cluster.address
        finally:
            cluster.shutdown()


def run_stages(
    runs: Path, s3dis: Path, seeds: int, nodes: int, sleep: str, executor: ExecutorChoice = SLEEPING
) -> dict[str, float]:
    """Run the sleeping suite; returns the seconds by the clock and those of its stages. The workers of the cluster start before."""
    with ray_nodes(nodes, sleep) as address:
        for folder, count in ((runs.with_name(f"{runs.name}-first"), 1), (runs, seeds)):
            store, cells = Store(folder), planned(str(s3dis), count)
            store.check_writable()
            place = RayCluster(store, job_of(store, executor, RunOptions()), address)
            began = time.monotonic()
            run_on(place, store, cells)
            wall = time.monotonic() - began
        check_whole(runs, seeds * STAGES_A_SEED)
    return {"wall": wall, "own": sum(record.measured.wall_seconds for record in store.records())}


def overhead_on_ray(scratch: Path, s3dis: Path, stages: int) -> dict[str, Any]:
    """The overhead per stage on one node: the time besides its sleep. And long stages on one node and on two."""
    if find_spec("ray") is None:
        return {"not run": NO_RAY}
    scratch.mkdir(exist_ok=True)
    seeds = max(1, stages // STAGES_A_SEED)
    one = run_stages(scratch / "one", s3dis, seeds, 1, "0.01")
    few = max(1, seeds // 20)
    long = {nodes: run_stages(scratch / f"long{nodes}", s3dis, few, nodes, LONG)["wall"] for nodes in (1, 2)}
    return {
        "stages": seeds * STAGES_A_SEED,
        "wall_seconds": round(one["wall"], 1),
        "stage_seconds": round(one["own"], 1),
        "overhead_ms_a_stage": round(1000 * (one["wall"] - one["own"]) / (seeds * STAGES_A_SEED), 1),
        "second_node": {
            "stages": few * STAGES_A_SEED,
            **{f"{name}_seconds": round(long[n], 1) for n, name in ((1, "one_node"), (2, "two_nodes"))},
            "speed_up": round(long[1] / long[2], 2),
        },
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--stages", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(overhead_on_ray(Path(folder), rooms(Path(folder) / "s3dis"), options.stages), indent=1))
