"""`make verify-cluster`: stages on a Slurm of two nodes: overhead, packing, speed-up by a second node, random faults; and on Ray.

`python -m tests.verification.cluster [--stages N] [--faults N]`. It uses the Slurm of tests/harness/clusters/two_nodes.py. It needs
root and ext4, for a store that refuses writes.
"""

from __future__ import annotations

import argparse
import functools
import os
import random
import re
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from pretrain_bench.harness.store.store import Store
from tests.faults.injection import check_whole
from tests.harness.clusters.two_nodes import START, TwoNodes, output_of
from tests.verification.cluster_ray import STAGES_A_SEED, overhead_on_ray
from tests.verification.faults import rooms
from tests.verification.report import write_report

SEED, STAGES, FAULTS, SHORT = 7, 1000, 24, 64
NODES = 2
VICTIMS = ("worker", "slurmd-n1", "slurmd-n2", "driver", "slurmctld", "store")
"""What a fault hits: all but the store are killed; the store refuses writes for READ_ONLY_SECONDS."""
READ_ONLY_SECONDS = 60
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


def refuse_writes(
    runs: Path, driver: subprocess.Popen[str], again: Callable[[], subprocess.Popen[str]]
) -> subprocess.Popen[str]:
    """Make a store refuse every write for a while, also to open files; returns the driver, or another one if that has given up."""
    subprocess.run(["chattr", "-Rf", "+i", runs])  # fails on links
    try:
        with pytest.raises(PermissionError):
            (runs / "a file").touch()
        time.sleep(READ_ONLY_SECONDS)
    finally:
        subprocess.run(["chattr", "-Rf", "-i", runs])
    time.sleep(5)
    if driver.poll() in (None, 0):
        return driver
    print(f"the driver ended: {driver.communicate()[1].strip().splitlines()[-1:]}", flush=True)
    return again()


def faults(cluster: TwoNodes, scratch: Path, s3dis: Path, times: int) -> dict[str, Any]:
    """Repeatedly disturb a suite at random moments; the suite must complete, with one counted attempt per stage."""
    chance, done, attempts = random.Random(SEED), Counter[str](), Counter[int]()
    for number in range(times):
        whom, runs = VICTIMS[number % len(VICTIMS)], scratch / f"killed{number}"
        driver = cluster.suite(runs, s3dis, 1, "time=60", BENCH_TEST_SLEEP="2")
        cluster.wait_for_a_worker()
        time.sleep(8 * chance.random())
        again = functools.partial(cluster.suite, runs, s3dis, 1, "time=60")
        disturb = functools.partial(refuse_writes, runs) if whom == "store" else functools.partial(cluster.kill, whom)
        finished(disturb(driver, again))
        check_whole(runs, STAGES_A_SEED)
        attempts.update(record.attempt for record in Store(runs).records())
        done[whom] += 1
        print(f"{number + 1} of {times}: {whom}", flush=True)
    return {"faults": dict(done), "stages_by_attempts": {str(n): c for n, c in sorted(attempts.items())}}


def main() -> None:
    """Run all parts, then write docs/verification/cluster.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--stages", type=int, default=STAGES)
    parser.add_argument("--faults", type=int, default=FAULTS)
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
    ray: dict[str, Any] = {}
    try:
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            s3dis = rooms(scratch / "s3dis")
            results["overhead_packed"] = overhead(cluster, scratch, s3dis, options.stages)
            results["short_stages"] = throughput(cluster, scratch, s3dis, options.short)
            if options.seeds:
                results["second_node"] = second_node(cluster, scratch, s3dis, options.seeds)
            ray = overhead_on_ray(scratch / "ray", s3dis, options.stages)
            print(results, ray, flush=True)
            results["random_faults"] = faults(cluster, scratch, s3dis, options.faults)
    finally:
        if "slurm: runs" not in started:
            subprocess.run(["bash", START, "stop"], check=True)
    write_report("cluster", what, "ok", seed=SEED, results={"slurm": results, "ray": ray})


if __name__ == "__main__":
    main()
