"""Run a stage in a podman container, without a daemon: `docker.py` on the Docker interface that podman serves."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pretrain_bench.benchmarks.support.process_limits import memory_kills_of_the_machine
from pretrain_bench.harness.executors.base import KILLED, StageLaunch
from pretrain_bench.harness.executors.container_watch import LOST_LOG, ContainerWatch
from pretrain_bench.harness.executors.docker import SECCOMP, DockerExecutor
from pretrain_bench.harness.executors.engine import HOST_VARIABLE, connect

if TYPE_CHECKING:
    from docker.models.containers import Container

    from docker import DockerClient

MOST = {"nofile": (resource.RLIMIT_NOFILE, 1 << 20), "nproc": (resource.RLIMIT_NPROC, 1 << 15)}
"""Upper limits of open files and processes in a container; podman itself cannot exceed this user's limits."""

LOG_SIZE = "1g"
"""Much more than the harness keeps: podman truncates a full log file at once, and silently loses unread output."""


class PodmanWatch(ContainerWatch):
    """Monitors a podman container. Under control groups of version 1 podman does not report kills for lack of memory."""

    def __init__(self, client: DockerClient, container: Container, launch: StageLaunch) -> None:
        super().__init__(client, container, launch)
        self.killed_before = memory_kills_of_the_machine()

    def was_killed_unreported(self, code: int) -> bool:
        return code in KILLED and memory_kills_of_the_machine() > self.killed_before

    def log_parts(self) -> Iterator[bytes]:
        """Read the log with podman's own command: the log from its Docker interface may end too early. Following it may end too
        early as well, so the rest is read when the container has ended."""
        known = 0
        for part in self._printed("--follow"):
            known += 0 if part.startswith(LOST_LOG) else len(part)
            yield part
        self.has_ended.wait()
        for part in self._printed():
            yield part[known:]
            known = max(0, known - len(part))

    def _printed(self, *options: str) -> Iterator[bytes]:
        remote = ["--remote"] if os.environ.get(HOST_VARIABLE) else []
        command = ["podman", *remote, "logs", *options, str(self.container.id)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            assert process.stdout is not None
            try:
                while part := os.read(process.stdout.fileno(), 1 << 16):
                    yield part
            finally:
                process.kill()


class PodmanExecutor(DockerExecutor):
    """Runs stages in podman's containers, as root or rootless; see `DockerExecutor`."""

    name = "podman"
    watch_class = PodmanWatch

    def __init__(self, client: DockerClient | None = None, own: Mapping[str, str] | None = None) -> None:
        super().__init__(client or connect("podman"), own)

    def seccomp(self) -> str:
        """The path of the profile, which podman reads itself."""
        return str(SECCOMP.resolve())

    def _settings(self, launch: StageLaunch) -> dict[str, Any]:
        from docker.types import LogConfig

        return {
            **super()._settings(launch),
            "log_config": LogConfig(type="json-file", config={"max-size": LOG_SIZE}),
            "ulimits": user_limits(),
        }


def user_limits() -> list[Any]:
    """Explicit limits of a container: podman's defaults exceed what this user may set on some machines."""
    from docker.types import Ulimit

    hard = {name: resource.getrlimit(number)[1] for name, (number, _) in MOST.items()}
    limits = {n: most if hard[n] == resource.RLIM_INFINITY else min(hard[n], most) for n, (_, most) in MOST.items()}
    return [Ulimit(name=name, soft=limit, hard=limit) for name, limit in limits.items()]
