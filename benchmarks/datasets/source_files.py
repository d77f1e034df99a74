"""Recognise an unchanged source by its files, to reuse the dataset that was prepared from it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.benchmarks.support.reading import cannot_read
from pretrain_bench.benchmarks.support.user_files import is_system_file

SMALL_BYTES = 1 << 16
BLOCK_BYTES = 1 << 12
MOST_FILES_READ = 10_000
"""Number of files whose content is read, spread evenly over a larger source."""


class SourceFile(NamedTuple):
    """A file of a source: its path, its path below the root as raw bytes (names need not be UTF-8), its size, and its
    modification time in nanoseconds."""

    path: Path
    name: bytes
    size: int
    changed: int


def source_files(root: Path, but: Path) -> Iterator[SourceFile]:
    """Yield every file below `root`, following links, except operating system files and those below `but`.

    Raises DataError for a folder that cannot be listed, a file that cannot be inspected, and a broken link with the name of a
    folder.
    """

    def refuse(error: OSError) -> None:
        raise cannot_read(error.filename or root, error)

    seen, skipped = set(), but.resolve()
    for folder, names, files in os.walk(root, onerror=refuse, followlinks=True):
        real = Path(folder).resolve()
        if real in seen or real == skipped:
            names.clear()
            continue
        seen.add(real)
        names[:] = [n for n in names if not is_system_file(n)]
        for file in files:
            path = Path(folder) / file
            if is_system_file(file):
                continue
            try:
                stat = path.stat()
            except FileNotFoundError:
                if path.is_symlink() and not path.suffix:
                    raise DataError(
                        f"{path}: a link to {os.readlink(path)}, which does not exist; mount that folder, or remove the link"
                    ) from None
                continue
            except OSError as error:
                raise cannot_read(path, error) from error
            yield SourceFile(path, os.fsencode(path.relative_to(root)), stat.st_size, stat.st_mtime_ns)


def source_digest(root: Path, but: Path) -> str:
    """Hash the names, sizes, times and (partly) contents of a source's files.

    Archives and object stores may give a changed file its old size and time. Files up to SMALL_BYTES are therefore read whole,
    and larger ones at three places of BLOCK_BYTES. This can miss a change; `bench data verify --source` compares everything.
    """
    files = sorted(source_files(root, but), key=lambda file: file.name)
    digest = hashlib.sha256()
    step = -(-len(files) // MOST_FILES_READ) or 1
    for number, file in enumerate(files):
        digest.update(file.name + f" {file.size} {file.changed}\n".encode())
        if number % step == 0:
            digest.update(_sample(file))
    return digest.hexdigest()


def _sample(file: SourceFile) -> bytes:
    """Content of a file, whole or at three places; empty if it cannot be read, which its reader will report."""
    try:
        with file.path.open("rb") as content:
            if file.size <= SMALL_BYTES:
                return content.read()
            parts = []
            for place in (0, file.size // 2, file.size - BLOCK_BYTES):
                content.seek(place)
                parts.append(content.read(BLOCK_BYTES))
            return b"".join(parts)
    except OSError:
        return b""
