"""The suite of sleeping stages as Slurm jobs: `python -m tests.faults.on_slurm RUNS DATA SEEDS [NAME=VALUE,...]`.

Prints the seconds from the first submission to the last end. BENCH_TEST_EXECUTOR=module:Class selects another executor.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from pretrain_bench.benchmarks.support.errors import BenchError
from pretrain_bench.harness.clusters import slurm
from pretrain_bench.harness.clusters.slurm_options import parse_options
from pretrain_bench.harness.clusters.ticket import ExecutorChoice, job_of
from pretrain_bench.harness.executors.local import LocalExecutor
from pretrain_bench.harness.running.display import Silent
from pretrain_bench.harness.running.scheduler import run_in, stages_of
from pretrain_bench.harness.running.stage_runner import RunOptions, StageRunner
from pretrain_bench.harness.store.store import Store
from tests.faults.suite import REPOSITORY, planned

SLEEPING = "tests.faults.in_process:SleepingInProcess"


def main() -> int:
    """Run the suite; returns 1 if a stage failed, the exit code of an error, else 0."""
    runs, s3dis, seeds, *texts = sys.argv[1:]
    store, options = Store(Path(runs).resolve()), RunOptions("infra")
    store.check_writable()
    executor = ExecutorChoice(name=os.environ.get("BENCH_TEST_EXECUTOR", SLEEPING))
    slurm.ASK_SECONDS = 1.0
    place = slurm.Slurm(store, job_of(store, executor, options), parse_options(texts))
    cells = planned(s3dis, int(seeds))
    estimates = {s.spec.key: float(os.environ.get("BENCH_TEST_SLEEP", "1")) for s in stages_of(cells)}
    began = time.monotonic()
    try:
        reports = run_in(
            place, stages_of(cells), StageRunner(store, LocalExecutor(), Silent(), options), seconds=estimates
        )
    except BenchError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"{time.monotonic() - began:.2f}")
    failed = [report.record for report in reports if report.record.outcome != "ok"]
    for record in failed:
        print(f"{record.key}, attempt {record.attempt}: {record.outcome}: {record.message}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    os.chdir(REPOSITORY)
    sys.exit(main())
