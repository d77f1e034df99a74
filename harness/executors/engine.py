"""The connection to a container engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pretrain_bench.benchmarks.support.errors import EnvironmentCannot

if TYPE_CHECKING:
    from docker import DockerClient


def connect(timeout: float = 60) -> DockerClient:
    """A client of the engine that DOCKER_HOST names, or of the local one; `timeout` is in seconds.

    Raises EnvironmentCannot where no engine answers.
    """
    import docker

    try:
        client = docker.from_env(timeout=timeout)
        client.ping()
        return client
    except Exception as error:  # the SDK raises many kinds when there is no engine
        raise EnvironmentCannot(
            f"no container engine answers ({first_line(error)}); start Docker or set DOCKER_HOST, or use --executor local"
        ) from None


def first_line(error: Exception) -> str:
    """The first line of an engine's error message, which may have many."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
