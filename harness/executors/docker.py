"""A stage in a container: the real thing (design section 6).

The sandbox is always on: no network, a read-only root, no capabilities, no new privileges, not root, limits on processes, memory
(without swap) and CPU, and nothing of the host but the folders of the contract, of which `/bench/out` alone can be written.
The outcome comes from the engine's state and our own flags, never from an exit code alone. docs/security.md has the whole list.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.support.errors import EnvironmentCannot
from pretrain_bench.harness.contract.records import Measured
from pretrain_bench.harness.contract.stage import StageSpec
from pretrain_bench.harness.executors.base import Execution, StageLaunch, Watch, thread_variables
from pretrain_bench.harness.executors.disk_quota import can_limit, size_limited
from pretrain_bench.harness.executors.images import TASK, connect, first_line, require
from pretrain_bench.harness.executors.output_folder import drop_special_files
from pretrain_bench.harness.executors.usage import GpuSampler, folder_bytes

if TYPE_CHECKING:
    from docker.models.containers import Container

    from docker import DockerClient

OWNER_LABEL = "io.pretrain-bench.owner"
KEY_LABEL = "io.pretrain-bench.key"
STORE_LABEL = "io.pretrain-bench.store"
CLOCK_SECONDS = 5.0
FINAL_READS = 64
MISSED_PINGS = 50
CONTAINER_USER = 10001
PIDS = 512
SHARED_MEMORY_BYTES = 1 << 30
TMP_BYTES = 256 << 20
MAX_LOG_BYTES = 16 << 20
# The engine begins its own file anew when it is full, also under who reads it, so it holds more than is kept.
ENGINE_LOG_SIZE = "32m"
LOG_SECONDS = 60.0  # to read what is left of it when the stage has ended
ENGINE_LOST_IT = b"Error grabbing logs"


class DockerExecutor:
    """See the module's text. `own` are images of users' own methods by name; the project's own are refused where stale."""

    name = "docker"
    label_isolation = "mounts"

    def __init__(self, client: DockerClient | None = None, own: Mapping[str, str] | None = None) -> None:
        self.client = client or connect()
        self.own = dict(own or {})
        self.rootless = any("rootless" in str(o) for o in self.client.info().get("SecurityOptions") or [])
        self.limits_disk = can_limit() and not self.rootless
        watched = () if self.limits_disk else ("disk between two looks a second apart",)
        self.not_enforced: tuple[str, ...] = ("GPU memory", *watched)
        remove_orphans(self.client)

    def run(self, launch: StageLaunch) -> Execution:
        """Run one stage; see `Executor.run`. Raises EnvironmentCannot where the engine cannot, StaleImage for its image."""
        from docker.errors import APIError
        from requests import RequestException

        root, spec, caps = launch.root, launch.spec, launch.caps
        image = self._image_of(spec)
        # This process holds the stage's lock, so whatever still runs for it was left behind.
        remove_orphans(self.client, {KEY_LABEL: spec.key, STORE_LABEL: store_of(root)})
        chown_output(root / "out")
        container = None
        with contextlib.ExitStack() as ended:
            if self.limits_disk and caps.disk_mib is not None:
                ended.enter_context(size_limited(root / "out", caps.disk_mib))
            ended.callback(drop_special_files, root / "out")
            try:
                container = self.client.containers.create(image, **self._settings(launch))
                watch = _ContainerWatch(self.client, container, launch)
                container.start()
                return watch.until_the_end()._replace(image=container.attrs["Image"])
            except (APIError, RequestException) as error:
                raise EnvironmentCannot(f"the engine cannot run {image}: {first_line(error)}") from None
            finally:
                if container is not None:
                    with contextlib.suppress(APIError, RequestException):
                        container.remove(force=True, v=True)

    def check_images(self, methods: Iterable[Method]) -> None:
        """Raises StaleImage before anything starts where an image is missing or does not fit."""
        for image in [*(m.name for m in methods if m.name not in self.own), TASK]:
            require(self.client, image)

    def _image_of(self, spec: StageSpec) -> str:
        if spec.kind == "pretrain" and spec.method in self.own:
            return self.own[spec.method]
        return require(self.client, TASK if spec.kind == "finetune" else spec.method)

    def _settings(self, launch: StageLaunch) -> dict[str, Any]:
        from docker.types import DeviceRequest, LogConfig

        root, spec, caps = launch.root, launch.spec, launch.caps
        settings: dict[str, Any] = {
            "labels": {OWNER_LABEL: owner(os.getpid()), KEY_LABEL: spec.key, STORE_LABEL: store_of(root)},
            "mounts": mounts_of(root),
            "environment": thread_variables(spec.threads),
            "network_mode": "none",
            "read_only": True,
            "tmpfs": {"/tmp": f"size={TMP_BYTES},mode=1777"},
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            # A rootless engine maps its root to this user, who has no privileges.
            "user": "0:0" if self.rootless else f"{container_user()}:{container_user()}",
            "pids_limit": PIDS,
            "shm_size": SHARED_MEMORY_BYTES,
            "cpu_period": 100_000,
            "cpu_quota": 100_000 * (caps.cpus or spec.threads),
            "init": True,
            "ipc_mode": "private",
            "log_config": LogConfig(type="json-file", config={"max-size": ENGINE_LOG_SIZE, "max-file": "1"}),
        }
        if hasattr(os, "sched_getaffinity") and not self.rootless:
            # A stage stays on the processors that this process was given, by a batch system for one.
            settings["cpuset_cpus"] = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        if caps.memory_mib is not None:
            settings |= {"mem_limit": f"{caps.memory_mib}m", "memswap_limit": f"{caps.memory_mib}m"}
        if spec.device == "cuda":
            gpus = list(launch.allocation.gpus) or ["0"]
            settings["device_requests"] = [DeviceRequest(device_ids=gpus, capabilities=[["gpu"]])]
        return settings


class _ContainerWatch(Watch):
    """Follows a container, and keeps its log."""

    poll_seconds, sample_seconds, folder_seconds = 0.1, 1.0, 1.0

    def __init__(self, client: DockerClient, container: Container, launch: StageLaunch) -> None:
        super().__init__(launch)
        self.gpus = GpuSampler(launch.allocation.gpus)
        self.client, self.container, self.log = client, container, launch.log
        self.has_ended = threading.Event()
        self.cpu_seconds = 0.0
        self.peak_memory_bytes = self.written_bytes = 0

    def until_the_end(self) -> Execution:
        threads = [threading.Thread(target=work, daemon=True) for work in (self._wait, self._stream_log)]
        for thread in threads:
            thread.start()
        self.follow()
        threads[1].join(timeout=LOG_SECONDS)
        for _ in range(FINAL_READS):
            if not self.pass_events():
                break
        state = self.client.api.inspect_container(self.container.id)["State"]
        if state.get("OOMKilled") and self.killed_by is None:
            self.killed_by = "memory"
        output_bytes = folder_bytes(self.out)
        if self.caps.disk_mib is not None and output_bytes > self.caps.disk_mib << 20:
            self.killed_by = self.killed_by or "disk"
        measured = Measured(
            wall_seconds=time.monotonic() - self.began,
            cpu_seconds=self.cpu_seconds,
            peak_memory_bytes=self.peak_memory_bytes,
            written_bytes=self.written_bytes,
            output_bytes=output_bytes,
        )
        return Execution(int(state["ExitCode"]), self.killed_by, self.soft_at is not None, self.gpus.added_to(measured))

    def ended(self, seconds: float) -> bool:
        return self.has_ended.wait(seconds)

    def send(self, number: signal.Signals) -> None:
        from docker.errors import APIError

        with contextlib.suppress(APIError):
            self.container.kill(signal=number.name)

    def _wait(self) -> None:
        """Set `has_ended` when the container has. A wait that breaks off is taken up again while the engine answers."""
        from docker.errors import APIError, NotFound

        missed = 0
        while missed < MISSED_PINGS:
            try:
                self.client.api.wait(self.container.id, timeout=3600)
                break
            except NotFound:
                break
            except (APIError, OSError):
                time.sleep(1)
                missed = 0 if self._engine_answers() else missed + 1
        self.has_ended.set()

    def _engine_answers(self) -> bool:
        from docker.errors import APIError

        try:
            return bool(self.client.ping())
        except (APIError, OSError):
            return False

    def _stream_log(self) -> None:
        """Keep the first MAX_LOG_BYTES that the container prints, and read the rest to nowhere; one that breaks off says it."""
        from docker.errors import APIError

        left, lost = MAX_LOG_BYTES, False
        with contextlib.suppress(OSError), self.log.open("ab") as file:
            try:
                for part in self.container.logs(stream=True, follow=True):
                    lost = part.startswith(ENGINE_LOST_IT)
                    file.write(part[:left])
                    if 0 < left <= len(part):
                        file.write(b"\n[the log is longer; what follows was not kept]\n")
                    left = max(0, left - len(part))
                    if not left and self.has_ended.is_set():
                        break
            except (APIError, OSError):
                lost = True
            if lost and left:
                file.write(b"\n[the engine lost the rest of the log; what follows was not kept]\n")

    def sample(self) -> None:
        self.gpus.sample()
        from docker.errors import APIError

        with contextlib.suppress(APIError, OSError, KeyError, TypeError):
            stats = self.client.api.stats(self.container.id, stream=False, one_shot=True)
            self.cpu_seconds = max(self.cpu_seconds, stats["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9)
            memory = stats.get("memory_stats") or {}
            # Without the page cache where the engine tells it, as a limit on memory does not count it either.
            cache = (memory.get("stats") or {}).get(
                "total_inactive_file", (memory.get("stats") or {}).get("inactive_file", 0)
            )
            self.peak_memory_bytes = max(self.peak_memory_bytes, memory.get("usage", 0) - cache)
            for entry in (stats.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []:
                if entry.get("op", "").lower() == "write":
                    self.written_bytes = max(self.written_bytes, int(entry["value"]))


def mounts_of(root: Path) -> list[Any]:
    """The folders of the contract, each where it really lies; all but `out` read-only."""
    from docker.types import Mount

    pairs = [(path, f"/bench/in/{path.name}") for path in sorted((root / "in").iterdir())]
    pairs += [(view, f"/bench/data/{view.parent.name}/{view.name}") for view in sorted((root / "data").glob("*/*"))]
    pairs += [(parent, f"/bench/parents/{parent.name}") for parent in sorted((root / "parents").iterdir())]
    mounts = [Mount(target, str(source.resolve()), type="bind", read_only=True) for source, target in pairs]
    return [*mounts, Mount("/bench/out", str((root / "out").resolve()), type="bind")]


def store_of(root: Path) -> str:
    """The store that a stage's folders belong to, as a label that names no path."""
    return hashlib.sha256(str(root.resolve().parent.parent).encode()).hexdigest()[:16]


def container_user() -> int:
    """Who the stage is: this user, or where this user is root an unused number."""
    return os.getuid() or CONTAINER_USER


def chown_output(out: Path) -> None:
    """Let the container's user write to `out`, with what an earlier attempt left there."""
    if os.getuid() != 0:
        return
    os.chown(out, CONTAINER_USER, CONTAINER_USER)
    for _, folders, files, descriptor in os.fwalk(out):
        for name in (*folders, *files):
            os.chown(name, CONTAINER_USER, CONTAINER_USER, dir_fd=descriptor, follow_symlinks=False)


def host_identity() -> str:
    """This boot of this machine, and this name space of processes: elsewhere nobody can tell whether a process lives."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    space = Path("/proc/self/ns/pid")
    names = (
        socket.gethostname(),
        boot.read_text().strip() if boot.is_file() else "",
        space.stat().st_ino if space.exists() else 0,
    )
    return "/".join(map(str, names))


def owner(pid: int) -> str:
    """A process, so that another one can tell whether it still lives."""
    return f"{host_identity()}:{pid}:{psutil.Process(pid).create_time():.2f}"


def has_ended(label: str) -> bool:
    """Whether the owner that a label names is known to have ended; where that cannot be told, it has not."""
    place, _, rest = label.partition(":")
    pid, _, created = rest.partition(":")
    if place != host_identity():
        return False
    try:
        return abs(psutil.Process(int(pid)).create_time() - float(created)) > CLOCK_SECONDS
    except psutil.NoSuchProcess:
        return True
    except (ValueError, psutil.Error):
        return False


def remove_orphans(client: DockerClient, mine: dict[str, str] | None = None) -> list[str]:
    """Remove containers whose harness has ended, however it ended, and those that carry all labels of `mine`; their keys."""
    from docker.errors import APIError

    gone = []
    for container in client.containers.list(all=True, filters={"label": OWNER_LABEL}, ignore_removed=True):
        same = mine is not None and all(container.labels.get(k) == v for k, v in mine.items())
        if same or has_ended(container.labels[OWNER_LABEL]):
            with contextlib.suppress(APIError):
                container.remove(force=True, v=True)
                gone.append(container.labels.get(KEY_LABEL, ""))
    return gone
