"""Read a user's data: an unreadable file or folder raises an error that names it. It is never treated as empty, nor reported as a
write error.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pretrain_bench.benchmarks.support.errors import BenchError, DataError, cannot_write

_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


def cannot_read(path: Path | str, error: OSError) -> DataError:
    """The error for an unreadable file or folder of the user's data, with what to do next."""
    reason = error.strerror or str(error)
    if error.errno == errno.ESTALE:
        reason += "; its network file system was remounted or is gone: mount it again"
    elif error.errno in (errno.EACCES, errno.EPERM):
        reason += "; make it readable, or move it out of the data folder"
    return DataError(f"{path}: cannot be read: {reason}")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Wrap code that reads below `path` and writes nothing. Raises DataError if the operating system refuses."""
    try:
        yield
    except OSError as error:
        raise cannot_read(_name(error) or path, error) from error


def read_or_write_error(error: OSError, source: Path, target: Path, doing: str) -> BenchError:
    """The error of code that reads below `source` and writes below `target`, attributed by the file that the error names, else
    by its error number, else by a trial."""
    name = _name(error)
    if name is not None:
        at = Path(os.path.abspath(name))
        if at.is_relative_to(source) and not at.is_relative_to(target.parent):
            return cannot_read(name, error)
        return cannot_write(target, error, doing)
    if error.errno in _WRITING or not _can_write(target):
        return cannot_write(target, error, doing)
    return cannot_read(source, error)


def _name(error: OSError) -> str | None:
    return os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes, os.PathLike)) else None


def _can_write(target: Path) -> bool:
    there = next((p for p in target.parents if p.is_dir()), None)
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"\0" * 4096)
            file.flush()
    except OSError:
        return False
    return True
