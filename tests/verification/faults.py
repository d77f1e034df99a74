"""`make verify-faults`: twenty kills of a suite of sleeping stages, three kills of the `smoke` suite, a full disk, 50,000 run folders."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from pretrain_bench.benchmarks.support.files import cache_folder
from pretrain_bench.harness.store.store import Store
from tests.conftest import bench_command, write_room
from tests.faults import injection
from tests.verification.report import write_report

SEED, KILLS, SUITE_KILLS, FOLDERS = 7, 20, 3, 50_000
FULL_BYTES = "6m"


def rooms(folder: Path) -> Path:
    """Seven small rooms in the S3DIS layout."""
    rng = np.random.default_rng(7)
    for area, room in [("Area_1", f"office_{i}") for i in range(6)] + [("Area_5", "office_1")]:
        write_room(folder / area / room / "Annotations", rng)
    return folder


def killed_suite(scratch: Path) -> dict[str, Any]:
    """Kill the `smoke` suite three times."""
    chance, runs = random.Random(SEED), scratch / "smoke"
    command = bench_command("run", "--suite", "smoke", "--only", "method=scratch,csc,ours", "--runs", str(runs))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    for _ in range(SUITE_KILLS):
        process = subprocess.Popen(command, **quiet)  # type: ignore[call-overload]
        time.sleep(8 + 20 * chance.random())
        process.kill()
        process.wait()
    began = time.monotonic()
    assert subprocess.run(command, **quiet, check=False).returncode == 0  # type: ignore[call-overload]
    first = time.monotonic() - began
    began = time.monotonic()
    assert subprocess.run(command, **quiet, check=False).returncode == 0  # type: ignore[call-overload]
    again = time.monotonic() - began
    audit = subprocess.run(bench_command("audit", "--runs", str(runs)), capture_output=True, text=True, check=False)
    injection_free = [p for p in (runs / ".partial").glob("*") if p.is_dir()]
    assert audit.returncode == 0 and not injection_free, audit.stdout
    return {"kills": SUITE_KILLS, "then_seconds": round(first, 1), "again_seconds": round(again, 2)}


def full_disk(scratch: Path, s3dis: Path) -> dict[str, Any]:
    """Fill the file system of a store: the command reports it, loses nothing, and resumes once space is free."""
    mount = scratch / "full"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={FULL_BYTES}", "tmpfs", mount],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        return {"not_run": f"a file system could not be mounted here: {done.stderr.strip()}"}
    try:
        process = injection.start(mount / "runs", s3dis)
        _, said = process.communicate(timeout=300)
        assert process.returncode == 3 and "the disk is full" in said, said
        complete = sum(1 for _ in Store(mount / "runs").records())
        subprocess.run(["mount", "-o", "remount,size=400m", mount], check=True)
        injection.finish(mount / "runs", s3dis)
        injection.check_whole(mount / "runs")
    finally:
        subprocess.run(["umount", mount], check=False)
    return {"complete_when_full": complete, "said": said.strip().splitlines()[-1].replace(str(scratch), "")}


def many(scratch: Path, runs: Path) -> dict[str, Any]:
    """Measure status, and a run that is already done, in a store of 50,000 runs."""
    injection.many_folders(runs, FOLDERS)
    found = {}
    for name, command in (
        ("status", bench_command("status", "--runs", str(runs))),
        ("suite", [sys.executable, "-m", "tests.faults.suite", str(runs), str(scratch / "s3dis")]),
    ):
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, cwd=injection.REPOSITORY, check=False)
        assert done.returncode == 0, done.stderr
        found[f"{name}_seconds"] = round(time.monotonic() - began, 1)
    return {"folders": FOLDERS, **found}


def main() -> None:
    """Run all parts, then write docs/verification/faults.json."""
    os.environ.setdefault("BENCH_CACHE", str(cache_folder()))
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        s3dis = rooms(scratch / "s3dis")
        results: dict[str, Any] = {}
        done = injection.kill_at_random(scratch / "killed", s3dis, KILLS, SEED)
        results["kills_at_random"] = dict(done)
        print(results, flush=True)
        results["smoke_suite"] = killed_suite(scratch)
        print(results, flush=True)
        results["full_disk"] = full_disk(scratch, s3dis)
        results["many_folders"] = many(scratch, scratch / "killed/store0")
    what = "kill -9 of harness, stages and workers; a full disk; 50,000 run folders: nothing lost, nothing double"
    write_report("faults", what, "ok", seed=SEED, results=results)


if __name__ == "__main__":
    main()
