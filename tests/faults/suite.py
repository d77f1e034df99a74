"""Runs a suite of sleeping stages through the real scheduler, executor and store: `python -m tests.faults.suite RUNS DATA`.

BENCH_TEST_EXECUTOR=bubblewrap runs them in sandboxes, which find the sleeper through PYTHONPATH.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pretrain_bench.benchmarks.specs.suite import Suite
from pretrain_bench.benchmarks.support.errors import BenchError
from pretrain_bench.harness.executors.base import Executor
from pretrain_bench.harness.executors.bubblewrap import BubblewrapExecutor
from pretrain_bench.harness.executors.local import LocalExecutor
from pretrain_bench.harness.planning.resolved_suite import ResolvedSuite, RunOverrides, resolve_suite
from pretrain_bench.harness.planning.stage_specs import PlannedCell
from pretrain_bench.harness.running.capacity import Capacity
from pretrain_bench.harness.running.display import Silent
from pretrain_bench.harness.running.scheduler import run_cells
from pretrain_bench.harness.running.stage_runner import RunOptions, StageRunner
from pretrain_bench.harness.store.store import Store

SLEEPER = (sys.executable, "-m", "tests.faults.sleeper")
REPOSITORY = Path(__file__).parent.parent.parent


def suite(seeds: int = 3) -> Suite:
    """Two methods at two ratios: with three seeds, six pre-trainings and 24 fine-tunings."""
    return Suite(
        name="sleep", version=1, budget=str(REPOSITORY / "tests/specs/nano-budget.yaml"),
        profile=str(REPOSITORY / "tests/specs/nano-profile.yaml"), methods=("scratch", "supervised"), tasks=("s3dis-sem",),
        pretrain_datasets=("synth-scannet",), label_ratios=("50%", "100%"), pretrain_seeds=tuple(range(seeds)),
        finetune_seeds=(0, 1),
    )  # fmt: skip


def matrix(s3dis: str, seeds: int = 3) -> ResolvedSuite:
    """The suite on small rooms."""
    return resolve_suite(suite(seeds), [], RunOverrides([f"s3dis={s3dis}"], [], 1, "torch", "cpu", "local", None))


def planned(s3dis: str, seeds: int = 3) -> list[PlannedCell]:
    """The cells of the suite, with prepared data."""
    return matrix(s3dis, seeds).prepare(False, lambda _: lambda items: items, lambda _: None)


def executor() -> Executor:
    """The executor named by BENCH_TEST_EXECUTOR; `local` by default."""
    if os.environ.get("BENCH_TEST_EXECUTOR", "local") == "local":
        return LocalExecutor(SLEEPER)
    sleeper = Path(__file__).with_name("sleeper.py")
    os.environ["PYTHONPATH"] = str(sleeper.parent)
    return BubblewrapExecutor((sys.executable, str(sleeper)))


def main() -> int:
    """Run the suite with four workers; returns 1 if a stage failed."""
    runs, s3dis, *more = sys.argv[1:]
    store = Store(Path(runs).resolve())
    runner = StageRunner(store, executor(), Silent(), RunOptions("failed"))
    try:
        reports = run_cells(planned(s3dis), runner, Capacity(4, 1 << 20), int(more[0]) if more else 4)
    except BenchError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(len(reports), sum(r.reused for r in reports))
    return int(any(r.record.outcome != "ok" for r in reports))


if __name__ == "__main__":
    os.chdir(REPOSITORY)
    sys.exit(main())
