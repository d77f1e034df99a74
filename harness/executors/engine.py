"""Connect to a container engine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pretrain_bench.benchmarks.support.errors import EnvironmentCannot
from pretrain_bench.harness.executors.podman_service import service

if TYPE_CHECKING:
    from docker import DockerClient

HOST_VARIABLE = "CONTAINER_HOST"
"""Environment variable with podman's address, as DOCKER_HOST holds Docker's."""


def connect(engine: str = "docker", timeout: float = 60) -> DockerClient:
    """Connect to an engine; `timeout` is in seconds. `docker` is the engine at DOCKER_HOST, or the local one; `podman` is the
    one at CONTAINER_HOST, or a service that this process starts.

    Raises EnvironmentCannot if no engine answers.
    """
    import docker

    try:
        if engine == "podman":
            address = os.environ.get(HOST_VARIABLE) or service()
            client = docker.DockerClient(base_url=address, timeout=timeout)
        else:
            client = docker.from_env(timeout=timeout)
        client.ping()
        return client
    except EnvironmentCannot:
        raise
    except Exception as error:  # without an engine the SDK raises many different exceptions
        start = "see `podman info`" if engine == "podman" else "start Docker or set DOCKER_HOST"
        raise EnvironmentCannot(
            f"no container engine answers ({first_line(error)}); {start}, or use --executor bubblewrap or local"
        ) from None


def is_podman(client: DockerClient) -> bool:
    """Whether an engine is podman, which DOCKER_HOST may also name."""
    return any("Podman" in str(part.get("Name")) for part in client.version().get("Components") or [])


def first_line(error: Exception) -> str:
    """The first line of an engine's possibly long error message."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
