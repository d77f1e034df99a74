"""Files beside a run's record that a page shows: confusion matrices, and pictures of predictions.

They are untrusted, since a store may come from elsewhere: links are not followed, sizes are limited, and a damaged file is
shown as a line of text.
"""

from __future__ import annotations

import base64
import errno
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pretrain_bench.benchmarks.support.foreign_files import read_json, read_plain
from pretrain_bench.harness.store.store import CONFUSION

PICTURES = "pictures"
MOST_COUNTS_BYTES, MOST_COUNT = 4 << 20, 1 << 53
MOST_PICTURES, MOST_PICTURE_BYTES = 3, 300_000
MOST_FILE_BYTES, MOST_PIXELS = 20 << 20, 10_000_000
SIDES = (1200, 960, 720, 480, 240)
"""Sizes of the longest side of a picture in pixels, tried in order until the file is small enough."""


class Unreadable(ValueError):
    """A file that is damaged or not of the expected kind; the message says why."""


class Confusion(NamedTuple):
    """Confusion matrix in per mille of each row's `totals`; rows are labels, columns predictions, counted on `level`."""

    level: str
    rows: list[list[int]]
    totals: list[int]


def confusion(folder: Path, checkpoint: str, level: str, classes: int) -> Confusion | None:
    """The matrix of one checkpoint, on `level` or else on voxels; None for a run without the file. Raises Unreadable."""
    try:
        payload = read_json(folder / CONFUSION, MOST_COUNTS_BYTES, folder)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise Unreadable(f"{CONFUSION} cannot be read: {_why(error)}") from None
    levels = payload.get(checkpoint) if isinstance(payload, dict) else None
    if not isinstance(levels, dict):
        raise Unreadable(f"{CONFUSION} has nothing of the {checkpoint} checkpoint")
    level = level if level in levels else "voxel"
    counts = _table(levels.get(level), classes)
    totals = [sum(row) for row in counts]
    rows = [[round(1000 * n / total) if total else 0 for n in row] for row, total in zip(counts, totals, strict=True)]
    return Confusion(level, rows, totals)


def _table(counts: Any, classes: int) -> list[list[int]]:
    """`counts` as classes by classes non-negative integers. Raises Unreadable for anything else."""
    if (
        isinstance(counts, list)
        and len(counts) == classes
        and all(isinstance(row, list) and len(row) == classes for row in counts)
        and all(type(n) is int and 0 <= n < MOST_COUNT for row in counts for n in row)
    ):
        return counts
    raise Unreadable(f"{CONFUSION} is not a table of counts, {classes} classes by {classes}")


def pictures(folder: Path) -> tuple[list[Path], int]:
    """The first PNG files of a run by name, and the number of further ones."""
    try:
        if (folder / PICTURES).is_symlink():
            return [], 0
        names = sorted(entry.name for entry in os.scandir(folder / PICTURES) if entry.name.endswith(".png"))
    except OSError:
        return [], 0
    return [folder / PICTURES / name for name in names[:MOST_PICTURES]], max(0, len(names) - MOST_PICTURES)


def picture_uri(path: Path) -> str:
    """A picture as a data URI, re-encoded, and shrunk if it is large. Raises Unreadable."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(read_plain(path, MOST_FILE_BYTES)), formats=("PNG",)) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                raise Unreadable(f"{opened.width} x {opened.height} pixels are too many")
            image = opened.convert("RGB")
        content = _png(image, SIDES)
    # A decoder may fail in many ways, which must not break the page.
    except Exception as error:
        raise Unreadable(_why(error)) from None
    return "data:image/png;base64," + base64.b64encode(content).decode()


def _png(image: Any, sides: Sequence[int]) -> bytes:
    for side in sides:
        image.thumbnail((side, side))
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        if buffer.tell() <= MOST_PICTURE_BYTES:
            return buffer.getvalue()
    raise Unreadable("it stays too large")  # unreachable: 240 x 240 pixels of three bytes are smaller


def _why(error: Exception) -> str:
    """An error as text of ours or the system's, without paths or file content."""
    if isinstance(error, Unreadable):
        return str(error)
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return "it is a link, and none is followed"
    if isinstance(error, OSError):
        return error.strerror or (str(error) if error.__class__ is OSError else "it is damaged")
    return "it is damaged"
