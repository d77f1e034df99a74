"""Limit the size of a folder by mounting a file system of that size over it.

A file beside the folder holds the file system; at the end its content is copied back to the folder. This needs root and the
tools of ext4. Otherwise only sampling limits the folder, and a stage may exceed the limit between two samples.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from pretrain_bench.benchmarks.support.errors import EnvironmentCannot
from pretrain_bench.benchmarks.support.files import remove_tree
from pretrain_bench.harness.executors.usage import folder_bytes

TOOLS = ("mkfs.ext4", "mount", "umount", "cp")
SPARE_MIB = 16
"""Extra space for file system metadata, so that sampling rather than a full disk ends a stage that slightly exceeds its cap."""


def can_limit() -> bool:
    """Whether this user may mount file systems and has the tools."""
    return os.geteuid() == 0 and all(map(shutil.which, TOOLS))


@contextlib.contextmanager
def size_limited(folder: Path, mib: int) -> Iterator[bool]:
    """Limit `folder`, with its present content, to about `mib` MiB within the block; yields false if it cannot be mounted.

    A folder that exceeds `mib` MiB is empty afterwards: a sparse file can be larger than any disk.
    """
    image, aside = folder.with_name(f"{folder.name}.ext4"), folder.with_name(f"{folder.name}.aside")
    # Mounted elsewhere first, to copy the folder's content into it.
    mounted = _make(image, mib) and _mount(image, aside)
    if mounted:
        shutil.rmtree(aside / "lost+found")
        copied = _succeeds("cp", "-a", f"{folder}/.", str(aside))
        mounted = _succeeds("umount", str(aside)) and copied and _mount(image, folder)
    if aside.is_dir():
        aside.rmdir()
    try:
        yield mounted
    finally:
        if mounted:
            _take_back(image, folder, mib)
        else:
            image.unlink()


def recover(folder: Path) -> None:
    """Restore a folder whose process was killed within `size_limited`; other folders are unchanged."""
    image = folder.with_name(f"{folder.name}.ext4")
    aside = folder.with_name(f"{folder.name}.aside")
    if os.path.ismount(aside):  # killed while entering: the folder still has its content
        _succeeds("umount", "-l", str(aside))
        image.unlink()
    elif os.path.ismount(folder) or (image.is_file() and _mount(image, folder)):
        _take_back(image, folder, image.stat().st_size >> 20)
    image.unlink(missing_ok=True)
    if aside.is_dir():
        aside.rmdir()


def _make(image: Path, mib: int) -> bool:
    with image.open("wb") as file:
        file.truncate(mib + mib // 16 + SPARE_MIB << 20)
    return _succeeds("mkfs.ext4", "-q", "-F", "-m0", "-O^has_journal", "-Elazy_itable_init=1,nodiscard", str(image))


def _mount(image: Path, folder: Path) -> bool:
    folder.mkdir(exist_ok=True)
    return _succeeds("mount", "-o", "loop,nosuid,nodev", str(image), str(folder))


def _take_back(image: Path, folder: Path, mib: int) -> None:
    """Replace a mounted file system by a plain folder with its content. If copying fails, raises EnvironmentCannot and keeps the
    mount for `recover`."""
    kept = folder.with_name(f"{folder.name}.kept")
    remove_tree(kept)
    kept.mkdir()
    if folder_bytes(folder) <= mib << 20 and not _succeeds("cp", "-a", f"{folder}/.", str(kept)):
        remove_tree(kept)
        raise EnvironmentCannot(
            f"{folder}: the stage's output cannot be copied out of {image.name}, probably because the disk is full; free some "
            "space and rerun the same command to resume there"
        )
    _succeeds("umount", "-l", str(folder))
    remove_tree(folder)
    kept.rename(folder)
    image.unlink()


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0
