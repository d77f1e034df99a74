"""Reader of folders of RGB-D frames, in two layouts (spec E.2, G.1).

ScanNet export:  <scene>/color/<n>.jpg  depth/<n>.png  pose/<n>.txt  intrinsic/intrinsic_depth.txt (3x3 or 4x4)
7-Scenes:        <scene>/frame-<n>.color.{jpg,png}  .depth.png  .pose.txt  camera-intrinsics.txt (3x3 or 4x4)

`camera-intrinsics.txt` may also lie in the folder above. Depth is uint16 millimetres, 0 and 65535 mean none. A pose is
a 4x4 camera-to-world matrix (camera: x right, y down, z forward). Colour and depth are taken as pixel-aligned; colour of
another size is resized to the depth image's. The root may be one scene or a folder of scenes. A recording
may have no poses.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.datasets import value_checks
from pretrain_bench.benchmarks.support.errors import DataError

MAX_METRES = 1e5


class FramePaths(NamedTuple):
    """The files of one frame, and its number in the recording; the pose may not be there."""

    number: int
    colour: Path
    depth: Path
    pose: Path


class Recording(NamedTuple):
    """One scene: its frames in the order of their numbers, and the file with the depth camera's intrinsics."""

    name: str
    frames: list[FramePaths]
    intrinsic: Path


def find_recordings(root: Path) -> list[Recording]:
    """All scenes at or directly below `root`. Raises DataError when there is none, or a file of a frame is missing."""
    found = [r for r in map(_recording, [root, *sorted(p for p in root.iterdir() if p.is_dir())]) if r]
    if not found:
        raise DataError(
            f"{root}: no RGB-D frames found; expected <scene>/color/, depth/, pose/, intrinsic/ (ScanNet export) or "
            "<scene>/frame-*.color.jpg, .depth.png, .pose.txt (7-Scenes)"
        )
    names = [r.name for r in found]
    if len(names) != len(set(names)):
        raise DataError(f"{root}: it and a folder in it are both recordings called {root.name!r}; rename one of them")
    return found


def _recording(folder: Path) -> Recording | None:
    if (folder / "color").is_dir() and (folder / "depth").is_dir():
        colours = {int(p.stem): p for p in (folder / "color").iterdir() if re.fullmatch(r"\d+\.(jpg|jpeg|png)", p.name)}
        frames = [
            FramePaths(n, c, folder / "depth" / f"{c.stem}.png", folder / "pose" / f"{c.stem}.txt")
            for n, c in sorted(colours.items())
        ]
        intrinsic = folder / "intrinsic" / "intrinsic_depth.txt"
    else:
        named = [(re.fullmatch(r"frame-(\d+)\.color\.(jpg|jpeg|png)", p.name), p) for p in sorted(folder.iterdir())]
        frames = [
            FramePaths(int(m[1]), p, folder / f"frame-{m[1]}.depth.png", folder / f"frame-{m[1]}.pose.txt")
            for m, p in named
            if m
        ]
        own, above = folder / "camera-intrinsics.txt", folder.parent / "camera-intrinsics.txt"
        intrinsic = above if above.is_file() and not own.is_file() else own
    if not frames:
        return None
    return Recording(folder.name, frames, intrinsic)


def read_matrix(path: Path, shapes: tuple[tuple[int, int], ...]) -> NDArray[np.float64]:
    """A whitespace-separated matrix of one of `shapes`. Values may be infinite. Raises DataError otherwise."""
    try:
        matrix = np.array([[float(v) for v in line.split()] for line in path.read_text().splitlines() if line.strip()])
    except (OSError, ValueError, UnicodeDecodeError):
        matrix = np.zeros((0, 0))
    if matrix.shape not in shapes:
        expected = " or ".join(f"{r}x{c}" for r, c in shapes)
        raise DataError(f"{path}: expected a matrix of {expected} numbers")
    return matrix


def read_intrinsic(path: Path) -> NDArray[np.float64]:
    """(3, 3) pinhole intrinsics in pixels of the depth image."""
    if not path.is_file():
        raise DataError(f"{path}: no such file, though {path.parent.name} has colour images that need it")
    return value_checks.intrinsic(read_matrix(path, ((3, 3), (4, 4))), str(path))


def read_pose(path: Path) -> NDArray[np.float64] | None:
    """(4, 4) camera-to-world, or None where tracking was lost (infinite or NaN entries; spec I-26)."""
    return sound_pose(read_matrix(path, ((4, 4),)), str(path))


def sound_pose(pose: NDArray[np.float64], name: str) -> NDArray[np.float64] | None:
    """The pose itself, None where it is not finite. Raises DataError, with `name`, where it is not rigid or absurdly far."""
    if not np.isfinite(pose).all():
        return None
    if np.abs(pose).max() > MAX_METRES:
        raise DataError(f"{name}: the pose lies {np.abs(pose).max():g} m away; expected metres")
    return value_checks.rigid(pose, name, "the camera-to-world pose")
