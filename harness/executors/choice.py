"""Select executors by name, or by default where the user names none."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pretrain_bench.benchmarks.support.errors import EnvironmentCannot
from pretrain_bench.harness.executors.base import Executor

if TYPE_CHECKING:
    from pretrain_bench.harness.executors.docker import DockerExecutor

AUTO = "auto"
PROCESSES = ("bubblewrap", "local")
"""Executors that run the local Python; the others run images."""
ENGINES = ("docker", "podman")
EXECUTORS = (AUTO, *PROCESSES, *ENGINES)


def process_executor(name: str = AUTO, device: str = "cpu", hidden: Iterable[Path] = ()) -> Executor:
    """The executor `bubblewrap` or `local`; `auto` selects bubblewrap if it works here. `hidden` are folders that a sandbox
    hides.

    Raises EnvironmentCannot, with the reason, if bubblewrap is requested but does not work.
    """
    from pretrain_bench.harness.executors.bubblewrap import BubblewrapExecutor, why_not
    from pretrain_bench.harness.executors.local import LocalExecutor

    reason = "" if name == "local" else why_not(device)
    if name == "bubblewrap" and reason:
        raise EnvironmentCannot(f"--executor bubblewrap: {reason}; use --executor local, or see `bench doctor`")
    if name == "local" or reason:
        return LocalExecutor()
    return BubblewrapExecutor(hidden=hidden)


def engine_executor(name: str) -> DockerExecutor:
    """The executor `docker` or `podman`. Raises EnvironmentCannot if that engine does not answer."""
    from pretrain_bench.harness.executors.docker import DockerExecutor
    from pretrain_bench.harness.executors.podman import PodmanExecutor

    return (PodmanExecutor if name == "podman" else DockerExecutor)()


def notice_without_isolation(name: str, device: str) -> str | None:
    """A notice that stages run without isolation although the user did not ask for that; None otherwise."""
    from pretrain_bench.harness.executors.bubblewrap import why_not

    reason = why_not(device) if name == AUTO else ""
    return (
        f"executor local: stages are not isolated, since {reason}; docs/security.md explains the risk"
        if reason
        else None
    )
