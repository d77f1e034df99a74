"""Small help with files."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from pretrain_bench.benchmarks.support.reading import cannot_read


def read_bytes(path: Path) -> bytes:
    """The content of a file of the user's. Raises DataError naming it where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise cannot_read(path, error) from None


def size_and_sha256(path: Path) -> tuple[int, str]:
    """Bytes and hash of a file as it is now, without holding it in memory. Raises OSError where it cannot be read, and for a pipe
    or a device, which might never end."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a plain file", str(path))
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), digest


def readable(text: str) -> str:
    """Text whose bytes of file names that are not UTF-8 are escaped, as `\\xfc`: JSON and most streams take no others."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # halves of characters that never were bytes of a name
        return text.encode("utf-8", "backslashreplace").decode()


def link_or_copy(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """A second name for a file where the file system has hard links, else a copy. Raises OSError where neither works."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno in NOT_FOR_WANT_OF_LINKS:
            raise
        shutil.copyfile(source, target)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The place beside `path` to write its new content to, which then replaces it at once; after an error nothing is left.

    Raises OSError where `path` is a folder, or its folder does not exist.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "Is a directory", str(path))
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.unlink(missing_ok=True)  # a link in its place would be written through
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def whole_folder(place: Path, unfinished: Path) -> Iterator[Path]:
    """A new folder below `unfinished` to fill, which becomes `place` by one rename once it is filled. Each process has its own,
    since one whose parent was killed may still be at work on the same `place`; the first that is done stays.

    Raises OSError where a folder cannot be made or renamed.
    """
    folder = unfinished / f"{place.name}.{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    yield folder
    place.parent.mkdir(exist_ok=True)
    if not place.is_dir():
        os.rename(folder, place)


def symlink_or_copy(source: Path, target: Path) -> None:
    """A symbolic link to a file or folder where the file system has them, else a copy. Raises OSError where neither works."""
    try:
        target.symlink_to(source)
    except OSError as error:
        if error.errno in NOT_FOR_WANT_OF_LINKS:
            raise
        if source.is_dir():
            copy_tree(source, target, link_or_copy)
        else:
            link_or_copy(source, target)


NOT_FOR_WANT_OF_LINKS = (errno.ENOSPC, errno.EDQUOT, errno.EEXIST, errno.ENOENT, errno.EROFS)
"""Errors of a link that a copy would meet as well. Without links they are others: EPERM, EACCES, EMLINK, ENOTSUP."""


def copy_tree(source: Path, target: Path, copy: Callable[[Path, Path], object] = shutil.copyfile) -> None:
    """Copy the files and folders below `source` to `target`, which may exist; without modes and times, which some file systems
    refuse to set. Raises OSError for the first file that cannot be copied."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.is_dir():
            copy_tree(path, target / path.name, copy)
        else:
            copy(path, target / path.name)


def notice_of_missing_links(folder: Path, *kinds: Literal["hard", "symbolic"]) -> str | None:
    """A line that says which of these links the file system of an existing folder lacks, so that files are copied; else None."""
    file, link = folder / f".probe-{os.getpid()}", folder / f".probe-{os.getpid()}-link"
    missing = []
    file.touch()
    try:
        for kind in kinds:
            try:
                os.link(file, link) if kind == "hard" else os.symlink(file, link)
                link.unlink()
            except OSError as error:
                missing += [kind] if error.errno not in NOT_FOR_WANT_OF_LINKS else []
    finally:
        file.unlink()
    if not missing:
        return None
    return (
        f"{folder}: no {' or '.join(missing)} links on this file system; files are copied, which takes time and space"
    )


def sync_tree(folder: Path) -> None:
    """Make a folder with everything in it survive a power cut. Raises OSError where the disk cannot take it."""
    for parent, _, files in os.walk(folder):
        for name in files:
            sync(Path(parent, name))
        sync(Path(parent))


def sync(path: Path) -> None:
    """Make a file's content, or the names in a folder, survive a power cut. Raises OSError where the disk cannot take it; some
    file systems cannot sync folders, which is ignored."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def remove_tree(path: Path) -> None:
    """Remove a folder of any depth; a stage may nest more folders than Python's own removal can."""
    try:
        shutil.rmtree(path, ignore_errors=True)
    except RecursionError:
        subprocess.run(["rm", "-rf", "--", str(path)], check=False)


def cache_folder() -> Path:
    """The folder of generated and prepared data and unpacked bundles: $BENCH_CACHE, or `bench` in the user's cache folder."""
    if named := os.environ.get("BENCH_CACHE"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "bench"
