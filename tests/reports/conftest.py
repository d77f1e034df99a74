"""Shared fixtures of the report tests."""

from pathlib import Path

import pytest

from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.figures.style import make_ready
from tests.reports.planted import plant


@pytest.fixture(scope="session", autouse=True)
def ready_to_draw() -> None:
    """Import seaborn once here, so that the drawing processes of each report inherit it."""
    make_ready()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    (tmp_path / "runs").mkdir()
    return Store(tmp_path / "runs")


@pytest.fixture(scope="module")
def planted_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with planted effects; tests must not change it."""
    planted = Store(tmp_path_factory.mktemp("planted") / "runs")
    plant(planted, pretrain_seeds=4, finetune_seeds=2)
    return planted
