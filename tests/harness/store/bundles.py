"""Unpack bundles and repack them with changes."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import zstandard

from pretrain_bench.harness.store.bundle import unpack


def members(archive: Path) -> dict[str, bytes]:
    with archive.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
        tar_file = io.BytesIO(stream.read())
    with tarfile.open(fileobj=tar_file) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar.getmembers() if m.isfile()}  # type: ignore[union-attr]


def unpacked(archive: Path, folder: Path) -> dict[str, bytes]:
    """The files of a bundle unpacked into an empty folder; events are whole, unlike those of `members`."""
    folder.mkdir()
    unpack(archive, folder)
    return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def repack(target: Path, files: dict[str, bytes], extra: list[tarfile.TarInfo] | None = None) -> Path:
    tar_file = io.BytesIO()
    with tarfile.open(fileobj=tar_file, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        for entry in extra or []:
            tar.addfile(entry)
    target.write_bytes(zstandard.ZstdCompressor().compress(tar_file.getvalue()))
    return target
