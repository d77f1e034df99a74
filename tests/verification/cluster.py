"""`make verify-cluster`: stages on a Slurm of two nodes: overhead, packing, speed-up by a second node, random faults; and on Ray.

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
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
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

SEED, STAGES, FAULTS, SHORT = 7, 1000, 20, 64
NODES = 2
SEEDS_DISTURBED = 4
"""Seeds of a suite that is disturbed: 40 stages."""
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


def refuse_writes(runs: Path) -> None:
    """Make a store refuse every write for a while, also to open files."""
    subprocess.run(["chattr", "-Rf", "+i", runs])  # fails on links
    try:
        with pytest.raises(PermissionError):
            (runs / "a file").touch()
        time.sleep(READ_ONLY_SECONDS)
    finally:
        subprocess.run(["chattr", "-Rf", "-i", runs])
    time.sleep(5)


class Disturbed:
    """Suites that are disturbed at random moments, one after the other: each must complete, with one counted attempt per stage."""

    def __init__(self, cluster: TwoNodes, s3dis: Path, runs: Path, seed: int) -> None:
        self.cluster, self.s3dis, self.runs, self.chance = cluster, s3dis, runs, random.Random(seed)
        self.done, self.attempts = Counter[str](), Counter[int]()
        self.suites = self.drivers = 0

    def start(self) -> subprocess.Popen[str]:
        """Start a driver of the present suite, which resumes what is there."""
        self.drivers += 1
        runs = self.runs.with_name(f"{self.runs.name}{self.suites}")
        return self.cluster.suite(runs, self.s3dis, SEEDS_DISTURBED, "time=60", BENCH_TEST_SLEEP="2")

    def disturb(self, victims: list[str]) -> None:
        """Hit the victims, in order, while suites run; then let the last suite complete."""
        left = list(victims)
        while left:
            self.suites += 1
            runs, driver = self.runs.with_name(f"{self.runs.name}{self.suites}"), self.start()
            while left:
                while driver.poll() is None and not self.cluster.workers(runs):
                    time.sleep(0.1)
                time.sleep(8 * self.chance.random())
                if driver.poll() is not None:
                    break
                driver = self._hit(left.pop(0), runs, driver)
            while driver.wait(3000) != 0:  # it gives up on a stage that is interrupted three times without progress
                print(f"the driver ended: {driver.communicate()[1].strip().splitlines()[-1:]}", flush=True)
                driver = self.start()
            driver.communicate()
            check_whole(runs, SEEDS_DISTURBED * STAGES_A_SEED)
            self.attempts.update(record.attempt for record in Store(runs).records())

    def _hit(self, whom: str, runs: Path, driver: subprocess.Popen[str]) -> subprocess.Popen[str]:
        if whom == "store":
            refuse_writes(runs)
        else:
            driver = self.cluster.kill(whom, driver, self.start, runs)
        self.done[whom] += 1
        print(f"{self.done[whom]}: {whom}", flush=True)
        return driver


def faults(cluster: TwoNodes, scratch: Path, s3dis: Path, times: int) -> dict[str, Any]:
    """Hit every victim `times` times (a node: in turns) while two suites run side by side; one of them has the store that refuses
    writes, and both suffer from what happens to nodes and controller."""
    others = [name for name in ("worker", "driver", "slurmctld") for _ in range(times)]
    others += [f"slurmd-n{1 + number % NODES}" for number in range(times)]
    random.Random(SEED).shuffle(others)
    pair = [Disturbed(cluster, s3dis, scratch / name, seed) for seed, name in enumerate(("killed", "refused"), SEED)]
    with ThreadPoolExecutor() as threads:
        running = [threads.submit(pair[0].disturb, others), threads.submit(pair[1].disturb, ["store"] * times)]
        for future in running:
            future.result()
    attempts = sum((one.attempts for one in pair), Counter[int]())
    return {
        "faults": dict(sorted(sum((one.done for one in pair), Counter[str]()).items())),
        "suites": sum(one.suites for one in pair),
        "stages_by_attempts": {str(n): c for n, c in sorted(attempts.items())},
        "drivers": sum(one.drivers for one in pair),
    }


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
