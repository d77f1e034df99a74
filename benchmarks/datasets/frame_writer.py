"""Write the frames of one recording in prepared form, with the checks and results that need all frames."""

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
    """Reading options: keep every `frame_stride`-th frame, raise on problems (`strict`), and the up direction of recordings
    whose layout does not define one (`up`)."""

    frame_stride: int
    strict: bool
    up: UpChoice = "auto"


class SceneFrame(NamedTuple):
    """One decoded and checked frame with its encoded picture; `pose` is None if the recording has no poses."""

    number: int
    pose: NDArray[np.float64] | None
    picture: tuple[bytes, str]
    depth: NDArray[np.uint16]


class FrameSource(NamedTuple):
    """A recording as its reader yields it: name, depth intrinsics (3, 3), frames, whether the layout promises z up, and
    whether to refuse a recording with poses whose up direction is uncertain."""

    name: str
    intrinsic: NDArray[np.float64]
    frames: Iterable[SceneFrame]
    z_is_up: bool
    up_must_be_sure: bool = False


def write_frames(source: FrameSource, out: Path, how: Reading) -> dict[str, Any]:
    """Write pictures, intrinsics and frame numbers below `out`; with poses also the poses, in a world with z up, and the
    overlapping pairs. The pairs of a long recording are left to `recording_pairs.finish_pairs`.

    Returns the content of the scene's manifest entry, with the problems found.
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
    """Write poses in a world with z up, and the original up direction if the world had to be turned."""
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
    # Rounded far below measurement accuracy, so that machines whose last bits differ write the same bytes.
    np.save(view / "poses.npy", np.round(turn_to_z(up) @ sampled.poses, 9))
    np.save(view / "world_up.npy", up)
    return {"world_up": up.tolist()}
