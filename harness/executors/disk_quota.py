"""A folder on a file system of its own size, so that what is written there cannot outgrow it (design section 6).

A file beside the folder holds the file system and is mounted over it; what lies there at the end is copied to the folder
itself. That takes root and the tools of ext4; without them only the watcher limits the folder, with what is written between two
looks to spare.
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
"""For the tables of the file system, so that the watcher, not a full disk, ends a stage that writes a little too much."""


def can_limit() -> bool:
    """Whether this user may mount, and has what it takes."""
    return os.geteuid() == 0 and all(map(shutil.which, TOOLS))


@contextlib.contextmanager
def size_limited(folder: Path, mib: int) -> Iterator[bool]:
    """Hold `folder` to about `mib` MiB within the block, with what lies there already; false where it could not be mounted.

    A folder of more than `mib` MiB comes back empty: one file with holes can say that it is larger than any disk.
    """
    image, aside = folder.with_name(f"{folder.name}.ext4"), folder.with_name(f"{folder.name}.aside")
    # First elsewhere, to put on it what the folder holds.
    mounted = _make(image, mib) and _mount(image, aside)
    if mounted:
        shutil.rmtree(aside / "lost+found")
        copied = _do("cp", "-a", f"{folder}/.", str(aside))
        mounted = _do("umount", str(aside)) and copied and _mount(image, folder)
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
    """Bring back what a process that was killed within `size_limited` left there; nothing where there is none."""
    image = folder.with_name(f"{folder.name}.ext4")
    aside = folder.with_name(f"{folder.name}.aside")
    if os.path.ismount(aside):  # killed on the way in: the folder has it all
        _do("umount", "-l", str(aside))
        image.unlink()
    elif os.path.ismount(folder) or (image.is_file() and _mount(image, folder)):
        _take_back(image, folder, image.stat().st_size >> 20)
    image.unlink(missing_ok=True)
    if aside.is_dir():
        aside.rmdir()


def _make(image: Path, mib: int) -> bool:
    with image.open("wb") as file:
        file.truncate(mib + mib // 16 + SPARE_MIB << 20)
    return _do("mkfs.ext4", "-q", "-F", "-m0", "-O^has_journal", "-Elazy_itable_init=1,nodiscard", str(image))


def _mount(image: Path, folder: Path) -> bool:
    folder.mkdir(exist_ok=True)
    return _do("mount", "-o", "loop,nosuid,nodev", str(image), str(folder))


def _take_back(image: Path, folder: Path, mib: int) -> None:
    """Copy what lies on the file system to a plain folder, which takes its place. Raises EnvironmentCannot where it cannot be
    copied; it then stays where it is, for `recover`."""
    kept = folder.with_name(f"{folder.name}.kept")
    remove_tree(kept)
    kept.mkdir()
    if folder_bytes(folder) <= mib << 20 and not _do("cp", "-a", f"{folder}/.", str(kept)):
        remove_tree(kept)
        raise EnvironmentCannot(
            f"{folder}: what the stage left cannot be copied out of {image.name}; is the disk full? Make room, and the same "
            "command goes on from there"
        )
    _do("umount", "-l", str(folder))
    remove_tree(folder)
    kept.rename(folder)
    image.unlink()


def _do(*command: str) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0
