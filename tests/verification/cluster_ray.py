"""`make verify-ray`: sleeping stages on a Ray cluster on this machine: overhead, speed-up by a second node, random faults.

`python -m tests.verification.cluster_ray [--stages N] [--faults N]`.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from pretrain_bench.harness.clusters.ray_cluster import RayCluster
from pretrain_bench.harness.clusters.ticket import ExecutorChoice, job_of
from pretrain_bench.harness.running.stage_runner import RunOptions
from pretrain_bench.harness.store.store import Store
from tests.faults.injection import check_whole
from tests.faults.suite import planned
from tests.harness.clusters.fake import SLEEPING, run_on
from tests.harness.clusters.ray_nodes import IN_PROCESS, ray_nodes
from tests.verification.disturbed import SEEDS_DISTURBED, SLEEP_DISTURBED, STAGES_A_SEED, Disturbed, results_of
from tests.verification.faults import rooms
from tests.verification.report import write_report

SEED, NODES = 11, 2
VICTIMS = ("worker", "raylet", "node", "driver", "head")
LONG = "6"
"""BENCH_TEST_SLEEP of the stages that one node and two nodes run: 0.6 to 6 s each."""


def run_stages(
    runs: Path, s3dis: Path, seeds: int, nodes: int, sleep: str, executor: ExecutorChoice = SLEEPING
) -> dict[str, float]:
    """Run the sleeping suite; returns the seconds by the clock and those of its stages. The workers of the cluster start before."""
    with ray_nodes(nodes - 1, sleep, head_cpus=1) as cluster:
        for folder, count in ((runs.with_name(f"{runs.name}-first"), 1), (runs, seeds)):
            store, cells = Store(folder), planned(str(s3dis), count)
            store.check_writable()
            place = RayCluster(store, job_of(store, executor, RunOptions()), cluster.address)
            began = time.monotonic()
            run_on(place, store, cells)
            wall = time.monotonic() - began
        check_whole(runs, seeds * STAGES_A_SEED)
    return {"wall": wall, "own": sum(record.measured.wall_seconds for record in store.records())}


def overhead_on_ray(scratch: Path, s3dis: Path, stages: int) -> dict[str, Any]:
    """The overhead per stage on one node: the time besides its sleep. And long stages on one node and on two."""
    seeds = max(1, stages // STAGES_A_SEED)
    one = run_stages(scratch / "one", s3dis, seeds, 1, "0.01")
    few = max(1, seeds // 20)
    long = {nodes: run_stages(scratch / f"long{nodes}", s3dis, few, nodes, LONG)["wall"] for nodes in (1, NODES)}
    return {
        "stages": seeds * STAGES_A_SEED,
        "wall_seconds": round(one["wall"], 1),
        "stage_seconds": round(one["own"], 1),
        "overhead_ms_a_stage": round(1000 * (one["wall"] - one["own"]) / (seeds * STAGES_A_SEED), 1),
        "second_node": {
            "stages": few * STAGES_A_SEED,
            **{f"{name}_seconds": round(long[n], 1) for n, name in ((1, "one_node"), (NODES, "two_nodes"))},
            "speed_up": round(long[1] / long[NODES], 2),
        },
    }


def faults_on_ray(scratch: Path, s3dis: Path, times: int) -> dict[str, Any]:
    """Hit every victim `times` times while suites run on two nodes, one after the other. In every second suite each stage is a
    process of its own, which outlives a killed worker."""
    victims = [name for name in VICTIMS for _ in range(times)]
    random.Random(SEED).shuffle(victims)
    with ray_nodes(NODES, SLEEP_DISTURBED, seed=SEED) as cluster:

        def start_suite(runs: Path, number: int) -> subprocess.Popen[str]:
            return cluster.suite(runs, s3dis, SEEDS_DISTURBED, **(IN_PROCESS if number % 2 else {}))

        disturbed = Disturbed(cluster, start_suite, scratch / "disturbed", SEED)
        disturbed.disturb(victims)
    return results_of([disturbed])


def main() -> None:
    """Run all parts, then write docs/verification/ray.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--stages", type=int, default=1000)
    parser.add_argument("--faults", type=int, default=20, help="of each kind")
    options = parser.parse_args()
    what = "stages on a Ray cluster of two nodes: overhead, a second node, and faults: nothing lost, nothing double"
    if find_spec("ray") is None:
        write_report("ray", what, "not run", why="Ray is not installed")
        return
    results: dict[str, Any] = {"load_average": round(psutil.getloadavg()[0], 1)}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        s3dis = rooms(scratch / "s3dis")
        results |= overhead_on_ray(scratch, s3dis, options.stages)
        print(results, flush=True)
        results["random_faults"] = faults_on_ray(scratch, s3dis, options.faults)
    write_report("ray", what, "ok", seed=SEED, results=results)


if __name__ == "__main__":
    main()
