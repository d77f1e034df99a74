"""Cells of sleeping stages, planned once for all tests of the harness."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretrain_bench.harness.planning.stage_specs import PlannedCell
from tests.faults.suite import planned


@pytest.fixture(scope="session")
def cells(s3dis_root: Path, cache: Path) -> list[PlannedCell]:
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("BENCH_CACHE", str(cache))
    cells = planned(str(s3dis_root), seeds=1)
    monkeypatch.undo()
    return cells
