"""Read a user's folders and text files: skip files of operating systems, and name the file in errors."""

from __future__ import annotations

import codecs
import stat
from pathlib import Path

from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.benchmarks.support.files import read_bytes
from pretrain_bench.benchmarks.support.reading import cannot_read

MOST_TEXT_BYTES = 64 << 20
"""Poses of the longest public recordings take 2 MB; parsed numbers take thirty times the memory of their text."""
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
    """Whether a file or folder belongs to an operating system (`._x`, `.DS_Store`, `Thumbs.db`) instead of a dataset. No official
    layout has hidden files, so all names that start with a dot count."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def list_folder(folder: Path, *suffixes: str) -> list[Path]:
    """List a folder, sorted by name, without files of operating systems.

    `suffixes`, in lower case with dots, keep only names with these endings in any case (`.JPG` matches `.jpg`). A missing folder
    counts as empty. Raises DataError naming the folder if it cannot be read.
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
    """Map lower-case names to files of a folder; if two differ only in case, the lower-case one wins."""
    return {p.name.lower(): p for p in list_folder(folder)}


def elsewhere(root: Path, *patterns: str) -> str:
    """The end of a message about a missing layout in `root`: a folder at most two levels away that has it; empty if there is
    none."""
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
    """Read a user's text file. Raises DataError as `decode`, and if the file cannot be read or exceeds MOST_TEXT_BYTES."""
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
    """Decode UTF-8 with or without a byte order mark. Raises DataError naming the encoding found instead."""
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
    """UTF-16 or UTF-32 if a byte order mark or a zero in every second byte shows it, else None."""
    for mark, name in _MARKS:
        if content.startswith(mark):
            return name
    start = content[:400]
    zeros = max(start[0::2].count(0), start[1::2].count(0))
    return "UTF-16" if len(start) >= 8 and zeros > len(start) // 2 * 0.8 else None
