"""`make verify-cluster`: stages on a Slurm of two nodes: overhead, packing, speed-up by a second node, random faults.

`python -m tests.verification.cluster [--stages N] [--faults N]`. It uses the Slurm of tests/harness/clusters/two_nodes.py. It needs
root and ext4, for a store that refuses writes.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from pretrain_bench.harness.store.store import Store
from tests.faults.injection import check_whole
from tests.harness.clusters.two_nodes import START, TwoNodes, output_of
from tests.verification.disturbed import SEEDS_DISTURBED, SLEEP_DISTURBED, STAGES_A_SEED, Disturbed, results_of
from tests.verification.faults import rooms
from tests.verification.report import write_report

SEED, STAGES, FAULTS, SHORT = 7, 1000, 20, 64
NODES = 2
SLEEP = "0.1"


def finished(driver: subprocess.Popen[str]) -> float:
    """Wait for a driver; returns its seconds from the first submission to the last end."""
    return float(output_of(driver, seconds=3000)[0].split()[-1])


def slept(runs: Path) -> float:
    """The total seconds that the stages of a store ran."""
    return sum(record.measured.wall_seconds for record in Store(runs).records())


def overhead(cluster: TwoNodes, scratch: Path, s3dis: Path, stages: int) -> dict[str, Any]:
    """The overhead per stage of packed sleeping stages: the time besides their sleep, which runs in parallel on the nodes."""
    seeds, runs = max(1, stages // STAGES_A_SEED), scratch / "overhead"
    wall = finished(cluster.suite(runs, s3dis, seeds, "time=60", BENCH_TEST_SLEEP=SLEEP))
    own, number = slept(runs), seeds * STAGES_A_SEED
    check_whole(runs, number)
    return {
        "stages": number,
        "wall_seconds": round(wall, 1),
        "stage_seconds": round(own, 1),
        "overhead_ms_a_stage": round(1000 * (wall - own / NODES) / number, 1),
    }


def throughput(cluster: TwoNodes, scratch: Path, s3dis: Path, stages: int) -> dict[str, Any]:
    """Short stages, with one job each, and packed."""
    seeds, measured = -(-stages // STAGES_A_SEED), {}
    for name, option in (("one_job_each", "pack=0"), ("packed", "pack=10")):
        runs = scratch / name
        wall = finished(cluster.suite(runs, s3dis, seeds, f"{option},time=60", BENCH_TEST_SLEEP=SLEEP))
        check_whole(runs, seeds * STAGES_A_SEED)
        measured[name] = {
            "wall_seconds": round(wall, 1),
            "stages_a_minute": round(60 * seeds * STAGES_A_SEED / wall, 1),
        }
    return {"stages": seeds * STAGES_A_SEED, **measured}


def second_node(cluster: TwoNodes, scratch: Path, s3dis: Path, seeds: int) -> dict[str, Any]:
    """The same stages on one node and on two."""
    walls = {}
    for name, more in (("one_node", ",nodelist=n1"), ("two_nodes", "")):
        runs = scratch / name
        walls[name] = finished(cluster.suite(runs, s3dis, seeds, f"pack=0,time=60{more}", BENCH_TEST_SLEEP="8"))
    return {
        **{f"{n}_seconds": round(w, 1) for n, w in walls.items()},
        "speed_up": round(walls["one_node"] / walls["two_nodes"], 2),
    }


def faults(cluster: TwoNodes, scratch: Path, s3dis: Path, times: int) -> dict[str, Any]:
    """Hit every victim `times` times (a node: in turns) while two suites run side by side; one of them has the store that refuses
    writes, and both suffer from what happens to nodes and controller."""
    others = [name for name in ("worker", "driver", "slurmctld") for _ in range(times)]
    others += [f"slurmd-n{1 + number % NODES}" for number in range(times)]
    random.Random(SEED).shuffle(others)

    def start_suite(runs: Path, number: int) -> subprocess.Popen[str]:
        return cluster.suite(runs, s3dis, SEEDS_DISTURBED, "time=60", BENCH_TEST_SLEEP=SLEEP_DISTURBED)

    names = enumerate(("killed", "refused"), SEED)
    pair = [Disturbed(cluster, start_suite, scratch / name, seed) for seed, name in names]
    with ThreadPoolExecutor() as threads:
        running = [threads.submit(pair[0].disturb, others), threads.submit(pair[1].disturb, ["store"] * times)]
        for future in running:
            future.result()
    return results_of(pair)


def main() -> None:
    """Run all parts, then write docs/verification/cluster.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--stages", type=int, default=STAGES)
    parser.add_argument("--faults", type=int, default=FAULTS, help="of each kind")
    parser.add_argument("--short", type=int, default=SHORT)
    parser.add_argument("--seeds", type=int, default=2, help="of the suite that one node and two nodes run")
    options = parser.parse_args()
    what = "stages on a Slurm of two nodes: overhead, packing, a second node, and faults: nothing lost, nothing double"
    if not START.is_file():
        write_report("cluster", what, "not run", why=f"{START.name} is not beside this checkout")
        return
    started = subprocess.run(["bash", START], capture_output=True, text=True, check=True).stdout
    conf = re.search(r"export SLURM_CONF=(\S+)", started)
    assert conf is not None, started
    os.environ["SLURM_CONF"] = conf[1]
    cluster = TwoNodes(Path(conf[1]))
    results: dict[str, Any] = {"load_average": round(psutil.getloadavg()[0], 1)}
    try:
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            s3dis = rooms(scratch / "s3dis")
            results["overhead_packed"] = overhead(cluster, scratch, s3dis, options.stages)
            results["short_stages"] = throughput(cluster, scratch, s3dis, options.short)
            if options.seeds:
                results["second_node"] = second_node(cluster, scratch, s3dis, options.seeds)
            print(results, flush=True)
            results["random_faults"] = faults(cluster, scratch, s3dis, options.faults)
    finally:
        if "slurm: runs" not in started:
            subprocess.run(["bash", START, "stop"], check=True)
    write_report("cluster", what, "ok", seed=SEED, results=results)


if __name__ == "__main__":
    main()
