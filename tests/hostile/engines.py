"""A container engine with the base image, or the reason why there is none."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker.errors import DockerException

from pretrain_bench.benchmarks.support.errors import EnvironmentCannot
from pretrain_bench.benchmarks.support.locks import exclusive
from pretrain_bench.harness.executors.engine import connect
from pretrain_bench.harness.executors.podman import user_limits
from tests.conftest import SHARED

BASE = os.environ.get("BENCH_TEST_BASE", "bench-test-base:bookworm")


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    """A client of a running engine with the base image; skips without one, or fails if BENCH_REQUIRE_DOCKER=1.

    Image names are global, so only one of several test processes uses the engine at a time.
    """
    with exclusive(Path(tempfile.gettempdir()) / "bench-tests-engine.lock"):
        yield _engine()


def _engine() -> Any:
    import docker

    try:
        client = docker.from_env(timeout=60)
        client.ping()
    except Exception as error:
        if os.environ.get("BENCH_REQUIRE_DOCKER") == "1":
            pytest.fail(f"BENCH_REQUIRE_DOCKER=1, but no engine answers: {error}")
        pytest.skip("no container engine answers (BENCH_REQUIRE_DOCKER=1 makes this a failure)")
    maker = SHARED / "tools/make-base.sh"
    if not client.images.list(BASE) and maker.is_file():
        subprocess.run(["bash", str(maker), BASE], check=True, capture_output=True)
    if not client.images.list(BASE):
        if os.environ.get("BENCH_REQUIRE_DOCKER") == "1":
            pytest.fail(f"BENCH_REQUIRE_DOCKER=1, but there is no image {BASE}; BENCH_TEST_BASE names another")
        pytest.skip(f"no image {BASE} with Python to build on; BENCH_TEST_BASE names another")
    return client


def podman_client() -> Any:
    """A client of podman with the base image, copied from docker if necessary; skips without podman, or fails if
    BENCH_REQUIRE_PODMAN=1."""
    try:
        client = connect("podman")
        if not client.images.list(BASE):
            copy = f"set -o pipefail; docker save {BASE} | podman load && podman tag localhost/{BASE} docker.io/library/{BASE}"
            subprocess.run(["bash", "-c", copy], check=True, capture_output=True)
        client.containers.run(BASE, ["true"], remove=True, ulimits=user_limits(), network_mode="none")
        return client
    except (EnvironmentCannot, subprocess.CalledProcessError, DockerException) as error:
        if os.environ.get("BENCH_REQUIRE_PODMAN") == "1":
            pytest.fail(f"BENCH_REQUIRE_PODMAN=1, but podman does not work: {error}")
        pytest.skip(f"podman does not work here: {error} (BENCH_REQUIRE_PODMAN=1 makes this a failure)")
