"""What the files of a source look like, to find again what was prepared from them."""

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
"""The content of at most this many files is read, spread evenly over a larger source."""


class SourceFile(NamedTuple):
    """A file of a source: its path as it was found, its path below the root in the bytes of the file system (names need not be
    UTF-8), its size, and its time of change in nanoseconds."""

    path: Path
    name: bytes
    size: int
    changed: int


def source_files(root: Path, but: Path) -> Iterator[SourceFile]:
    """Every file below `root`, also behind links, without those of operating systems and those below `but`.

    Raises DataError for a folder that cannot be listed, for a file that cannot be looked at, and for a link that leads nowhere
    and has the name of a folder.
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
                        f"{path}: a link to {os.readlink(path)}, which is not there; mount that folder, or remove the link"
                    ) from None
                continue
            except OSError as error:
                raise cannot_read(path, error) from error
            yield SourceFile(path, os.fsencode(path.relative_to(root)), stat.st_size, stat.st_mtime_ns)


def source_digest(root: Path, but: Path) -> str:
    """A hash of the names, sizes, times and (in part) contents of the files of a source.

    Archives and object stores may give a changed file its old size and time, so files up to SMALL_BYTES are read whole, of larger
    ones the first, middle and last BLOCK_BYTES. That proves nothing; `bench data verify --source` compares everything.
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
    """Content of a file, whole or in three places; nothing where it cannot be read, which its reader will report."""
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
