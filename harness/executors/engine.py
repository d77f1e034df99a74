"""The connection to a container engine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pretrain_bench.benchmarks.support.errors import EnvironmentCannot
from pretrain_bench.harness.executors.podman_service import service

if TYPE_CHECKING:
    from docker import DockerClient

HOST_VARIABLE = "CONTAINER_HOST"
"""Names the podman to use, as DOCKER_HOST names the engine of docker."""


def connect(engine: str = "docker", timeout: float = 60) -> DockerClient:
    """A client of an engine; `timeout` is in seconds. `docker` is the one that DOCKER_HOST names, or the local one; `podman` the
    one that CONTAINER_HOST names, or a service of its own.

    Raises EnvironmentCannot where no engine answers.
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
    except Exception as error:  # the SDK raises many kinds when there is no engine
        start = "see `podman info`" if engine == "podman" else "start Docker or set DOCKER_HOST"
        raise EnvironmentCannot(
            f"no container engine answers ({first_line(error)}); {start}, or use --executor bubblewrap or local"
        ) from None


def is_podman(client: DockerClient) -> bool:
    """Whether an engine is podman, which may also be what DOCKER_HOST names."""
    return any("Podman" in str(part.get("Name")) for part in client.version().get("Components") or [])


def first_line(error: Exception) -> str:
    """The first line of an engine's error message, which may have many."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
