"""Sandboxes in which hostile stages run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pretrain_bench.benchmarks.support.locks import exclusive
from pretrain_bench.harness.planning.prepared_data import PreparedDataset
from pretrain_bench.harness.planning.stage_specs import PlannedStage
from tests.hostile.cases import CAPS
from tests.hostile.engines import BASE, podman_client
from tests.hostile.engines import engine as engine
from tests.hostile.sandboxes import InBubblewrap, InEngine, hostile_files
from tests.methods.stages import nano_stages, small_recordings


@pytest.fixture(scope="module")
def planned(cache: Path) -> PlannedStage:
    source: PreparedDataset = small_recordings(cache)
    return nano_stages("pointcontrast", source)[0]._replace(caps=CAPS)


@pytest.fixture(scope="module")
def in_docker(engine: Any, planned: PlannedStage) -> Iterator[InEngine]:
    sandbox = InEngine("docker", engine, hostile_files(planned), BASE)
    yield sandbox
    sandbox.close()


@pytest.fixture(scope="module")
def in_podman(planned: PlannedStage) -> Iterator[InEngine]:
    with exclusive(Path(tempfile.gettempdir()) / "bench-tests-podman.lock"):
        sandbox = InEngine("podman", podman_client(), hostile_files(planned), BASE)
        yield sandbox
        sandbox.close()


@pytest.fixture(scope="module")
def in_bubblewrap(planned: PlannedStage, tmp_path_factory: pytest.TempPathFactory) -> InBubblewrap:
    return InBubblewrap(hostile_files(planned), tmp_path_factory.mktemp("hostile"))
