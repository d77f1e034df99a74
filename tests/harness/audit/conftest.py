"""One honest store for all audit tests: real records of stages that sleep instead of training."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pretrain_bench.benchmarks.specs.suite import Suite
from pretrain_bench.harness.planning.resolved_suite import RunOverrides
from pretrain_bench.harness.planning.stage_specs import PlannedCell
from tests.conftest import NANO
from tests.faults.in_process import SleepingInProcess, cells_of, run_with


def planned_cells() -> list[PlannedCell]:
    """scratch with two seeds and csc with one, under the budget smoke, with the smallest networks and procedural data."""
    suite = Suite(
        name="honest", version=1, budget="smoke", profile=NANO[3], methods=("scratch", "csc"), tasks=("s3dis-sem",),
        pretrain_seeds=(0, 1), exclude=({"method": "csc", "pretrain_seed": 1},),
    )  # fmt: skip
    return cells_of(suite, RunOverrides())


@pytest.fixture(scope="session")
def honest(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store; tests must not change it."""
    runs = tmp_path_factory.mktemp("audit") / "runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_CACHE", str(cache))
        patch.setenv("BENCH_TEST_SLEEP", "0.1")
        run_with(SleepingInProcess(), planned_cells(), runs)
    return runs


@pytest.fixture
def runs(honest: Path, tmp_path: Path) -> Path:
    """A copy of the honest store, for tampering."""
    return Path(shutil.copytree(honest, tmp_path / "runs"))
