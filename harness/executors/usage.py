"""Measure the resources of a process tree (psutil) and of GPUs (NVML), and the size of a folder."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import psutil

from pretrain_bench.harness.contract.records import Measured

ENTRY_BYTES = 512


class TreeSampler:
    """Samples a process and its descendants. CPU time of processes that end between two samples may be missed."""

    def __init__(self, pid: int) -> None:
        self._root: psutil.Process | None = None
        with contextlib.suppress(psutil.NoSuchProcess):  # one that ended at once leaves nothing to sample
            self._root = psutil.Process(pid)
        self._cpu: dict[int, float] = {}
        self._written: dict[int, int] = {}
        self.memory_bytes = 0
        self.peak_memory_bytes = 0
        self.processes = 0

    def sample(self) -> None:
        """Take one sample of the tree."""
        memory = 0
        tree = self._tree()
        self.processes = len(tree)
        for process in tree:
            with contextlib.suppress(psutil.Error):
                with process.oneshot():
                    times = process.cpu_times()
                    memory += process.memory_info().rss
                self._cpu[process.pid] = times.user + times.system
                with contextlib.suppress(psutil.Error, AttributeError):
                    self._written[process.pid] = process.io_counters().write_bytes
        self.memory_bytes = memory
        self.peak_memory_bytes = max(self.peak_memory_bytes, memory)

    def measured(self, wall_seconds: float, output_bytes: int) -> Measured:
        """The totals over all samples."""
        return Measured(
            wall_seconds=wall_seconds,
            cpu_seconds=sum(self._cpu.values()),
            peak_memory_bytes=self.peak_memory_bytes,
            written_bytes=sum(self._written.values()),
            output_bytes=output_bytes,
        )

    def _tree(self) -> list[psutil.Process]:
        try:
            return [self._root, *self._root.children(recursive=True)] if self._root else []
        except psutil.Error:
            return []


def folder_bytes(folder: Path) -> int:
    """Bytes of all plain files below a folder, which may change meanwhile. Every entry counts at least ENTRY_BYTES, so that an
    unlimited number of empty files or folders also reaches the limit."""
    total, waiting = 0, [str(folder)]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                total += ENTRY_BYTES
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        total += max(0, entry.stat(follow_symlinks=False).st_size - ENTRY_BYTES)
    return total


class GpuSampler:
    """Samples the GPUs with the given ids through NVML; measures nothing without ids or driver. Energy is that of whole devices
    between the first and last sample, including idle power."""

    def __init__(self, ids: tuple[str, ...]) -> None:
        self._handles: list[object] = []
        self._busy_seconds = 0.0
        self._peak_bytes = 0
        self._last: float | None = None
        self._joules: list[float] = []
        if ids:
            with contextlib.suppress(Exception):  # NVML raises many different errors, none caused by the stage
                import pynvml

                pynvml.nvmlInit()
                for i in ids:
                    by_uuid = not i.isdigit()
                    get = pynvml.nvmlDeviceGetHandleByUUID if by_uuid else pynvml.nvmlDeviceGetHandleByIndex
                    self._handles.append(get(i if by_uuid else int(i)))

    def sample(self) -> None:
        """Add the busy time since the last sample, and read memory and energy."""
        if not self._handles:
            return
        import pynvml

        now = time.monotonic()
        since = 0.0 if self._last is None else now - self._last
        self._last = now
        with contextlib.suppress(pynvml.NVMLError):
            used = 0
            for handle in self._handles:
                self._busy_seconds += since * pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
                used += int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
            self._peak_bytes = max(self._peak_bytes, used)
            millijoules = sum(pynvml.nvmlDeviceGetTotalEnergyConsumption(h) for h in self._handles)
            self._joules = [*self._joules[:1], millijoules / 1000]  # the first and the last reading

    def added_to(self, measured: Measured) -> Measured:
        """The measurement with the totals of the GPUs added."""
        joules = self._joules[-1] - self._joules[0] if len(self._joules) == 2 else None
        totals = {"gpu_seconds": self._busy_seconds, "peak_gpu_memory_bytes": self._peak_bytes, "gpu_joules": joules}
        return measured.model_copy(update=totals)
