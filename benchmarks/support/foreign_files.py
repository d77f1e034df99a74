"""Read untrusted files, from a stage or a received store or bundle: without following links, waiting for pipes, or exceeding size
limits."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from io import BufferedRandom, BufferedReader
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic_core import from_json

MOST_JSON_BYTES = 64 << 20
"""Largest record, spec or list to read: a record of 10,000 artifacts takes 2 MB."""
_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_plain(
    path: Path | str, flags: int = os.O_RDONLY, below: Path | None = None
) -> BufferedReader | BufferedRandom:
    """Open a plain file for reading (O_RDONLY) or for reading and writing (O_RDWR, with O_CREAT to create it).

    `below` is a folder above `path`; it may be a link itself, but no folder between the two may be one. Raises OSError for
    anything but a plain file.
    """
    descriptor = _open_plain(path, flags, below)
    return open(descriptor, "rb") if flags == os.O_RDONLY else open(descriptor, "r+b")


def _open_plain(path: Path | str, flags: int, below: Path | None) -> int:
    if below is None or os.fspath(below) == os.path.dirname(path):  # no folder between the two
        descriptor = os.open(path, flags | _FLAGS, 0o644)
    else:
        with _folder_of(Path(path), below) as folder:
            descriptor = os.open(os.path.basename(path), flags | _FLAGS, 0o644, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    return descriptor


def read_plain(path: Path | str, most: int = MOST_JSON_BYTES, below: Path | None = None) -> bytes:
    """Read a plain file of at most `most` bytes. Raises OSError for anything else, such as a link or a pipe."""
    descriptor = _open_plain(path, os.O_RDONLY, below)
    try:
        size = os.fstat(descriptor).st_size
        content = os.read(descriptor, min(size, most) + 1)  # one call for most files: a store may hold 50,000 records
        if len(content) != size:
            with open(descriptor, "rb", closefd=False) as file:
                content += file.read(most + 1 - len(content))
    finally:
        os.close(descriptor)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"larger than {most:,} bytes", str(path))
    return content


def read_json(path: Path | str, most: int = MOST_JSON_BYTES, below: Path | None = None) -> Any:
    """Read JSON from a plain file. Raises OSError as `read_plain`, and ValueError for invalid or too deeply nested JSON."""
    return from_json(read_plain(path, most, below))


def plain_size_and_sha256(path: Path, below: Path, most: int) -> tuple[int, str]:
    """Size in bytes and sha256 of a plain file. Raises OSError for anything else, and for more than `most` bytes without
    reading."""
    with open_plain(path, below=below) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            return size, ""
        return size, hashlib.file_digest(file, "sha256").hexdigest()


def is_plain(path: Path, below: Path) -> bool:
    """Whether a plain file exists at `path`, reached without links."""
    try:
        with _folder_of(path, below) as folder:
            return stat.S_ISREG(os.stat(path.name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False


def remove_plain(path: Path, below: Path) -> None:
    """Remove a file in `below`, reached without links; does nothing if it does not exist. Raises OSError."""
    with contextlib.suppress(FileNotFoundError), _folder_of(path, below) as folder:
        os.unlink(path.name, dir_fd=folder)


def is_name_below(text: str) -> bool:
    """Whether a text is a relative name of something below a folder, without `..` or empty parts."""
    path = PurePosixPath(text)
    return str(path) == text and bool(path.parts) and not path.is_absolute() and ".." not in path.parts


@contextlib.contextmanager
def _folder_of(path: Path, below: Path) -> Iterator[int]:
    """Yield a descriptor of the folder of `path`, reached from `below` without following links."""
    parts = path.parent.relative_to(below).parts
    if ".." in parts:
        raise OSError(errno.EINVAL, "leads out of its folder", str(path))
    descriptor = os.open(below, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)
