"""Bundles: a store packed into one file (.tar.zst), which can be read wherever a folder of runs can.

A bundle may come from a stranger. It is unpacked once, into a cache folder named by the file's hash; nothing in it is executed or
unpickled. Links, devices, sparse members, repeated names, names that leave the folder, files that do not belong in a store,
archives that unpack to too much, and files that differ from the bundle's own list are refused.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError
from pydantic_core import from_json

from pretrain_bench.benchmarks.specs.base import Spec
from pretrain_bench.benchmarks.support.errors import WrongUse, cannot_write
from pretrain_bench.benchmarks.support.files import cache_folder, copy_tree, remove_tree, replacing, size_and_sha256
from pretrain_bench.benchmarks.support.foreign_files import is_name_below, read_json, read_plain
from pretrain_bench.harness.contract.events import EVENTS_FILE
from pretrain_bench.harness.store.chain import CHAIN_FILE
from pretrain_bench.harness.store.short_events import SHORT_FILE, restored, shorten
from pretrain_bench.harness.store.store import KINDS, Store

FORMAT = 3
"""Version 1 had no confusion matrices, and version 2 whole events; both are still readable."""
SUFFIX = ".tar.zst"
CONTENTS, COUNTS, SIGNATURE = "bundle.json", "counts.json", "bundle.json.sig"
TOP_LEVEL = (*KINDS, CHAIN_FILE, CONTENTS, SIGNATURE)
MAX_BYTES, MAX_FILES = 8 << 30, 2_000_000
MAX_RATIO, ALWAYS_BYTES = 200, 64 << 20
"""An archive may unpack to the larger of this many times its own size and ALWAYS_BYTES."""
HEADER_BYTES = 1 << 20
"""Limit of the bytes between two members: headers, padding, and read-ahead."""
COMPRESSION_LEVEL = 19


class Contents(Spec):
    """The list of a bundle's files, and facts about the whole."""

    format: int
    anonymous: bool
    records: int
    merkle_root: str
    files: dict[str, str]


def is_bundle(path: Path) -> bool:
    """Whether a path names an existing bundle."""
    return path.name.endswith(SUFFIX) and path.is_file()


def bundle_name(path: Path) -> str:
    """The file name without its suffixes: `smoke` for smoke.bundle.tar.zst."""
    return path.name.removesuffix(SUFFIX).removesuffix(".bundle")


def open_store(path: Path) -> Store:
    """Open a folder of runs, or a bundle for reading. A missing folder is only reported by `Store.check`.

    Raises WrongUse for a file that is not a bundle or differs from its own list, and EnvironmentCannot for an unwritable cache.
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
                raise WrongUse(f"{path}: {name} {problem}; `bench audit {path}` lists all problems")
            scratch.chmod(0o755)  # for other users of the cache
            try:
                os.rename(scratch, unpacked)
            except OSError:
                if not unpacked.is_dir():  # otherwise another process was faster
                    raise
        finally:
            remove_tree(scratch)
    return Store(unpacked, bundle=path)


def _is_whole(folder: Path) -> bool:
    """Whether an unpacked bundle still has every listed file, since other programs may clean up a cache."""
    try:
        files = read_json(folder / CONTENTS, MAX_BYTES)["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return all((folder / name).is_file() for name in files)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a bundle into an empty folder, as read-only files. Raises WrongUse for a bundle that is damaged, too large, or holds
    anything but plain files of a store, and EnvironmentCannot if the folder cannot be written."""
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
                name = _name(member)
                _check_member(archive, member, name, names)
                names.add(name)
                metered.allow(member.size)
                unpacked += _extract(members, member, folder / name, most - unpacked) - member.size
    except (tarfile.TarError, zstandard.ZstdError, OSError, EOFError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise cannot_write(folder, error, "unpacking a bundle (BENCH_CACHE names another cache)") from None
        raise WrongUse(f"{archive}: cannot be unpacked: {error}") from None


def unpack_as_runs(archive: Path, runs: Path) -> Store:
    """Unpack a bundle into a new folder of runs, to add runs to them.

    Raises WrongUse for a bundle as `open_store` does, and if the folder exists and is not empty. Raises OSError if the folder
    cannot be written.
    """
    source = open_store(archive)
    if source.bundle is None:
        raise WrongUse(f"{archive}: not a bundle; expected a file that `bench audit --bundle FILE{SUFFIX}` wrote")
    if runs.exists() and (not runs.is_dir() or any(runs.iterdir())):
        raise WrongUse(f"{runs} exists and is not empty; name a new folder with --runs FOLDER")
    runs.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=runs.parent, prefix=f".{runs.name}."))
    try:
        copy_tree(source.root, scratch, _copy_of_store)
        scratch.chmod(0o755)
        os.rename(scratch, runs)
    finally:
        remove_tree(scratch)
    return Store(runs)


def _copy_of_store(source: Path, target: Path) -> None:
    """Copy a file of an unpacked bundle, unless only bundles have it."""
    if source.name not in (CONTENTS, COUNTS, SIGNATURE):
        shutil.copyfile(source, target)


class _Metered:
    """A stream that limits the size of a member's headers, which tarfile would otherwise read into memory without bound."""

    def __init__(self, stream: BinaryIO, archive: Path) -> None:
        self.stream, self.archive, self.left = stream, archive, HEADER_BYTES

    def allow(self, content_bytes: int) -> None:
        """Allow the content of a member whose header was read, plus the next header."""
        self.left = content_bytes + HEADER_BYTES

    def read(self, size: int) -> bytes:
        """Read the next bytes. Raises WrongUse beyond the allowance."""
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise WrongUse(f"{self.archive}: the header of a member is larger than {HEADER_BYTES:,} bytes")
        return data


def _name(member: tarfile.TarInfo) -> str:
    """The name that a member has once unpacked."""
    return f"{member.name.removesuffix(SHORT_FILE)}{EVENTS_FILE}" if _is_short(member) else member.name


def _is_short(member: tarfile.TarInfo) -> bool:
    return _is_of_run(member.name, SHORT_FILE)


def _is_of_run(name: str, file: str) -> bool:
    """Whether a name in an archive is that of a run's own file, and not of an artifact or of another file."""
    kind, _, rest = name.partition("/")
    return kind in KINDS and rest.partition("/")[2] == file


def _check_member(archive: Path, member: tarfile.TarInfo, name: str, names: set[str]) -> None:
    if not member.isfile() or member.issparse():
        raise WrongUse(f"{archive}: {member.name!r} is not a plain file")
    if not is_name_below(name) or name.partition("/")[0] not in TOP_LEVEL:
        raise WrongUse(f"{archive}: {member.name!r} is not the name of a file in a store")
    if name in names:
        raise WrongUse(f"{archive}: holds {name!r} twice")


def _extract(members: tarfile.TarFile, member: tarfile.TarInfo, target: Path, spare: int) -> int:
    """Write the content of a member; returns its bytes. Raises ValueError if they exceed its size by more than `spare`."""
    content = members.extractfile(member)
    assert content is not None
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "xb", opener=_read_only) as file:
        for block in restored(content) if _is_short(member) else iter(lambda: content.read(1 << 20), b""):
            file.write(block)
            if file.tell() > member.size + spare:
                raise ValueError("unpacks to more than is allowed")
        return file.tell()


def _read_only(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o444)


def read_contents(folder: Path, archive: Path) -> Contents:
    """Read the list in an unpacked bundle. Raises WrongUse if it is missing, damaged or of a newer version."""
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
    """Every file that is only in an unpacked bundle's list, only in its folder, or in both with different content: name and
    problem."""
    existing = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {CONTENTS, SIGNATURE}
    listed = set(contents.files)
    for name in sorted(listed - existing):
        yield name, "is listed but missing"
    for name in sorted(existing - listed):
        yield name, "is not listed"
    for name in sorted(existing & listed):
        if size_and_sha256(folder / name)[1] != contents.files[name]:
            yield name, "differs from its listed content"


def write_archive(folder: Path, target: Path) -> None:
    """Pack the files of a folder in sorted order, without this machine's times, owners or modes: equal files give equal
    archives. Events are shortened."""
    import zstandard

    with (
        replacing(target) as temporary,
        temporary.open("wb") as file,
        zstandard.ZstdCompressor(level=COMPRESSION_LEVEL, threads=-1).stream_writer(file) as stream,
        tarfile.open(fileobj=stream, mode="w|") as archive,
    ):
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            content, name = path.read_bytes(), path.relative_to(folder)
            if _is_of_run(name.as_posix(), EVENTS_FILE) and (short := shorten(content)) is not None:
                content, name = short, name.with_name(SHORT_FILE)
            entry = tarfile.TarInfo(name.as_posix())
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
