"""Measure the unpacked size of zip archives before unpacking them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import BinaryIO

from pretrain_bench.benchmarks.support.errors import DataError

ALWAYS_BYTES, MOST_RATIO = 64 << 20, 4
"""A PyTorch file may unpack to the larger of ALWAYS_BYTES and MOST_RATIO times its size. torch stores tensors uncompressed, and
compressing weights saves only about a tenth."""


def unpacked_bytes(file: BinaryIO) -> int:
    """Bytes of all members of a zip archive when unpacked, by its directory. Raises zipfile.BadZipFile, OSError."""
    with zipfile.ZipFile(file) as archive:
        return sum(member.file_size for member in archive.infolist())


def check_torch_file(path: Path) -> None:
    """Refuse a PyTorch file that unpacks to much more than its size, before torch reads it. Files that are not zip archives
    (torch before 1.6) store tensors uncompressed, and pass.

    Raises DataError with both sizes, or if the list of members cannot be read, and OSError if the file cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        try:
            unpacked = unpacked_bytes(file)
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            if not zipfile.is_zipfile(file):
                return
            raise DataError(
                f"{path}: refused: its list of members cannot be read, so its size is unknown: {error}"
            ) from None
    if unpacked > max(ALWAYS_BYTES, MOST_RATIO * size):
        raise DataError(
            f"{path}: refused: its {size:,} bytes unpack to {unpacked:,}, but files from torch.save unpack to about their size. "
            "If you trust the file, load it and save it again with torch.save"
        )
