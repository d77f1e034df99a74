"""Reader of recordings from Open3D's recorder and reconstruction system, also of Redwood (spec 3.5).

    color/NNNNNN.jpg   depth/NNNNNN.png, registered to colour
    camera_intrinsic.json: {width, height, intrinsic_matrix: 9 numbers, column by column}
    scene/trajectory.log: blocks of five lines, three whole numbers and a 4 x 4 matrix, camera to world

Depth is in 1/1000 m unless the dataset file sets `sensor.depth_per_metre`: the unit is not stored. The world is the first
camera's frame, so the up direction must be evident from cameras and floor, or given (`--up`, `sensor.up`); otherwise poses are
refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.datasets import value_checks
from pretrain_bench.benchmarks.datasets.frame_writer import Reading
from pretrain_bench.benchmarks.datasets.layouts.posed_frames import folders_with, numbered_files
from pretrain_bench.benchmarks.datasets.recordings import MILLIMETRES, Calibration, with_sensor, write_calibrated
from pretrain_bench.benchmarks.datasets.rgbd_folder import FramePaths, Recording
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.benchmarks.support.user_files import read_text

INTRINSIC, TRAJECTORY = "camera_intrinsic.json", "scene/trajectory.log"
PATTERNS = (INTRINSIC, f"*/{INTRINSIC}")


def find(dataset: Dataset, root: Path) -> dict[str, Any]:
    """Find recordings: folders with color/, depth/ and camera_intrinsic.json."""
    return folders_with(
        root,
        lambda p: (p / "color").is_dir() and (p / INTRINSIC).is_file(),
        "Open3D recording",
        f"color/, depth/ and {INTRINSIC} in a folder",
    )


def write(dataset: Dataset, folder: Path, out: Path, how: Reading) -> dict[str, Any]:
    """Write frames; if there is a trajectory, frames missing from it are left out."""
    name, log = folder.resolve().name, folder / TRAJECTORY
    colours = numbered_files(folder / "color", r"(\d+)\.(?:jpe?g|png)")
    poses = read_trajectory(log) if log.is_file() else {}
    # The trajectory numbers frames from 0, whatever the numbers in their file names.
    numbered = [(place, number, path) for place, (number, path) in enumerate(colours.items())]
    kept = [row for row in numbered if not poses or row[0] in poses]
    frames = [FramePaths(n, p, folder / "depth" / f"{p.stem}.png", poses.get(place, log)) for place, n, p in kept]
    if not frames:
        raise DataError(f"{folder / 'color'}: no picture NNNNNN.jpg with a pose in {TRAJECTORY}")
    calibration = Calibration(
        read_intrinsic(folder / INTRINSIC),
        str(folder / INTRINSIC),
        assumed=() if dataset.sensor.depth_per_metre else (f"depth: 1/{MILLIMETRES:g} m",),
    )
    calibration = with_sensor(calibration, dataset.sensor, dataset.name)
    held = write_calibrated(Recording(name, frames, folder / INTRINSIC), calibration, out, how, up_must_be_sure=True)
    if len(kept) < len(numbered):
        held["problems"].append(
            f"{log}: {len(numbered) - len(kept)} of {len(numbered)} frames have no pose; they are left out"
        )
    return held


def read_intrinsic(path: Path) -> NDArray[np.float64]:
    """Read intrinsics (3, 3) from camera_intrinsic.json, whose matrix is stored column by column."""
    try:
        matrix = np.array(json.loads(read_text(path))["intrinsic_matrix"], np.float64).reshape(3, 3).T
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: expected intrinsic_matrix, 9 numbers column by column: {error!r}") from None
    return value_checks.intrinsic(matrix, str(path))


def read_trajectory(path: Path) -> dict[int, NDArray[np.float64]]:
    """Map frame indices to camera-to-world poses (4, 4)."""
    lines = [line.split() for line in read_text(path).splitlines() if line.strip()]
    poses: dict[int, NDArray[np.float64]] = {}
    for start in range(0, len(lines), 5):
        try:
            place = int(lines[start][0])
            poses[place] = np.array([[float(v) for v in row] for row in lines[start + 1 : start + 5]]).reshape(4, 4)
        except ValueError:
            raise DataError(
                f"{path}, block {start // 5 + 1}: expected three whole numbers, then four lines of four numbers"
            ) from None
    return poses
