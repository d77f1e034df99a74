"""What a process tree uses, seen from outside (psutil), and what a folder holds."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import psutil

from harness.contract.records import Measured

ENTRY_BYTES = 512


class TreeSampler:
    """Samples a process and its descendants. Time of processes that ended between two samples may be missed."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._cpu: dict[int, float] = {}
        self._written: dict[int, int] = {}
        self.memory_bytes = 0
        self.peak_memory_bytes = 0

    def sample(self) -> None:
        """Read the tree once."""
        memory = 0
        for process in self._tree():
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
        """The sum of what was seen."""
        return Measured(
            wall_seconds=wall_seconds,
            cpu_seconds=sum(self._cpu.values()),
            peak_memory_bytes=self.peak_memory_bytes,
            written_bytes=sum(self._written.values()),
            output_bytes=output_bytes,
        )

    def _tree(self) -> list[psutil.Process]:
        try:
            return [self._root, *self._root.children(recursive=True)]
        except psutil.Error:
            return []


def folder_bytes(folder: Path) -> int:
    """Bytes of all plain files below a folder that may change meanwhile; every entry counts for ENTRY_BYTES at least, so that
    empty files and folders without end have a size too."""
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
