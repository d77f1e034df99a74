"""A real Ray cluster on loopback, and functions to disturb it."""

from __future__ import annotations

import contextlib
import os
import random
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import psutil

from tests.conftest import REPOSITORY
from tests.faults.injection import NothingToKill
from tests.harness.clusters.fake import SLEEPING

OBJECT_STORE_BYTES = 80 << 20
RAY_VARIABLES = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "right" * 8,
    "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
}
"""Environment variables of a cluster and its drivers. A process keeps the first token that it reads, so all clusters of the tests
have the same."""
IN_PROCESS = {"BENCH_TEST_EXECUTOR": SLEEPING.name}
"""Variables of a driver whose stages sleep in Ray's workers; without them each stage is a process of its own."""
LOST = re.compile(r"exit 3: (.*: )?the head of the Ray cluster at \S+ is lost, and so are the running stages; restart ")
WITHOUT_A_STAGE = ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Titles of a raylet's other processes; a worker with a stage has its title."""
ENDS_SECONDS = 60
"""A driver has noticed within this time that the head is lost."""


class RayNodes:
    """A head, and nodes of one CPU, which faults may hit. The head runs stages only if it has CPUs."""

    def __init__(self, nodes: int, head_cpus: int = 0, seed: int = 0) -> None:
        self.count, self.head_cpus, self.chance = nodes, head_cpus, random.Random(seed)
        self.port = _free_port()
        self.start()

    @property
    def address(self) -> str:
        """HOST:PORT of the head; the same after it was lost."""
        return str(self.cluster.address)

    def start(self) -> None:
        """Start the head and its nodes."""
        from ray.cluster_utils import Cluster  # reads the environment variables for authentication

        head = {"num_cpus": self.head_cpus, "gcs_server_port": self.port, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args={"object_store_memory": OBJECT_STORE_BYTES, **head})
        for _ in range(self.count):
            self.add_node()

    def add_node(self) -> None:
        """Add a node, and wait until the head lists it."""
        self.cluster.add_node(object_store_memory=OBJECT_STORE_BYTES, num_cpus=1)

    def stop(self) -> None:
        """End all processes of the cluster."""
        self.cluster.shutdown()

    def suite(self, runs: Path, s3dis: Path, seeds: int = 1, **environment: str) -> subprocess.Popen[str]:
        """Start a driver of the suite of sleeping stages."""
        driver = [sys.executable, "-m", "tests.harness.clusters.ray_driver"]
        return subprocess.Popen(
            [*driver, str(runs), str(s3dis), self.address, str(seeds)], cwd=REPOSITORY,
            env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def workers(self, runs: Path | None = None) -> list[psutil.Process]:
        """The workers that run a stage. The cluster runs one suite at a time, so `runs` is not needed."""
        return [process for node in self.cluster.worker_nodes for process in _busy_workers(node)]

    def kill(
        self, whom: str, driver: subprocess.Popen[str], again: Callable[[], subprocess.Popen[str]], runs: Path
    ) -> subprocess.Popen[str]:
        """Kill a worker that runs a stage, the raylet of a node, all processes of a node, the driver, or the head, and start again
        what was lost, except for workers; returns the driver that is left. Raises NothingToKill."""
        if whom == "driver":
            driver.kill()
            driver.communicate()
            return again()
        if whom == "head":
            self._lose_head(driver)
            return again()
        if whom == "worker":
            self._kill_worker(driver)
        else:
            self._kill_node(whole=whom == "node")
        return driver

    def _kill_worker(self, driver: subprocess.Popen[str]) -> None:
        while driver.poll() is None:
            for process in self.workers():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
                    return
        raise NothingToKill

    def _kill_node(self, whole: bool) -> None:
        """Kill a node, one with a stage if there is any, and add another one. Without `whole` only its raylet is killed: workers
        notice that themselves."""
        nodes = sorted(self.cluster.worker_nodes, key=lambda node: _raylet(node).pid)
        node = self.chance.choice([node for node in nodes if _busy_workers(node)] or nodes)
        if whole:
            kill_with_children(_raylet(node))
        else:
            _raylet(node).kill()
        self.cluster.remove_node(node, allow_graceful=False)
        self.add_node()

    def _lose_head(self, driver: subprocess.Popen[str]) -> None:
        """Kill the head, half of the time with all nodes, wait until the driver has ended with a clear message, and start the cluster
        anew at the same address."""
        processes = [_raylet(node) for node in self.cluster.worker_nodes] if self.chance.random() < 0.5 else []
        for process in processes:
            kill_with_children(process)
        self.cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)
        _, error = driver.communicate(timeout=ENDS_SECONDS)
        self.stop()
        self.start()
        if driver.returncode == 0:
            raise NothingToKill
        assert LOST.match((error.strip().splitlines() or [""])[-1]), error


def kill_with_children(process: psutil.Process) -> None:
    """Kill a process and its descendants, as the loss of their machine does."""
    for victim in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()


def _raylet(node: Any) -> psutil.Process:
    return psutil.Process(node.all_processes["raylet"][0].process.pid)


def _busy_workers(node: Any) -> list[psutil.Process]:
    """The workers of a node that run a stage."""
    found = []
    for process in _raylet(node).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            title = (process.cmdline() or [""])[0]
            if title.startswith("ray::") and title not in WITHOUT_A_STAGE:
                found.append(process)
    return found


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def ray_nodes(nodes: int, sleep: str, head_cpus: int = 0, seed: int = 0) -> Iterator[RayNodes]:
    """A Ray cluster on loopback, with the environment variables that its drivers need. `sleep`: BENCH_TEST_SLEEP of its stages."""
    with mock.patch.dict(os.environ, {**RAY_VARIABLES, "BENCH_TEST_SLEEP": sleep}):
        cluster = RayNodes(nodes, head_cpus, seed)
        try:
            yield cluster
        finally:
            cluster.stop()
