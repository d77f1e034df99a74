"""Reader of folders of registered RGB-D frames, in two layouts (spec E.2, G.1).

ScanNet export:  <scene>/color/<n>.jpg  depth/<n>.png  pose/<n>.txt  intrinsic/intrinsic_depth.txt (3x3 or 4x4)
7-Scenes:        <scene>/frame-<n>.color.{jpg,png}  .depth.png  .pose.txt  camera-intrinsics.txt (3x3 or 4x4)

`camera-intrinsics.txt` may also lie in the folder above. Depth is uint16 millimetres, 0 and 65535 mean none. A pose is
a 4x4 camera-to-world matrix (camera: x right, y down, z forward). Colour and depth are taken as pixel-aligned; colour of
another size is resized to the depth image's. The root may be one scene or a folder of scenes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.errors import DataError


class FramePaths(NamedTuple):
    """The three files of one frame, and its number in the recording."""

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
    for path in (intrinsic, *(p for f in frames for p in (f.depth, f.pose))):
        if not path.is_file():
            raise DataError(f"{path}: no such file, though {folder} has colour images that need it")
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
    matrix = read_matrix(path, ((3, 3), (4, 4)))[:3, :3]
    if not np.isfinite(matrix).all() or matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
        raise DataError(f"{path}: the focal lengths must be positive, found {matrix[0, 0]:g} and {matrix[1, 1]:g}")
    return matrix


def read_pose(path: Path) -> NDArray[np.float64] | None:
    """(4, 4) camera-to-world, or None where tracking was lost (infinite or NaN entries; spec I-26)."""
    pose = read_matrix(path, ((4, 4),))
    if not np.isfinite(pose).all():
        return None
    if np.abs(pose[:3, :3].T @ pose[:3, :3] - np.eye(3)).max() > 1e-2:
        raise DataError(f"{path}: the upper left 3x3 block is not a rotation; expected a rigid camera-to-world pose")
    return pose


def check_depth(path: Path, expected: tuple[int, int] | None) -> tuple[int, int]:
    """(width, height) of a 16-bit depth image that decodes whole. Raises DataError, also where the size differs."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            mode, size = image.mode, image.size
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{path}: cannot be decoded: {error}") from None
    if not mode.startswith("I"):
        raise DataError(f"{path}: expected a 16-bit greyscale depth image in millimetres, found mode {mode}")
    if expected is not None and size != expected:
        raise DataError(
            f"{path}: depth image is {size[0]}x{size[1]}, the first of this scene is {expected[0]}x{expected[1]}"
        )
    return size


def check_colour(path: Path) -> None:
    """Raises DataError where a colour image does not decode whole."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.convert("RGB").load()
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{path}: cannot be decoded: {error}") from None
