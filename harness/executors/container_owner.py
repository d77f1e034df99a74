"""Identify the process that owns a container, to remove containers of killed harnesses."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psutil

from pretrain_bench.benchmarks.support.ownership import is_running, process_space

if TYPE_CHECKING:
    from docker.models.containers import Container

    from docker import DockerClient

OWNER_LABEL = "io.pretrain-bench.owner"
KEY_LABEL = "io.pretrain-bench.key"
STORE_LABEL = "io.pretrain-bench.store"


def owner(pid: int) -> str:
    """A label that identifies a process, so that other processes can test whether it is alive."""
    return f"{process_space()}:{pid}:{psutil.Process(pid).create_time():.2f}"


def has_ended(label: str) -> bool:
    """Whether the process of a label is known to have ended; false if that is unknown."""
    try:
        space, pid, started = label.rsplit(":", 2)
        return space == process_space() and not is_running(int(pid), float(started))
    except ValueError:
        return False


def remove_orphans(client: DockerClient, mine: dict[str, str] | None = None) -> list[str]:
    """Remove containers whose harness has ended, and those with all labels of `mine`; returns the keys of their stages.
    Containers of an image committed from one of ours are kept: they inherit the labels of that image.
    """
    from docker.errors import APIError

    removed = []
    for container in client.containers.list(all=True, filters={"label": OWNER_LABEL}, ignore_removed=True):
        same = mine is not None and all(container.labels.get(k) == v for k, v in mine.items())
        if (same or has_ended(container.labels[OWNER_LABEL])) and not _is_inherited(container):
            with contextlib.suppress(APIError):
                container.remove(force=True, v=True)
                removed.append(container.labels.get(KEY_LABEL, ""))
    return removed


def _is_inherited(container: Container) -> bool:
    """Whether the owner label comes from the container's image. Our images have none: it is set when a container starts."""
    from docker.errors import APIError

    try:
        return container.image.labels.get(OWNER_LABEL) == container.labels[OWNER_LABEL]
    except APIError:
        return False  # the image is gone
