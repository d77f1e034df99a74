"""A control group for one stage, if this process may create one: the kernel then limits its memory and process count."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from pretrain_bench.benchmarks.support.process_limits import cgroup_folders, memory_kills

PREFIX = "bench-"
REMOVAL_SECONDS = 5.0
Limits = dict[str, str]


class ControlGroup(NamedTuple):
    """The folders of one stage's control group: one in version 2, one for each controller in version 1."""

    memory: Path
    pids: Path

    def join(self) -> None:
        """Move the calling process into the group. Raises OSError where the kernel refuses."""
        for folder in {self.memory, self.pids}:
            (folder / "cgroup.procs").write_text("0")

    def killed_for_memory(self) -> bool:
        """Whether the kernel killed a process of the group for lack of memory."""
        return memory_kills(self.memory) > 0


@contextlib.contextmanager
def control_group(name: str, memory_bytes: int | None, pids: int) -> Iterator[ControlGroup | None]:
    """Create a group for the block with these limits (swap included); None if this process may not create one. It is removed
    after the block, once its processes have ended. `name` starts with the id of this process (`group_name`)."""
    group = None
    folders = []
    for controller, limits in (("memory", memory_limits(memory_bytes)), ("pids", {"pids.max": str(pids)})):
        folder = _make(controller, name, limits)
        folders += [folder] if folder is not None else []
    if len(folders) == 2:
        group = ControlGroup(*folders)
    try:
        yield group
    finally:
        for folder in dict.fromkeys(folders):
            _remove(folder)


def group_name(pid: int, key: str) -> str:
    """The group name of a stage that process `pid` runs."""
    return f"{PREFIX}{pid}-{key}"


def memory_limits(memory_bytes: int | None) -> Limits:
    """The limit files of a memory group with their contents, for versions 1 and 2; a machine has only some of them."""
    if memory_bytes is None:
        return {}
    limit = str(memory_bytes)
    # In version 1 the limit with swap comes second: it may not be below the limit without swap.
    return {
        "memory.max": limit,
        "memory.swap.max": "0",
        "memory.limit_in_bytes": limit,
        "memory.memsw.limit_in_bytes": limit,
    }


def remove_left_over() -> None:
    """Remove the groups of processes that no longer run, such as a killed harness."""
    for controller in ("memory", "pids"):
        for parent in _parents(controller):
            for folder in parent.glob(f"{PREFIX}*-*"):
                pid = folder.name.removeprefix(PREFIX).partition("-")[0]
                if pid.isdigit() and not psutil.pid_exists(int(pid)):
                    with contextlib.suppress(OSError):
                        folder.rmdir()


def _parents(controller: str) -> Iterator[Path]:
    """Candidate parents of a stage's control group: this process's own group, and in version 2 the one above it."""
    for own in cgroup_folders(controller):
        if not (own / "cgroup.procs").is_file():
            continue
        yield own
        # In version 2 a group with processes cannot contain groups with limits. A sibling group can have limits, but
        # a stage in it would escape the limits of this process's own group, if it has any.
        limits = [own / name for name in ("memory.max", "pids.max", "cpu.max")]
        free = all(not path.is_file() or path.read_text().startswith("max") for path in limits)
        if (own / "cgroup.controllers").is_file() and free and (own.parent / "cgroup.procs").is_file():
            yield own.parent
        return


def _make(controller: str, name: str, limits: Limits) -> Path | None:
    """Create a group with these limits; None if that fails or the controller is missing."""
    for parent in _parents(controller):
        folder = parent / name
        try:
            folder.mkdir(exist_ok=True)
        except OSError:
            continue
        try:
            # The files of a controller appear only in groups that it limits.
            if any(folder.glob(f"{controller}.*max*")) and (not limits or _write(folder, limits)):
                return folder
        except OSError:
            pass
        _remove(folder)
    return None


def _write(folder: Path, limits: Limits) -> int:
    """Write the limits whose files exist; returns their number. Raises OSError if the kernel refuses one."""
    existing = {folder / name: value for name, value in limits.items() if (folder / name).is_file()}
    for path, value in existing.items():
        path.write_text(value)
    return len(existing)


def _remove(folder: Path) -> None:
    """Remove an empty group; its last processes may take a moment to end."""
    deadline = time.monotonic() + REMOVAL_SECONDS
    while folder.is_dir():
        try:
            folder.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                return
            time.sleep(0.01)
