"""Reader of ARKitScenes, raw and 3dod (spec 3.6).

    {Training,Validation}/<id>/[<id>_frames/]{lowres_wide, lowres_depth, confidence}/<id>_<t>.png
    .../lowres_wide_intrinsics/<id>_<t>.pincam      .../lowres_wide.traj: t, axis-angle, translation, world to camera

Depth is in millimetres, z is up. Each frame takes the pose within 0.005 s and the intrinsics within 0.001 s of it; frames without
both are left out. Depth below medium confidence is dropped. Intrinsics differ between frames: all frames are resampled to
those of the first. Boxes (`<id>_3dod_annotation.json`) are not read.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.datasets.frame_writer import Reading
from pretrain_bench.benchmarks.datasets.layouts.posed_frames import rows_of_numbers
from pretrain_bench.benchmarks.datasets.recordings import Calibration, pinhole, with_sensor, write_calibrated
from pretrain_bench.benchmarks.datasets.rgbd_folder import FramePaths, Recording
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.benchmarks.support.user_files import list_folder

PICTURES, TRAJECTORY = "lowres_wide", "lowres_wide.traj"
_PLACES = ("", "*/", "*/*/", "*/*/*/", "*/*/*/*/")
PATTERNS = tuple(f"{place}{TRAJECTORY}" for place in _PLACES)
POSE_SECONDS, INTRINSIC_SECONDS = 0.005, 0.001
_ROUNDING = 1e-6


class Video(NamedTuple):
    """The folder of a video's pictures. `test`: whether it is in Validation; None if its path names neither part."""

    folder: Path
    test: bool | None


def find(dataset: Dataset, root: Path) -> dict[str, Any]:
    """Map video numbers to videos. Raises DataError if there are none."""
    videos: dict[str, Any] = {}
    for path in sorted(p for pattern in PATTERNS for p in root.glob(pattern)):
        folder = path.parent.resolve()
        parts = set(folder.parts)
        test = "Validation" in parts if parts & {"Training", "Validation"} else None
        videos[folder.name.removesuffix("_frames")] = Video(path.parent, test)
    if not videos:
        raise DataError(f"{root}: no video of ARKitScenes; expected <id>/{PICTURES}/ and <id>/{TRAJECTORY}")
    return videos


def write(dataset: Dataset, video: Video, out: Path, how: Reading) -> dict[str, Any]:
    """Write the frames that have colour, depth, intrinsics and a pose."""
    folder = video.folder
    name = folder.resolve().name.removesuffix("_frames")
    rows = rows_of_numbers(folder / TRAJECTORY, 7)
    colours, depths, sure = (_by_time(folder / part, ".png") for part in (PICTURES, "lowres_depth", "confidence"))
    cameras = _by_time(folder / f"{PICTURES}_intrinsics", ".pincam")
    frames = []
    for number, (time, colour) in enumerate(colours.items()):
        pose = _nearest(rows[:, 0], time, POSE_SECONDS)
        camera = _nearest(np.array(list(cameras)), time, INTRINSIC_SECONDS)
        if pose is None or camera is None or time not in depths:
            continue
        intrinsic = read_pincam(list(cameras.values())[camera])
        to_camera = pose_of_axis_angle(rows[pose, 1:4], rows[pose, 4:])
        to_world = np.asarray(np.linalg.inv(to_camera), np.float64)
        frames.append(FramePaths(number, colour, depths[time], to_world, intrinsic, sure.get(time)))
    if not frames:
        raise DataError(f"{folder}: no picture of {PICTURES}/ has a depth image, intrinsics and a pose near its time")
    first = frames[0].intrinsic
    assert first is not None
    where = f"{folder / f'{PICTURES}_intrinsics'}, first frame"
    calibration = with_sensor(Calibration(first, where), dataset.sensor, dataset.name)
    held = write_calibrated(Recording(name, frames, folder / TRAJECTORY), calibration, out, how)
    if lost := len(colours) - len(frames):
        held["problems"].append(
            f"{name}: {lost} of {len(colours)} pictures lack depth, intrinsics or a pose near their time; they are left out"
        )
    return {**held, "test": video.test}


def read_pincam(path: Path) -> NDArray[np.float64]:
    """Read intrinsics (3, 3) from a line "width height fx fy cx cy"."""
    rows = rows_of_numbers(path, 6)
    if len(rows) != 1:
        raise DataError(f"{path}: {len(rows)} lines; expected one, width height fx fy cx cy")
    return pinhole(*rows[0, 2:])


def pose_of_axis_angle(turn: NDArray[np.float64], translation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pose (4, 4) from an axis times an angle in radians (3,) and a translation (3,), by Rodrigues' formula."""
    angle = float(np.linalg.norm(turn))
    pose = np.eye(4)
    if angle > 0:
        x, y, z = turn / angle
        across = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        pose[:3, :3] += np.sin(angle) * across + (1 - np.cos(angle)) * across @ across
    pose[:3, 3] = translation
    return pose


def _by_time(folder: Path, suffix: str) -> dict[float, Path]:
    """Map the times in seconds of the files <id>_<t> in a folder to their paths, in order."""
    matches = ((re.fullmatch(r"\d+_(\d+\.\d+)", p.stem), p) for p in list_folder(folder, suffix))
    return dict(sorted((float(match[1]), path) for match, path in matches if match))


def _nearest(times: NDArray[np.float64], time: float, most: float) -> int | None:
    """The index of the nearest time; None if it is more than `most` seconds away."""
    if not len(times):
        return None
    place = int(np.abs(times - time).argmin())
    return place if abs(times[place] - time) <= most + _ROUNDING else None
