"""Reader of TUM RGB-D recordings (spec 3.4).

    rgb.txt, depth.txt: "timestamp path"     groundtruth.txt: "timestamp tx ty tz qx qy qz qw", camera to world, metres

Depth is in 1/5000 m, registered to colour. Colour, depth and pose are matched by the nearest time, within 0.02 s. For
freiburg1 to 3, recognised by the folder's name, cameras are those of ORB-SLAM2's TUM1 to TUM3.yaml and their distortion is
removed; for other recordings the dataset file must set `sensor.camera`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.datasets import images
from pretrain_bench.benchmarks.datasets.frame_writer import Reading
from pretrain_bench.benchmarks.datasets.layouts.posed_frames import folders_with, pose_of_quaternion, rows_of_numbers
from pretrain_bench.benchmarks.datasets.recordings import Calibration, pinhole, resized, with_sensor, write_calibrated
from pretrain_bench.benchmarks.datasets.rgbd_folder import FramePaths, Recording
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.benchmarks.support.user_files import read_text

PATTERNS = ("rgb.txt", "*/rgb.txt")
WIDTH, DEPTH_PER_METRE, MOST_SECONDS_APART = 640, 5000.0, 0.02
CAMERAS = {
    "freiburg1": (
        (517.306408, 516.469215, 318.643040, 255.313989),
        (0.262383, -0.953104, -0.005358, 0.002628, 1.163314),
    ),
    "freiburg2": (
        (520.908620, 521.007327, 325.141442, 249.701764),
        (0.231222, -0.784899, -0.003257, -0.000105, 0.917205),
    ),
    "freiburg3": ((535.4, 539.2, 320.1, 247.6), (0.0, 0.0, 0.0, 0.0, 0.0)),
}
"""Cameras by name: fx fy cx cy at 640 x 480, and distortion k1 k2 p1 p2 k3."""


def find(dataset: Dataset, root: Path) -> dict[str, Any]:
    """Find recordings: folders with rgb.txt and depth.txt."""
    return folders_with(
        root,
        lambda p: (p / "rgb.txt").is_file() and (p / "depth.txt").is_file(),
        "TUM RGB-D recording",
        "rgb.txt, depth.txt and groundtruth.txt in a folder",
    )


def write(dataset: Dataset, folder: Path, out: Path, how: Reading) -> dict[str, Any]:
    """Write the frames that have colour, depth and, if the recording has groundtruth.txt, a pose."""
    colours, depths = (_pictures(folder / name) for name in ("rgb.txt", "depth.txt"))
    matched = associate(np.array([t for t, _ in colours]), np.array([t for t, _ in depths]))
    poses = folder / "groundtruth.txt"
    frames = []
    rows = rows_of_numbers(poses, 8) if poses.is_file() else None
    for number, (i, j) in enumerate(matched):
        pose: Path | NDArray[np.float64] = poses
        if rows is not None:
            nearest = int(np.abs(rows[:, 0] - colours[i][0]).argmin()) if len(rows) else -1
            if nearest < 0 or abs(rows[nearest, 0] - colours[i][0]) > MOST_SECONDS_APART:
                continue
            pose = pose_of_quaternion(rows[nearest, 1:4], rows[nearest, 4:], f"{poses}, time {rows[nearest, 0]:.4f}")
        frames.append(FramePaths(number, colours[i][1], depths[j][1], pose))
    name = folder.resolve().name
    if not frames:
        raise DataError(f"{name}: no colour picture has a depth image and a pose within {MOST_SECONDS_APART} s")
    recording = Recording(name, frames, folder / "rgb.txt")
    held = write_calibrated(recording, _calibration(dataset, name, frames[0]), out, how)
    lost = len(colours) - len(frames)
    if lost:
        held["problems"].append(
            f"{name}: {lost} of {len(colours)} colour pictures have no depth image or pose within {MOST_SECONDS_APART} s; "
            "they are left out"
        )
    return held


def _calibration(dataset: Dataset, name: str, first: FramePaths) -> Calibration:
    known = next((k for k in CAMERAS if k in name), None)
    if known is None and dataset.sensor.camera is None:
        raise DataError(
            f"{name}: unknown camera; the folder's name contains none of {', '.join(CAMERAS)}. Give it in a dataset file: "
            "sensor: {camera: {width, height, fx, fy, cx, cy}} (`bench data init` writes one)"
        )
    numbers, distortion = CAMERAS[known or "freiburg3"]
    scale = images.picture_size(first.depth, str(first.depth))[0] / WIDTH
    calibration = Calibration(
        resized(pinhole(*numbers), scale),
        f"{name}, the published camera of {known}",
        distortion=distortion,
        depth_per_metre=DEPTH_PER_METRE,
        assumed=(f"intrinsics: those published for {known}",),
    )
    return with_sensor(calibration, dataset.sensor, dataset.name)


def associate(one: NDArray[np.float64], two: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Match times greedily, nearest first, each at most once: pairs (i, j) in the order of `one`."""
    if not len(one) or not len(two):
        return []
    order = np.argsort(two)
    place = np.searchsorted(two[order], one)
    near = [(i, int(order[k])) for i, p in enumerate(place) for k in (p - 1, p) if 0 <= k < len(two)]
    near = [(i, j) for i, j in near if abs(one[i] - two[j]) <= MOST_SECONDS_APART]
    taken: dict[int, int] = {}
    used: set[int] = set()
    for i, j in sorted(near, key=lambda pair: abs(one[pair[0]] - two[pair[1]])):
        if i not in taken and j not in used:
            taken[i] = j
            used.add(j)
    return sorted(taken.items())


def _pictures(path: Path) -> list[tuple[float, Path]]:
    """Read (time, file) from a list of pictures."""
    pictures = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or not re.fullmatch(r"\d+(\.\d*)?", words[0]):
            raise DataError(f"{path}, line {number}: expected a time and a path, not {line[:40]!r}")
        pictures.append((float(words[0]), path.parent / words[1]))
    return pictures
