"""Reading the folders and text files of a user: what an operating system adds is passed over, errors name the file."""

from __future__ import annotations

import codecs
import stat
from pathlib import Path

from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.benchmarks.support.files import read_bytes
from pretrain_bench.benchmarks.support.reading import cannot_read

MOST_TEXT_BYTES = 64 << 20
"""Poses of the longest public recordings take 2 MB; numbers take thirty times their text in memory."""
SYSTEM_NAMES = frozenset(
    ("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "#recycle", "$recycle.bin", "lost+found",
     "system volume information")
)  # fmt: skip
"""Files and folders, in lower case, that Windows, macOS, Linux and network drives leave in any folder."""

_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def is_system_file(name: str) -> bool:
    """Whether a file or folder belongs to an operating system (`._x`, `.DS_Store`, `Thumbs.db`), not to a dataset. No official
    layout has hidden files, so every name that starts with a dot counts."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def list_folder(folder: Path, *suffixes: str) -> list[Path]:
    """What a folder holds, sorted by name, without files of the operating system.

    `suffixes`, in lower case and with their dots, keep only names that end so, in any case (`.JPG` is `.jpg`). A folder that
    does not exist is empty. Raises DataError naming the folder where it cannot be read.
    """
    try:
        paths = sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise cannot_read(folder, error) from None
    kept = [p for p in paths if not is_system_file(p.name)]
    return [p for p in kept if p.name.lower().endswith(suffixes)] if suffixes else kept


def by_lower_name(folder: Path) -> dict[str, Path]:
    """The files of a folder by their names in lower case; of two that differ in case alone, the one in lower case."""
    return {p.name.lower(): p for p in list_folder(folder)}


def elsewhere(root: Path, *patterns: str) -> str:
    """The folder, at most two further down or up, where files of a layout are, for the end of a message that there are none in
    `root`; empty where there is no such folder."""
    below = [(root, "*/" * depth) for depth in (1, 2)]
    for folder, prefix in [*below, *((above, "") for above in root.resolve().parents[:2])]:
        for pattern in patterns:
            place = next(iter(folder.glob(prefix + pattern)), None)
            if place is not None:
                return (
                    f"; give {folder.joinpath(*place.relative_to(folder).parts[: prefix.count('/')])}, which holds some"
                )
    return ""


def read_text(path: Path) -> str:
    """A text file of the user's. Raises DataError as `decode`, where the file cannot be read, and for one of more than
    MOST_TEXT_BYTES."""
    try:
        status = path.stat()
    except OSError as error:
        raise cannot_read(path, error) from None
    plain = stat.S_ISREG(status.st_mode)
    if status.st_size > MOST_TEXT_BYTES or not plain:
        kind = f"a text of {status.st_size:,} bytes" if plain else "not a plain file"
        raise DataError(f"{path}: {kind}; expected a file of at most {MOST_TEXT_BYTES >> 20} MiB")
    return decode(read_bytes(path), path)


def decode(content: bytes, path: Path) -> str:
    """Text in UTF-8, with or without a byte order mark. Raises DataError naming the encoding that was found instead."""
    encoding = encoding_of(content)
    if encoding is not None:
        raise DataError(f"{path}: the text is encoded in {encoding}; save it in UTF-8 (iconv -f {encoding} -t UTF-8)")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: byte 0x{content[error.start]:02x} is not UTF-8; save the file in UTF-8 (from Latin-1: "
            "iconv -f ISO-8859-1 -t UTF-8)"
        ) from None


def encoding_of(content: bytes) -> str | None:
    """UTF-16 or UTF-32 where a text is in it by its byte order mark or by a zero byte in every second place, else None."""
    for mark, name in _MARKS:
        if content.startswith(mark):
            return name
    start = content[:400]
    zeros = max(start[0::2].count(0), start[1::2].count(0))
    return "UTF-16" if len(start) >= 8 and zeros > len(start) // 2 * 0.8 else None
