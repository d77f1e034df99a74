"""Run a stage in a container.

The sandbox is always on: no network, a read-only root, no capabilities, no new privileges, not root, limits on processes, memory
(without swap) and CPU, and no host files except the folders of the contract, of which only `/bench/out` is writable. The
outcome comes from the engine's state and the harness's own flags, never from an exit code alone. docs/security.md has the full
list.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.support.errors import EnvironmentCannot
from pretrain_bench.harness.contract.records import Measured
from pretrain_bench.harness.contract.stage import StageSpec
from pretrain_bench.harness.executors.base import Execution, StageLaunch, library_variables
from pretrain_bench.harness.executors.container_owner import KEY_LABEL, OWNER_LABEL, STORE_LABEL, owner, remove_orphans
from pretrain_bench.harness.executors.container_watch import ContainerWatch
from pretrain_bench.harness.executors.disk_quota import can_limit, size_limited
from pretrain_bench.harness.executors.engine import connect, first_line
from pretrain_bench.harness.executors.image_contents import TASK
from pretrain_bench.harness.executors.image_state import require
from pretrain_bench.harness.executors.output_folder import chown_output, drop_special_files
from pretrain_bench.harness.executors.sandbox import (
    CONTAINER_USER,
    PIDS,
    SHARED_MEMORY_BYTES,
    TMP_BYTES,
    TRITON_CACHE,
    contract_binds,
    sandbox_user,
)
from pretrain_bench.harness.planning.code_digest import docker_folder

if TYPE_CHECKING:
    from docker import DockerClient

ENGINE_LOG_SIZE = "32m"
"""More than the harness keeps: the engine restarts a full log file, even while it is being read."""


SECCOMP = docker_folder() / "seccomp.json"
"""System calls that no stage may make. Replaces the engine's own profile, which varies with the engine's version."""

FEATURES_ENTRY_POINT = ["tini", "-s", "-g", "--", "python", "-m", "pretrain_bench.methods.stage", "features"]
"""The task image's own entry point runs `finetune`."""

CANNOT_START = 127
"""Exit code of an image whose command cannot be started, as from a shell."""
FAULTS_OF_IMAGES = {
    "no command specified": "it has no ENTRYPOINT and no CMD; set the command that runs a stage in its Dockerfile",
    "executable file not found": "it lacks the program of its ENTRYPOINT; add the program and rebuild the image",
    "exec format error": "its entry point cannot run here: it is for another processor, or a script without #!",
    "permission denied: unknown": "its entry point is not executable; chmod +x it in the Dockerfile",
}
"""Engine errors for images that cannot start, with the explanation: the run fails, not the machine."""


class DockerExecutor:
    """Runs stages in containers. `own` maps users' methods to their images; images of this project must not be stale."""

    name = "docker"
    label_isolation = "mounts"
    watch_class = ContainerWatch

    def __init__(self, client: DockerClient | None = None, own: Mapping[str, str] | None = None) -> None:
        self.client = client or connect()
        self.own = dict(own or {})
        info = self.client.info()
        # Docker lists it among its options, podman in a field of its own.
        self.rootless = any("rootless" in str(o) for o in info.get("SecurityOptions") or []) or bool(
            info.get("Rootless")
        )
        self.limits_use = not (self.rootless and str(info.get("CgroupVersion")) == "1")
        self.limits_disk = can_limit() and not self.rootless
        unlimited: tuple[str, ...] = () if self.limits_disk else ("disk use between samples a second apart",)
        unlimited += () if self.limits_use else ("CPUs beyond the thread count", "memory", "pids")
        self.not_enforced: tuple[str, ...] = ("GPU memory", *unlimited)
        remove_orphans(self.client)

    def run(self, launch: StageLaunch) -> Execution:
        """Run one stage; see `Executor.run`. Raises EnvironmentCannot if the engine fails, StaleImage for a stale image."""
        from docker.errors import APIError
        from requests import RequestException

        root, spec, caps = launch.root, launch.spec, launch.caps
        image = self._image_of(spec)
        # This process holds the stage's lock, so any container still running for it was left behind.
        remove_orphans(self.client, {KEY_LABEL: spec.key, STORE_LABEL: store_of(root)})
        chown_output(root / "out", CONTAINER_USER)
        container = None
        with contextlib.ExitStack() as ended:
            if self.limits_disk and caps.disk_mib is not None:
                ended.enter_context(size_limited(root / "out", caps.disk_mib))
            ended.callback(drop_special_files, root / "out")
            try:
                container = self.client.containers.create(image, **self._settings(launch))
                watch = self.watch_class(self.client, container, launch)
                watch.engine_measures = self.limits_use
                container.start()
                return watch.until_the_end()._replace(image=container.attrs["Image"])
            except (APIError, RequestException) as error:
                if fault := fault_of_image(str(error)):
                    with launch.log.open("a", encoding="utf-8") as log:
                        log.write(f"image {image}: {fault}\n")
                    return Execution(CANNOT_START, None, False, Measured())
                raise EnvironmentCannot(f"the engine cannot run {image}: {first_line(error)}") from None
            finally:
                if container is not None:
                    with contextlib.suppress(APIError, RequestException):
                        container.remove(force=True, v=True)

    def seccomp(self) -> str:
        """The system call profile in the form that this engine expects: its text."""
        return SECCOMP.read_text()

    def check_images(self, methods: Iterable[Method]) -> None:
        """Raises StaleImage if the image of a method or of the tasks is missing or out of date."""
        for image in [*(m.code_of for m in methods if m.name not in self.own), TASK]:
            require(self.client, image)

    def _image_of(self, spec: StageSpec) -> str:
        if spec.kind == "pretrain" and spec.method in self.own:
            return self.own[spec.method]
        return require(self.client, spec.code_of if spec.kind == "pretrain" else TASK)

    def _settings(self, launch: StageLaunch) -> dict[str, Any]:
        from docker.types import DeviceRequest, LogConfig

        root, spec, caps = launch.root, launch.spec, launch.caps
        settings: dict[str, Any] = {
            "labels": {OWNER_LABEL: owner(os.getpid()), KEY_LABEL: spec.key, STORE_LABEL: store_of(root)},
            "mounts": mounts_of(root),
            "environment": library_variables(spec.threads),
            "network_mode": "none",
            "read_only": True,
            "tmpfs": {"/tmp": f"size={TMP_BYTES},mode=1777"},  # engines mount it noexec
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges", f"seccomp={self.seccomp()}"],
            # A rootless engine maps its root to this unprivileged user.
            "user": "0:0" if self.rootless else f"{sandbox_user()}:{sandbox_user()}",
            "shm_size": SHARED_MEMORY_BYTES,
            "init": True,
            "ipc_mode": "private",
            "log_config": LogConfig(type="json-file", config={"max-size": ENGINE_LOG_SIZE, "max-file": "1"}),
        }
        if spec.kind == "features":
            settings["entrypoint"] = FEATURES_ENTRY_POINT
        if hasattr(os, "sched_getaffinity") and not self.rootless:
            # Keep the stage on the processors assigned to this process, for example by a batch system.
            settings["cpuset_cpus"] = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        if self.limits_use:
            cpus = spec.threads + spec.limits.loader_workers
            settings |= {"pids_limit": PIDS, "cpu_period": 100_000, "cpu_quota": 100_000 * cpus}
        if caps.memory_mib is not None and self.limits_use:
            settings |= {"mem_limit": f"{caps.memory_mib}m", "memswap_limit": f"{caps.memory_mib}m"}
        if spec.device == "cuda":
            gpus = list(launch.allocation.gpus) or ["0"]
            settings["device_requests"] = [DeviceRequest(device_ids=gpus, capabilities=[["gpu"]])]
            settings["tmpfs"]["/triton"] = f"exec,size={TMP_BYTES},mode=1777"
            settings["environment"] |= {TRITON_CACHE: "/triton"}
        return settings


def fault_of_image(error: str) -> str | None:
    """Explain an engine's error that concerns the image; None if the engine itself has failed."""
    return next((words for sign, words in FAULTS_OF_IMAGES.items() if sign in error.lower()), None)


def mounts_of(root: Path) -> list[Any]:
    """The folders of the contract as mounts for an engine."""
    from docker.types import Mount

    return [Mount(b.target, str(b.source), type="bind", read_only=b.read_only) for b in contract_binds(root)]


def store_of(root: Path) -> str:
    """A label for the store that holds a stage's folders; it does not reveal the path."""
    return hashlib.sha256(str(root.resolve().parent.parent).encode()).hexdigest()[:16]
