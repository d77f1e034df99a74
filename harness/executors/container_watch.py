"""Monitor a stage in a container: its end, its log and its resource use, as reported by the engine."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pretrain_bench.harness.contract.records import Measured
from pretrain_bench.harness.executors.base import Execution, StageLaunch, Watch
from pretrain_bench.harness.executors.capped_log import CappedLog
from pretrain_bench.harness.executors.usage import GpuSampler

if TYPE_CHECKING:
    from docker.models.containers import Container

    from docker import DockerClient

FINAL_READS = 64
MISSED_PINGS = 50
LOG_SECONDS = 60.0
"""Time to read the rest of the log after the stage has ended."""
LOST_LOG = b"Error grabbing logs"


class ContainerWatch(Watch):
    """Monitors a container and keeps its log."""

    poll_seconds, sample_seconds, folder_seconds = 0.1, 1.0, 1.0
    engine_measures = True
    """Whether the engine's numbers are those of this container."""

    def __init__(self, client: DockerClient, container: Container, launch: StageLaunch) -> None:
        super().__init__(launch)
        self.gpus = GpuSampler(launch.allocation.gpus)
        self.client, self.container, self.log = client, container, launch.log
        self.has_ended = threading.Event()
        self.cpu_seconds = 0.0
        self.peak_memory_bytes = self.written_bytes = 0

    def until_the_end(self) -> Execution:
        """Follow the container until it has ended; return how it ended."""
        threads = [threading.Thread(target=work, daemon=True) for work in (self._wait, self._stream_log)]
        for thread in threads:
            thread.start()
        self.follow()
        threads[1].join(timeout=LOG_SECONDS)
        for _ in range(FINAL_READS):
            if not self.pass_events():
                break
        state = self.client.api.inspect_container(self.container.id)["State"]
        if state.get("OOMKilled") or self.was_killed_unreported(state["ExitCode"]):
            self.killed_by = self.killed_by or "memory"
        measured = Measured(
            wall_seconds=time.monotonic() - self.began,
            cpu_seconds=self.cpu_seconds,
            peak_memory_bytes=self.peak_memory_bytes,
            written_bytes=self.written_bytes,
            output_bytes=self.output_bytes(),
        )
        return Execution(int(state["ExitCode"]), self.killed_by, self.soft_at is not None, self.gpus.added_to(measured))

    def was_killed_unreported(self, code: int) -> bool:
        """Whether the kernel killed the stage for lack of memory without the engine reporting it."""
        return False

    def ended(self, seconds: float) -> bool:
        return self.has_ended.wait(seconds)

    def send(self, number: signal.Signals) -> None:
        from docker.errors import APIError

        with contextlib.suppress(APIError):
            self.container.kill(signal=number.name)

    def _wait(self) -> None:
        """Set `has_ended` when the container has ended. An interrupted wait is repeated while the engine answers."""
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
        """Keep the container's output. The log notes where output was cut or lost."""
        from docker.errors import APIError

        lost = False
        with contextlib.suppress(OSError), self.log.open("ab") as file:
            kept = CappedLog(file)
            try:
                for part in self.log_parts():
                    lost = part.startswith(LOST_LOG)
                    kept.add(part)
                    if not kept.left and self.has_ended.is_set():
                        break
            except (APIError, OSError):
                lost = True
            if lost and kept.left:
                file.write(b"\n[the engine lost the rest of the log; what follows was not kept]\n")

    def log_parts(self) -> Iterator[bytes]:
        """Yield the container's output as it arrives, until the container has ended."""
        yield from self.container.logs(stream=True, follow=True)

    def sample(self) -> None:
        self.gpus.sample()
        if not self.engine_measures:
            return
        from docker.errors import APIError

        with contextlib.suppress(APIError, OSError, KeyError, TypeError):
            stats = self.client.api.stats(self.container.id, stream=False, one_shot=True)
            self.cpu_seconds = max(self.cpu_seconds, stats["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9)
            memory = stats.get("memory_stats") or {}
            # Without the page cache, if the engine reports it: memory limits do not count it either.
            cache = (memory.get("stats") or {}).get(
                "total_inactive_file", (memory.get("stats") or {}).get("inactive_file", 0)
            )
            self.peak_memory_bytes = max(self.peak_memory_bytes, memory.get("usage", 0) - cache)
            for entry in (stats.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []:
                if entry.get("op", "").lower() == "write":
                    self.written_bytes = max(self.written_bytes, int(entry["value"]))
