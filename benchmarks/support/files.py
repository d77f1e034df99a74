"""Helpers for files."""

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
    """Read a user's file. Raises DataError naming it if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise cannot_read(path, error) from None


def size_and_sha256(path: Path) -> tuple[int, str]:
    """Current size in bytes and sha256 of a file, read in blocks. Raises OSError if it cannot be read, and for pipes and devices,
    which might never end."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a plain file", str(path))
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), digest


def readable(text: str) -> str:
    """Escape the bytes of file names that are not UTF-8, as `\\xfc`, which JSON and most streams require."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # lone surrogates that do not stand for bytes of a name
        return text.encode("utf-8", "backslashreplace").decode()


def link_or_copy(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Hard-link a file, or copy it if the file system has no hard links. Raises OSError if neither works."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno in NOT_FOR_WANT_OF_LINKS:
            raise
        shutil.copyfile(source, target)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` for its new content, which then replaces it atomically; after an error nothing is
    left.

    Raises OSError if `path` is a folder, or if its parent folder does not exist.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "Is a directory", str(path))
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.unlink(missing_ok=True)  # writing would follow a link in its place
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def whole_folder(place: Path, unfinished: Path) -> Iterator[Path]:
    """Yield a new folder below `unfinished` to fill; one rename then makes it `place`. Each process has its own folder, since
    a process with a killed parent may still work on the same `place`; the first to finish wins.

    Raises OSError if a folder cannot be created or renamed.
    """
    folder = unfinished / f"{place.name}.{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    yield folder
    place.parent.mkdir(exist_ok=True)
    if not place.is_dir():
        os.rename(folder, place)


def symlink_or_copy(source: Path, target: Path) -> None:
    """Symlink to a file or folder, or copy it if the file system has no symlinks. Raises OSError if neither works."""
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
"""Errors of linking that a copy would meet too. File systems without links report others: EPERM, EACCES, EMLINK, ENOTSUP."""


def copy_tree(source: Path, target: Path, copy: Callable[[Path, Path], object] = shutil.copyfile) -> None:
    """Copy the files and folders below `source` to `target`, which may exist, without modes and times, which some file systems
    refuse to set. Raises OSError for the first file that cannot be copied."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.is_dir():
            copy_tree(path, target / path.name, copy)
        else:
            copy(path, target / path.name)


def notice_of_missing_links(folder: Path, *kinds: Literal["hard", "symbolic"]) -> str | None:
    """A notice naming the kinds of links that a folder's file system lacks, so that files are copied instead; None otherwise."""
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
    """Flush a folder with all its content to disk, to survive a power cut. Raises OSError if the disk fails."""
    for parent, _, files in os.walk(folder):
        for name in files:
            sync(Path(parent, name))
        sync(Path(parent))


def sync(path: Path) -> None:
    """Flush a file's content, or the names in a folder, to disk, to survive a power cut. Raises OSError if the disk fails; file
    systems that cannot sync folders are ignored."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def remove_tree(path: Path) -> None:
    """Remove a folder of any depth; a stage may nest folders more deeply than Python's own removal supports."""
    try:
        shutil.rmtree(path, ignore_errors=True)
    except RecursionError:
        subprocess.run(["rm", "-rf", "--", str(path)], check=False)


def cache_folder() -> Path:
    """The folder for generated and prepared data and unpacked bundles: $BENCH_CACHE, or `bench` in the user's cache folder."""
    if named := os.environ.get("BENCH_CACHE"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "bench"
