"""Shared code for layouts of recordings: folders at and below a root, numbered files, poses from one file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.benchmarks.support.user_files import list_folder, read_text


def folders_with(root: Path, holds: Callable[[Path], bool], kind: str, expected: str) -> dict[str, Path]:
    """Map names to folders of the recordings at `root` or directly below it. Raises DataError, naming `kind` and the `expected`
    files, if there are none."""
    if holds(root):
        return {root.resolve().name: root}
    recordings = {p.name: p for p in list_folder(root) if p.is_dir() and holds(p)}
    if not recordings:
        raise DataError(f"{root}: no {kind}; expected {expected}")
    return recordings


def numbered_files(folder: Path, pattern: str) -> dict[int, Path]:
    """Map numbers to files, in order: those whose whole name matches `pattern`, by its first group."""
    matches = ((re.fullmatch(pattern, p.name, re.IGNORECASE), p) for p in list_folder(folder))
    return dict(sorted((int(match[1]), path) for match, path in matches if match))


def rows_of_numbers(path: Path, columns: int) -> NDArray[np.float64]:
    """Read (N, columns) float64 from a text file, skipping empty lines and text after #. Raises DataError naming file and
    line."""
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            row = [float(w) for w in words]
        except ValueError:
            row = []
        if len(row) != columns:
            raise DataError(f"{path}, line {number}: expected {columns} numbers, not {line[:40]!r}")
        rows.append(row)
    return np.array(rows, np.float64).reshape(-1, columns)


def pose_of_quaternion(
    translation: NDArray[np.float64], quaternion: NDArray[np.float64], where: str
) -> NDArray[np.float64]:
    """Pose (4, 4) from a translation (3,) and a unit quaternion (4,), x y z w. Raises DataError if its length is not 1."""
    length = float(np.linalg.norm(quaternion))
    if not abs(length - 1) < 0.01:
        raise DataError(f"{where}: the quaternion has length {length:.3g}; expected qx qy qz qw of length 1")
    x, y, z, w = quaternion / length
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = translation
    return pose
