"""A kill on a Ray cluster of two nodes, of each kind that `make verify-ray` repeats at random, loses and duplicates nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pretrain_bench.harness.store.store import Store
from tests.faults.injection import check_whole
from tests.harness.clusters.ray_nodes import IN_PROCESS, RayNodes, ray_nodes
from tests.harness.clusters.test_ray import needs_ray
from tests.harness.clusters.two_nodes import SECONDS, output_of

pytestmark = [pytest.mark.slow, needs_ray]
STAGES = 10


@pytest.fixture(scope="module")
def nodes(cache: Path) -> Iterator[RayNodes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_CACHE", str(cache))
        with ray_nodes(2, sleep="4") as cluster:
            yield cluster


@pytest.mark.parametrize("variables", [IN_PROCESS, {}], ids=["in the worker", "as a process"])
@pytest.mark.parametrize("whom", ["worker", "raylet", "node", "driver", "head"])
def test_kills_lose_and_duplicate_nothing(
    nodes: RayNodes, s3dis_root: Path, tmp_path: Path, whom: str, variables: dict[str, str]
) -> None:
    driver = nodes.suite(tmp_path, s3dis_root, **variables)
    deadline = time.monotonic() + SECONDS
    while not nodes.workers(tmp_path):
        assert driver.poll() is None and time.monotonic() < deadline, "no worker has started"
        time.sleep(0.1)
    time.sleep(2)
    driver = nodes.kill(whom, driver, lambda: nodes.suite(tmp_path, s3dis_root, **variables), tmp_path)
    output_of(driver)
    check_whole(tmp_path, STAGES)
    assert all(record.attempt == 1 for record in Store(tmp_path).records())
