"""Reader of folders of RGB-D frames, in two layouts (spec E.2, G.1).

ScanNet export:  <scene>/color/<n>.jpg  depth/<n>.png  pose/<n>.txt  intrinsic/intrinsic_depth.txt (3x3 or 4x4)
7-Scenes:        <scene>/frame-<n>.color.{jpg,png}  .depth.png  .pose.txt  camera-intrinsics.txt (3x3 or 4x4)

`camera-intrinsics.txt` may also lie in the folder above. Depth is uint16 millimetres; 0 and 65535 mean none. A pose is a 4x4
camera-to-world matrix (camera: x right, y down, z forward). Colour and depth are assumed to be pixel-aligned; colour of another
size is resized to the depth image. The root may be one scene or a folder of scenes. A recording may have no poses.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.datasets import value_checks
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.benchmarks.support.user_files import by_lower_name, list_folder, read_text

MAX_METRES = 1e5
PATTERNS = ("*/color", "*/frame-*.color.*", "color", "frame-*.color.*")
"""Patterns that match in a folder of this layout."""
_COLOUR = r"\.(?:jpg|jpeg|png)"
_USUAL_NAMES = {
    "color": ("colour", "colors", "colours", "rgb", "image", "images"),
    "depth": ("depths", "depth_images"),
    "pose": ("poses", "extrinsics"),
    "intrinsic": ("intrinsics", "calibration", "camera"),
}
"""Folders of the ScanNet export, with other names that people use for them."""


class FramePaths(NamedTuple):
    """The files of one frame, and its number in the recording. The pose file may not exist; layouts that keep all poses in one
    file give the pose (4, 4) itself. `intrinsic` (3, 3) is set if cameras differ between frames; `confidence` is a picture of
    depth confidences, 0 to 2."""

    number: int
    colour: Path
    depth: Path
    pose: Path | NDArray[np.float64]
    intrinsic: NDArray[np.float64] | None = None
    confidence: Path | None = None


class Recording(NamedTuple):
    """One scene: its frames, by number, and the file with the depth camera's intrinsics."""

    name: str
    frames: list[FramePaths]
    intrinsic: Path


def find_recordings(root: Path) -> list[Recording]:
    """All scenes at or directly below `root`. Raises DataError if there are none, or if a file of a frame is missing."""
    folders = [root, *(p for p in list_folder(root) if p.is_dir())]
    recordings = [r for r in map(_recording, folders) if r]
    if not recordings:
        raise DataError(
            f"{root}: no RGB-D frames found; expected <scene>/color/, depth/, pose/, intrinsic/ (ScanNet export) or "
            f"<scene>/frame-*.color.jpg, .depth.png, .pose.txt (7-Scenes){_looks_like(folders)}"
        )
    names = [r.name for r in recordings]
    if len(names) != len(set(names)):
        raise DataError(f"{root}: it and a folder in it are both recordings named {root.name!r}; rename one of them")
    return recordings


def _recording(folder: Path) -> Recording | None:
    if (folder / "color").is_dir() and (folder / "depth").is_dir():
        colours = _numbered(folder / "color", rf"(\d+){_COLOUR}")
        depths, poses = by_lower_name(folder / "depth"), by_lower_name(folder / "pose")
        frames = [
            FramePaths(
                number,
                colour,
                depths.get(f"{colour.stem}.png", folder / "depth" / f"{colour.stem}.png"),
                poses.get(f"{colour.stem}.txt", folder / "pose" / f"{colour.stem}.txt"),
            )
            for number, colour in colours.items()
        ]
        intrinsic = folder / "intrinsic" / "intrinsic_depth.txt"
    else:
        colours, files = _numbered(folder, rf"frame-(\d+)\.color{_COLOUR}"), by_lower_name(folder)
        frames = []
        for number, colour in colours.items():
            stem = colour.name.split(".")[0]
            names = (f"{stem}.{ending}" for ending in ("depth.png", "pose.txt"))
            depth, pose = (files.get(n.lower(), folder / n) for n in names)
            frames.append(FramePaths(number, colour, depth, pose))
        own, above = folder / "camera-intrinsics.txt", folder.parent / "camera-intrinsics.txt"
        intrinsic = above if above.is_file() and not own.is_file() else own
    if not frames:
        return None
    return Recording(folder.name, frames, intrinsic)


def _numbered(folder: Path, pattern: str) -> dict[int, Path]:
    """Map the number in each file name that matches `pattern` to its file. Raises DataError if two files have one number (0.jpg
    and 000000.jpg), since either could be meant."""
    files: dict[int, Path] = {}
    for path in list_folder(folder):
        if match := re.fullmatch(pattern, path.name, re.IGNORECASE):
            number = int(match[1])
            if number in files:
                raise DataError(
                    f"{path}: frame {number} has another picture, {files[number].name}; keep the one that belongs to its "
                    "depth image"
                )
            files[number] = path
    return dict(sorted(files.items()))


def _looks_like(folders: list[Path]) -> str:
    """The end of a message: frames that the folders hold under other names or one level deeper."""
    for folder in folders:
        inside = {p.name.lower(): p.name for p in list_folder(folder) if p.is_dir()}
        renamed = {
            name: next((inside[other] for other in (name, *others) if other in inside), None)
            for name, others in _USUAL_NAMES.items()
        }
        if renamed["color"] and renamed["depth"]:
            wrong = [f"{given!r} to {name!r}" for name, given in renamed.items() if given and given != name]
            return f"; in {folder} rename {', '.join(wrong)}" if wrong else ""
        for name in inside.values():
            files = list_folder(folder / name)
            if any(p.name == "color" or re.fullmatch(rf"frame-\d+\.color{_COLOUR}", p.name) for p in files):
                return f"; frames found in {folder / name}: give {folder}"
    return ""


def read_matrix(path: Path, shapes: tuple[tuple[int, int], ...]) -> NDArray[np.float64]:
    """Read a whitespace-separated matrix of one of `shapes`; values may be infinite. Raises DataError otherwise."""
    expected = f"expected a matrix of {' or '.join(f'{r}x{c}' for r, c in shapes)} numbers"
    rows: list[list[float]] = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        try:
            rows += [[float(v) for v in line.split()]] if line.strip() else []
        except ValueError:
            comma = "; write decimals with a point" if re.search(r"\d,\d", line) else ""
            raise DataError(f"{path}: {expected}; line {number} is {line[:40]!r}{comma}") from None
    lengths = {len(row) for row in rows}
    if len(lengths) != 1 or (len(rows), *lengths) not in shapes:
        each = " or ".join(map(str, sorted(lengths))) or "no"
        raise DataError(f"{path}: {expected}; it has {len(rows)} rows of {each} numbers")
    return np.array(rows)


def read_intrinsic(path: Path) -> NDArray[np.float64]:
    """Read pinhole intrinsics (3, 3), in pixels of the depth image."""
    if not path.is_file():
        scene = path.parent.parent if path.parent.name == "intrinsic" else path.parent
        near = [p for folder in (scene, *list_folder(scene)) if folder.is_dir() for p in list_folder(folder, ".txt")]
        like = [str(p.relative_to(scene)) for p in near if not re.search("colou?r|extrin", p.name, re.IGNORECASE)]
        like = [name for name in like if re.search("intrin|calib", name, re.IGNORECASE)]
        like.sort(key=lambda name: ("depth" not in name, name))
        hint = f"; rename {like[0]} if it holds them" if like else ""
        raise DataError(f"{path}: no such file; the colour images of {scene.name} need these intrinsics{hint}")
    return value_checks.intrinsic(read_matrix(path, ((3, 3), (4, 4))), str(path))


def read_pose(path: Path) -> NDArray[np.float64] | None:
    """Read a camera-to-world pose (4, 4); None if tracking was lost (infinite or NaN entries; spec I-26)."""
    return sound_pose(read_matrix(path, ((4, 4),)), str(path))


def sound_pose(pose: NDArray[np.float64], name: str) -> NDArray[np.float64] | None:
    """Return the pose, or None if it is not finite. Raises DataError, naming `name`, if it is not rigid or absurdly far away."""
    if not np.isfinite(pose).all():
        return None
    if np.abs(pose).max() > MAX_METRES:
        raise DataError(f"{name}: the pose lies {np.abs(pose).max():g} m away; expected metres")
    return value_checks.rigid(pose, name, "the camera-to-world pose")
