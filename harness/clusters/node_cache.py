"""Copies of prepared data on a node's own disk, so that stages do not read a shared file system again and again.

A dataset is copied once per node, under the hash of its manifest; every file is compared with its hash on the way. If the copies
exceed their limit, the least recently used ones that no process of this node uses are removed. If a copy fails, stages
read the shared data.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from pydantic import Field

from pretrain_bench.benchmarks.specs.base import Spec
from pretrain_bench.benchmarks.support.files import remove_tree, size_and_sha256, whole_folder
from pretrain_bench.benchmarks.support.locks import exclusive

if TYPE_CHECKING:
    from pretrain_bench.harness.planning.prepared_data import PreparedDataset

GIB = 1 << 30
COPIES, USES = "copies", "uses"
"""Folders of the cache: a folder for each copy; and a file for each, which its users lock and whose time is the last use."""
_in_use: dict[Path, IO[bytes]] = {}
"""The copies that this process uses, by their file in `uses`, until it ends."""


class NodeCache(Spec):
    """Where and how much."""

    folder: str = Field(
        description="folder on each node's own disk; may name its environment variables, such as $TMPDIR"
    )
    gib: float = Field(100.0, gt=0, description="most GiB of copies on a node")


def local_copy(cache: NodeCache, data: PreparedDataset) -> PreparedDataset:
    """The same data on this node's own disk, copied there if they are not yet. On failure the shared data, with a line in the
    log of the job."""
    root = Path(os.path.expandvars(cache.folder)).expanduser()
    try:
        if "$" in str(root) or not root.is_absolute():
            raise OSError(f"node_cache: {cache.folder} is not an absolute path on this node")
        return data._replace(folder=_copy_of(root, cache.gib * GIB, data))
    except OSError as error:
        print(f"{data.dataset.name}: read from {data.folder}, without a copy on this node: {error}", flush=True)
        return data


def _copy_of(root: Path, limit: float, data: PreparedDataset) -> Path:
    """The folder of the copy. Raises OSError, also if it does not fit."""
    name = f"{data.dataset.name}-{data.manifest.sha256[:20]}"
    copy, use = root / COPIES / name, root / USES / name
    with exclusive(root / "lock"):  # one process copies or removes at a time
        _hold(use)
        if copy.is_dir():
            return copy
        size = sum(entry.bytes for entry in data.manifest.files.values())
        _make_room(root, limit - size)
        unfinished = root / "unfinished"  # only the holder of the lock writes it
        remove_tree(unfinished)
        try:
            with whole_folder(copy, unfinished) as folder:
                _copy_files(data, folder)
        finally:
            remove_tree(unfinished)
    return copy


def _copy_files(data: PreparedDataset, target: Path) -> None:
    """Copy the files of the manifest, and compare each with its hash. Raises OSError."""
    from pretrain_bench.benchmarks.datasets.layout import MANIFEST

    for name, entry in data.manifest.files.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data.folder / name, path)
        if size_and_sha256(path) != (entry.bytes, entry.sha256):
            raise OSError(f"{data.folder / name} differs from its manifest")
    shutil.copyfile(data.folder / MANIFEST, target / MANIFEST)


def _make_room(root: Path, room: float) -> None:
    """Remove the least recently used copies that no process uses until the others take at most `room` bytes. Raises OSError if
    that is impossible."""
    sizes = {copy: _bytes_of(copy) for copy in _by_last_use(root)}
    for copy in list(sizes):
        if sum(sizes.values()) <= room:
            return
        with _unused(root / USES / copy.name) as unused:
            if unused:
                remove_tree(copy)
                del sizes[copy]
    if sum(sizes.values()) > room:
        raise OSError("it does not fit into the limit of node_cache (gib)")


def _by_last_use(root: Path) -> list[Path]:
    """All copies, the least recently used first."""
    copies = list((root / COPIES).iterdir()) if (root / COPIES).is_dir() else []

    def last_use(copy: Path) -> float:
        with contextlib.suppress(OSError):
            return (root / USES / copy.name).stat().st_mtime
        return 0.0

    return sorted(copies, key=last_use)


def _bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _hold(use: Path) -> None:
    """Mark a copy as used by this process until it ends, and as used now."""
    use.parent.mkdir(parents=True, exist_ok=True)
    if use not in _in_use:
        file = use.open("ab")
        fcntl.flock(file, fcntl.LOCK_SH)
        _in_use[use] = file
    os.utime(use)


@contextlib.contextmanager
def _unused(use: Path) -> Iterator[bool]:
    """Whether no process uses a copy; none starts to in the block."""
    use.parent.mkdir(parents=True, exist_ok=True)
    with use.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
