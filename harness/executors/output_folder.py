"""Clean the folder that a stage writes to, before and after it runs, without following anything in it."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from pretrain_bench.benchmarks.support.files import remove_tree
from pretrain_bench.harness.contract.events import EVENTS_FILE


def drop_special_files(out: Path) -> None:
    """Remove links, pipes, devices and hard-linked files outside `artifacts/`, and a folder in place of the events file.

    Files inside `artifacts/` are kept for the checks to judge.
    """
    for path in list(out.iterdir()):
        status = path.lstat()
        special = not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode))
        if path.name == EVENTS_FILE and stat.S_ISDIR(status.st_mode):
            remove_tree(path)
        elif path.name != "artifacts" and (special or (stat.S_ISREG(status.st_mode) and status.st_nlink > 1)):
            path.unlink()


def plain_modes(out: Path) -> None:
    """Make a stage's output readable and writable for its owner, and clear set-user bits: folders get 0755, files 0644.
    Without root, files of other users are unchanged.
    """
    waiting = [str(out)]
    while waiting:
        folder = waiting.pop()
        with contextlib.suppress(OSError):
            os.chmod(folder, 0o755)
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_nlink == 1:
                    with contextlib.suppress(OSError):
                        os.chmod(entry.path, 0o644)


def chown_output(out: Path, user: int) -> None:
    """Give `out`, including the files of earlier attempts, to a user. Only root can; others leave owners unchanged."""
    if os.getuid() != 0:
        return
    os.chown(out, user, user)
    for _, folders, files, descriptor in os.fwalk(out):
        for name in (*folders, *files):
            os.chown(name, user, user, dir_fd=descriptor, follow_symlinks=False)
