"""Bundles: a store packed into one file (.tar.zst), which can be read wherever a folder of runs can.

A bundle may come from a stranger. It is unpacked once, into a cache folder named by the hash of the file; nothing in it is
executed or unpickled. Refused are links, devices, sparse members, names that repeat or lead out of the folder, anything that is
not part of a store, archives that unpack to too much, and files whose content differs from the bundle's own list.
"""

from __future__ import annotations

import errno
import io
import os
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError
from pydantic_core import from_json

from pretrain_bench.benchmarks.specs.base import Spec
from pretrain_bench.benchmarks.support.errors import WrongUse, cannot_write
from pretrain_bench.benchmarks.support.files import cache_folder, remove_tree, replacing, size_and_sha256
from pretrain_bench.benchmarks.support.foreign_files import is_name_below, read_json, read_plain
from pretrain_bench.harness.store.chain import CHAIN_FILE
from pretrain_bench.harness.store.store import KINDS, Store

FORMAT = 2
"""Version 1 had no confusion matrices; it is read as well."""
SUFFIX = ".tar.zst"
CONTENTS, COUNTS, SIGNATURE = "bundle.json", "counts.json", "bundle.json.sig"
TOP_LEVEL = (*KINDS, CHAIN_FILE, CONTENTS, SIGNATURE)
MAX_BYTES, MAX_FILES = 8 << 30, 2_000_000
MAX_RATIO, ALWAYS_BYTES = 200, 64 << 20
"""An archive may unpack to this many times its own size, and to ALWAYS_BYTES however small it is."""
HEADER_BYTES = 1 << 20
"""Most that may stand between two members: headers, padding, and what the reader takes in advance."""
COMPRESSION_LEVEL = 10


class Contents(Spec):
    """The list of a bundle's files, and what it says about the whole."""

    format: int
    anonymous: bool
    records: int
    merkle_root: str
    files: dict[str, str]


def is_bundle(path: Path) -> bool:
    """Whether a path names an existing bundle."""
    return path.name.endswith(SUFFIX) and path.is_file()


def bundle_name(path: Path) -> str:
    """The file name without its endings: `smoke` for smoke.bundle.tar.zst."""
    return path.name.removesuffix(SUFFIX).removesuffix(".bundle")


def open_store(path: Path) -> Store:
    """Open a folder of runs, or a bundle for reading. A folder may be missing; `Store.check` tells.

    Raises WrongUse for a file that is not a bundle or differs from its own list, EnvironmentCannot for an unwritable cache.
    """
    if not path.is_file():
        return Store(path.resolve())
    try:
        _, digest = size_and_sha256(path)
    except OSError as error:
        raise WrongUse(f"{path}: cannot be read: {error.strerror}") from None
    bundles = cache_folder() / "bundles"
    unpacked = bundles / digest
    if unpacked.is_dir() and not _is_whole(unpacked):
        remove_tree(unpacked)
    if not unpacked.is_dir():
        try:
            bundles.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(dir=bundles))
        except OSError as error:
            raise cannot_write(bundles, error, "unpacking a bundle (BENCH_CACHE names another cache)") from None
        try:
            unpack(path, scratch)
            for name, problem in mismatches(scratch, read_contents(scratch, path)):
                raise WrongUse(f"{path}: {name} {problem}; `bench audit {path}` lists everything that is wrong with it")
            scratch.chmod(0o755)  # for other users of the cache
            try:
                os.rename(scratch, unpacked)
            except OSError:
                if not unpacked.is_dir():  # else another process was faster
                    raise
        finally:
            remove_tree(scratch)
    return Store(unpacked, bundle=path)


def _is_whole(folder: Path) -> bool:
    """Whether an unpacked bundle still has every file of its list: a cache may be tidied up by other programs."""
    try:
        files = read_json(folder / CONTENTS, MAX_BYTES)["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return all((folder / name).is_file() for name in files)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a bundle into an empty folder, as read-only files. Raises WrongUse for one that is damaged, too large, or holds
    anything but plain files of a store, EnvironmentCannot for a folder that cannot be written."""
    import zstandard

    most = min(MAX_BYTES, max(ALWAYS_BYTES, MAX_RATIO * archive.stat().st_size))
    try:
        with (
            archive.open("rb") as file,
            zstandard.ZstdDecompressor().stream_reader(file) as stream,
            tarfile.open(fileobj=(metered := _Metered(stream, archive)), mode="r|") as members,  # type: ignore[call-overload]
        ):
            unpacked, names = 0, set[str]()
            for member in members:
                unpacked += member.size
                if unpacked > most or len(names) == MAX_FILES:
                    raise WrongUse(f"{archive}: unpacks to more than {most:,} bytes or {MAX_FILES:,} files")
                _check_member(archive, member, names)
                names.add(member.name)
                metered.allow(member.size)
                _extract(members, member, folder)
    except (tarfile.TarError, zstandard.ZstdError, OSError, EOFError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise cannot_write(folder, error, "unpacking a bundle (BENCH_CACHE names another cache)") from None
        raise WrongUse(f"{archive}: cannot be unpacked: {error}") from None


class _Metered:
    """A stream that stops a member's headers from unpacking to gigabytes: tarfile reads them into memory unasked."""

    def __init__(self, stream: BinaryIO, archive: Path) -> None:
        self.stream, self.archive, self.left = stream, archive, HEADER_BYTES

    def allow(self, content_bytes: int) -> None:
        """A member's header was read; its content and the next header may follow."""
        self.left = content_bytes + HEADER_BYTES

    def read(self, size: int) -> bytes:
        """Read on. Raises WrongUse beyond what is allowed."""
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise WrongUse(f"{self.archive}: the header of a member is larger than {HEADER_BYTES:,} bytes")
        return data


def _check_member(archive: Path, member: tarfile.TarInfo, names: set[str]) -> None:
    if not member.isfile() or member.issparse():
        raise WrongUse(f"{archive}: {member.name!r} is not a plain file")
    if not is_name_below(member.name) or member.name.partition("/")[0] not in TOP_LEVEL:
        raise WrongUse(f"{archive}: {member.name!r} is not the name of a file in a store")
    if member.name in names:
        raise WrongUse(f"{archive}: holds {member.name!r} twice")


def _extract(members: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    content, target = members.extractfile(member), folder / member.name
    assert content is not None
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "xb", opener=_read_only) as file:
        while block := content.read(1 << 20):
            file.write(block)


def _read_only(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o444)


def read_contents(folder: Path, archive: Path) -> Contents:
    """The list in an unpacked bundle. Raises WrongUse where it is missing, damaged or of a newer version."""
    try:
        text = read_plain(folder / CONTENTS, MAX_BYTES)
        version = from_json(text)["format"]
        if isinstance(version, int) and version > FORMAT:
            raise WrongUse(f"{archive}: made by a newer version (format {version}, this one reads up to {FORMAT})")
        return Contents.model_validate_json(text)
    except (OSError, ValueError, KeyError, TypeError) as error:
        text_of = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise WrongUse(f"{archive}: {CONTENTS} is missing or damaged, so this is not a bundle: {text_of}") from None


def mismatches(folder: Path, contents: Contents) -> Iterator[tuple[str, str]]:
    """Every file that an unpacked bundle lists and does not hold, holds and does not list, or holds with another content: its
    name, and the problem in words."""
    existing = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {CONTENTS, SIGNATURE}
    listed = set(contents.files)
    for name in sorted(listed - existing):
        yield name, "is listed and missing"
    for name in sorted(existing - listed):
        yield name, "is not listed"
    for name in sorted(existing & listed):
        if size_and_sha256(folder / name)[1] != contents.files[name]:
            yield name, "has another content than listed"


def write_archive(folder: Path, target: Path) -> None:
    """Pack the files of a folder, sorted and without times, owners or modes of this machine: equal files give equal archives."""
    import zstandard

    with (
        replacing(target) as temporary,
        temporary.open("wb") as file,
        zstandard.ZstdCompressor(level=COMPRESSION_LEVEL).stream_writer(file) as stream,
        tarfile.open(fileobj=stream, mode="w|") as archive,
    ):
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            content = path.read_bytes()
            entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
