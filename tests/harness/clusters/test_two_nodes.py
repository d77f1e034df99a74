"""Stages on a real Slurm of two nodes give the records of a local run, even if processes are killed; and clear refusals."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from pretrain_bench.harness.store.store import Store
from tests.conftest import NANO, Bench
from tests.faults.injection import check_whole
from tests.harness.clusters.two_nodes import SECONDS, TwoNodes, output_of, two_nodes

__all__ = ["two_nodes"]
pytestmark = [pytest.mark.slow]
STAGES = 10
ELSEWHERE = {
    "provenance", "measured", "started_at", "ended_at", "sha256", "files", "ledger", "executor", "label_isolation",
    "not_enforced",
}  # fmt: skip
"""Fields of a record with place, time and duration of a stage. Of the ledger, amounts are compared, but not times or memory."""


@pytest.fixture(autouse=True)
def _cleared(two_nodes: TwoNodes) -> None:
    two_nodes.clear()


def results(runs: Path) -> dict[str, dict[str, Any]]:
    records = {}
    for record in Store(runs).records():
        fields = record.model_dump(mode="json")
        ledger = {
            name: value for name, value in fields["ledger"].items() if "seconds" not in name and "memory" not in name
        }
        records[record.key] = {n: v for n, v in fields.items() if n not in ELSEWHERE} | {"ledger": ledger}
    return records


def test_real_stages_give_the_bits_of_a_local_run_and_status_and_doctor_name_the_jobs(
    two_nodes: TwoNodes, bench: Bench, s3dis_root: Path, tmp_path: Path
) -> None:
    cells = [
        "--method", "supervised", "--task", "s3dis-sem", *NANO, "--data", f"s3dis={s3dis_root}", "--synthetic",
        "--threads", "1", "--executor", "local",
    ]  # fmt: skip
    bench("run", *cells, "--runs", "here")
    bench("run", *cells, "--runs", "there", "--on", "slurm", "--slurm", "partition=main,time=10")
    here, there = results(tmp_path / "here"), results(tmp_path / "there")
    assert len(here) == 2 and here == there
    assert not list((tmp_path / "there/.partial").glob("[!.]*"))
    checked = bench(
        "doctor", "--on", "slurm", "--runs", "there", "--executor", "local", "--data", f"s3dis={s3dis_root}", "--json"
    )
    rows = {row["what"]: row["state"] for row in json.loads(checked.stdout)["checks"]}
    worker = ("node", "versions", "code", "runs folder", "data cache", "data: s3dis", "executor local")
    assert {rows[f"worker: {what}"] for what in worker} == {"ok"}
    detached = bench("run", *cells, "--runs", "there", "--on", "slurm", "--slurm", "time=10", "--detach")
    assert "runs this command; its log is in" in detached.stdout
    log = Path(detached.stdout.partition("its log is in ")[2].split()[0])
    deadline = time.monotonic() + SECONDS
    while "nothing to do: every stage was done before" not in "".join(p.read_text() for p in log.glob("*.out")):
        assert time.monotonic() < deadline, [p.read_text() for p in log.glob("*.out")]
        time.sleep(0.5)


@pytest.mark.parametrize("whom", ["worker", "slurmd-n1", "driver", "slurmctld"])
def test_kills_lose_and_duplicate_nothing(two_nodes: TwoNodes, s3dis_root: Path, tmp_path: Path, whom: str) -> None:
    driver = two_nodes.suite(tmp_path, s3dis_root, 1, "pack=0,time=10", BENCH_TEST_SLEEP="4")
    two_nodes.wait_for_a_worker(tmp_path)
    time.sleep(2)
    driver = two_nodes.kill(whom, driver, lambda: two_nodes.suite(tmp_path, s3dis_root, 1, "pack=0,time=10"), tmp_path)
    output_of(driver)
    check_whole(tmp_path, STAGES)
    assert all(record.attempt == 1 for record in Store(tmp_path).records())


def test_two_drivers_on_one_store_run_each_stage_once(two_nodes: TwoNodes, s3dis_root: Path, tmp_path: Path) -> None:
    drivers = [two_nodes.suite(tmp_path, s3dis_root, 1, "time=10") for _ in range(2)]
    for driver in drivers:
        output_of(driver)
    check_whole(tmp_path, STAGES)
    assert all(record.attempt == 1 for record in Store(tmp_path).records())


def test_refusals_are_clear(two_nodes: TwoNodes, s3dis_root: Path, tmp_path: Path) -> None:
    refused = "".join(output_of(two_nodes.suite(tmp_path, s3dis_root, 1, "partition=moon"), code=2))
    assert "--slurm: sbatch refused the job" in refused and "partition" in refused and "`sinfo` lists" in refused
    waiting = {"BENCH_TEST_EXECUTOR": "tests.faults.in_process:WaitingForASignal"}
    short = "".join(output_of(two_nodes.suite(tmp_path, s3dis_root, 1, "time=1,grace=60", **waiting), code=3))
    assert "was stopped at step 0, by its time limit or by preemption; a longer limit may help (--slurm time=" in short
    assert not list(Store(tmp_path).records())
