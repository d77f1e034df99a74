"""Stages on scratch: a cluster worker lays a stage out on its node's own disk, and keeps a copy of its output in the store.

The next attempt, on any node, resumes from the copy. Each of its files is complete, and the events are never older than a
checkpoint.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

from pretrain_bench.benchmarks.support.files import copy_tree, remove_tree, replacing, sync
from pretrain_bench.harness.contract.events import EVENTS_FILE
from pretrain_bench.harness.contract.stage import STAGE_FILE

COPY_SECONDS = 30.0


def scratch_for(runs: Path) -> Path | None:
    """The folder of this node's own disk given by the batch system ($SLURM_TMPDIR or $TMPDIR), if it is on another file system
    than the store; else None."""
    named = os.environ.get("SLURM_TMPDIR") or os.environ.get("TMPDIR")
    if not named or not os.access(named, os.W_OK | os.X_OK):
        return None
    folder = Path(named).resolve()
    return folder if folder.stat().st_dev != runs.stat().st_dev else None


@contextlib.contextmanager
def stage_root(partial: Path, scratch: Path | None) -> Iterator[Path]:
    """The root to lay a stage out in: its partial folder in the store, or a folder on scratch with the output that the store
    holds. The folder on scratch is removed at the end."""
    home = partial / "root"
    if scratch is None:
        yield home
        return
    folder = scratch / f"bench-{partial.name}-{os.getpid()}"
    try:
        remove_tree(folder)
        folder.mkdir()
        if (home / "out").is_dir():
            copy_tree(home / "out", folder / "root" / "out")
        yield folder / "root"
    finally:
        remove_tree(folder)


@contextlib.contextmanager
def kept_in(home: Path, root: Path) -> Iterator[None]:
    """While a stage runs in `root`, copy its output to `home` every half minute, and once more at the end. Does nothing if
    they are the same. Raises OSError if the last copy fails."""
    if root == home:
        yield
        return
    (home / "in").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(root / "in" / STAGE_FILE, home / "in" / STAGE_FILE)
    copies, over = _Copies(root / "out", home / "out"), threading.Event()

    def copy_now_and_then() -> None:
        while not over.wait(COPY_SECONDS):
            with contextlib.suppress(OSError):
                copies.copy()

    thread = threading.Thread(target=copy_now_and_then, name="scratch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        copies.copy(and_remove=True)


class _Copies:
    """Copies of one folder's files in another folder, updated when they change."""

    def __init__(self, source: Path, target: Path) -> None:
        self.source, self.target = source, target
        self.seen: dict[Path, tuple[int, int, int]] = {}

    def copy(self, and_remove: bool = False) -> None:
        """Copy new files, the events last; with `and_remove`, remove files that the source no longer has."""
        names = sorted(
            (p.relative_to(self.source) for p in self.source.rglob("*")), key=lambda p: p.name == EVENTS_FILE
        )
        self.target.mkdir(parents=True, exist_ok=True)
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # it was a temporary file
                self._copy_one(name)
        if and_remove:
            kept = {self.target / name for name in names}
            for path in sorted(self.target.rglob("*"), reverse=True):
                if path not in kept:
                    path.unlink() if path.is_symlink() or not path.is_dir() else remove_tree(path)

    def _copy_one(self, name: Path) -> None:
        source, target = self.source / name, self.target / name
        found = source.lstat()
        if stat.S_ISDIR(found.st_mode):
            target.mkdir(parents=True, exist_ok=True)
            return
        state = (found.st_ino, found.st_size, found.st_mtime_ns)
        if not stat.S_ISREG(found.st_mode) or self.seen.get(name) == state:
            return  # a stage may leave plain files only, and is judged on scratch
        with replacing(target) as partly:
            shutil.copyfile(source, partly)
            sync(partly)
        self.seen[name] = state
