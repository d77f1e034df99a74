"""The frames of one recording in their prepared form, and what is checked and computed over all of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.datasets import images
from pretrain_bench.benchmarks.datasets.gravity import format_up_problem, turn_to_z, world_up
from pretrain_bench.benchmarks.datasets.layout import UNLABELLED
from pretrain_bench.benchmarks.datasets.overlaps import overlaps
from pretrain_bench.benchmarks.datasets.recording_checks import aspect_problem, recording_problems
from pretrain_bench.benchmarks.datasets.recording_pairs import LONG_FRAMES, PENDING, frame_cloud
from pretrain_bench.benchmarks.datasets.sampled_frames import (
    SampledFrames,
    sample_depth,
    sampled_intrinsic,
    sampling_step,
)
from pretrain_bench.benchmarks.specs.dataset import UpChoice
from pretrain_bench.benchmarks.support.errors import DataError


class Reading(NamedTuple):
    """How a dataset is read: every `frame_stride`-th frame, whether a problem is an error, and what is up in a recording's world
    where its layout leaves that open."""

    frame_stride: int
    strict: bool
    up: UpChoice = "auto"


class SceneFrame(NamedTuple):
    """One decoded and checked frame, and its picture as it was stored; without a pose in a recording that has none."""

    number: int
    pose: NDArray[np.float64] | None
    picture: tuple[bytes, str]
    depth: NDArray[np.uint16]


class FrameSource(NamedTuple):
    """A recording as its reader gives it: its name, the intrinsics (3, 3) of its depth camera, its frames, whether the layout
    promises that z is up, and whether a recording with poses is refused where it is not sure what is up."""

    name: str
    intrinsic: NDArray[np.float64]
    frames: Iterable[SceneFrame]
    z_is_up: bool
    up_must_be_sure: bool = False


def write_frames(source: FrameSource, out: Path, how: Reading) -> dict[str, Any]:
    """Write pictures, intrinsics and frame numbers below `out`; and where there are poses, those, in a world with z up, and the
    pairs that overlap. Of a long recording the pairs are left to `recording_pairs.finish_pairs`.

    Returns what the scene holds, with the problems found.
    """
    view = out / UNLABELLED
    (view / "frames").mkdir(parents=True)
    poses: list[NDArray[np.float64]] = []
    samples: list[NDArray[np.float32]] = []
    clouds: list[NDArray[np.float64]] = []
    numbers: list[int] = []
    colour_sizes: set[tuple[int, int]] = set()
    depth_size = (0, 0)
    for frame in source.frames:
        stem, depth_size = f"{len(numbers):06d}", frame.depth.shape[::-1]
        (view / "frames" / f"{stem}{frame.picture[1]}").write_bytes(frame.picture[0])
        (view / "frames" / f"{stem}.depth.png").write_bytes(images.encode_depth(frame.depth))
        colour_sizes.add(images.picture_size(frame.picture[0], f"{source.name}, frame {frame.number}"))
        if frame.pose is not None:
            poses.append(frame.pose)
            samples.append(sample_depth(frame.depth))
            if len(poses) <= LONG_FRAMES:
                clouds.append(frame_cloud(frame.depth, frame.pose, source.intrinsic))
        numbers.append(frame.number)
    aspect = aspect_problem(source.name, depth_size, colour_sizes)
    problems = [] if aspect is None else [aspect]
    np.save(view / "intrinsic.npy", source.intrinsic)
    np.save(view / "frame_numbers.npy", np.array(numbers))
    held: dict[str, Any] = {"frames": len(numbers), "problems": problems}
    if not poses:
        held["up"] = "camera"
    else:
        intrinsic = sampled_intrinsic(source.intrinsic, sampling_step(depth_size))
        sampled = SampledFrames(np.stack(samples), np.stack(poses), intrinsic)
        problems += recording_problems(source.name, sampled)
        held |= _write_poses(source, sampled, view, how, problems)
        if len(poses) <= LONG_FRAMES:
            np.save(view / "pairs.npy", overlap := overlaps(clouds))
            held["pairs"] = len(overlap)
        else:
            np.save(out / PENDING, np.stack(poses))
    return held


def _write_poses(
    source: FrameSource, sampled: SampledFrames, view: Path, how: Reading, problems: list[str]
) -> dict[str, Any]:
    """Poses in a world with z up, and which way was up in the recorded one where it had to be turned."""
    up = None
    if source.z_is_up:
        problem = format_up_problem(source.name, sampled)
    else:
        up, problem = world_up(source.name, sampled, how.up)
        if problem is not None and source.up_must_be_sure:
            raise DataError(problem.replace("so z is assumed", "and its layout does not say"))
    problems += [] if problem is None else [problem]
    if up is None:
        np.save(view / "poses.npy", sampled.poses)
        return {}
    # Rounded far below a measurement, so that machines whose last bits differ write the same bytes.
    np.save(view / "poses.npy", np.round(turn_to_z(up) @ sampled.poses, 9))
    np.save(view / "world_up.npy", up)
    return {"world_up": up.tolist()}
