from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pretrain_bench.benchmarks.datasets.layout import read_manifest
from pretrain_bench.benchmarks.datasets.prepare import prepare
from pretrain_bench.benchmarks.datasets.recording_checks import aspect_problem, recording_problems, shared
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.harness.planning.catalog import find
from tests.benchmarks.datasets.room_recordings import Room, room, write

DATASET = find(Dataset, "rgbd-folder")


def inverted(recording: Room) -> Room:
    return recording._replace(poses=np.linalg.inv(recording.poses))


def deeper(recording: Room, scale: float) -> Room:
    return recording._replace(depth=recording.depth * scale)


def in_millimetres(recording: Room) -> Room:
    poses = recording.poses.copy()
    poses[:, :3, 3] *= 1000
    return recording._replace(poses=poses)


def far_apart(recording: Room) -> Room:
    """Each frame is at its own position, 20 m from the previous one."""
    poses = recording.poses.copy()
    poses[:, 0, 3] += 20 * np.arange(len(poses))
    return recording._replace(poses=poses)


SPOILT: dict[str, tuple[Callable[[Room], Room], str]] = {
    "inverse poses": (inverted, r"agree on \d+% of what they see, but on \d+% if poses are world-to-camera"),
    "depth in 1/5000 m": (lambda r: deeper(r, 5), r"1/5000 m.*median depth [\d.]+ m"),
    "depth in centimetres": (lambda r: deeper(r, 0.1), r"if depth is stored in centimetres"),
    "poses in millimetres": (in_millimetres, r"if poses are in millimetres.*\d+ m from frame to frame"),
    "frames that share nothing": (far_apart, r"neighbouring frames share 0% of what they see.*20\.?\d* m from frame"),
}


@pytest.mark.parametrize("kind", SPOILT)
@pytest.mark.parametrize("frames", [6, 16])
def test_a_spoilt_recording_is_named_with_numbers(kind: str, frames: int, tmp_path: Path) -> None:
    """A problem by default, an error with `strict`; the undamaged recording has neither."""
    spoil, said = SPOILT[kind]
    recording = room(frames, step_metres=0.2)
    assert recording_problems("scene", recording.sampled) == []
    root = write(spoil(recording), tmp_path / "root/scene").parent

    def ready(strict: bool) -> Path:
        return prepare(
            DATASET, root, tmp_path / "c", frame_stride=1, strict=strict, progress=lambda items: items, up="+z"
        )

    problems = "\n".join(read_manifest(ready(strict=False)).problems)
    assert re.search(said, problems) and "scene: " in problems and "median depth" in problems
    with pytest.raises(DataError, match="^scene: "):
        ready(strict=True)


@pytest.mark.parametrize(("turn", "step"), [(0, 0), (0, 0.2), (12, 0), (25, 0.3)])
def test_a_sound_recording_has_no_problem(turn: float, step: float) -> None:
    """A camera that stands, walks, turns or jumps; alone or among a few others."""
    for frames in (1, 2, 3, 12):
        assert recording_problems("rec", room(frames, turn_degrees=turn, step_metres=step).sampled) == []


def test_a_noisy_recording_has_no_problem() -> None:
    """With holes, 2 % noise, and poses that drift by 2 cm and half a degree per frame."""
    rng = np.random.default_rng(0)
    recording = room(16, step_metres=0.2)
    depth = recording.depth * rng.normal(1, 0.02, recording.depth.shape) * (rng.random(recording.depth.shape) > 0.3)
    poses = recording.poses.copy()
    poses[:, :3, 3] += rng.normal(0, 0.02, (16, 3))
    assert recording_problems("rec", Room(np.maximum(depth, 0), poses).sampled) == []


def test_frames_without_any_depth_are_not_judged() -> None:
    assert "no depth" in " ".join(recording_problems("rec", deeper(room(3), 0).sampled))


def test_what_two_frames_share_by_hand() -> None:
    """A camera in front of a wall, the same camera shifted right by half an image, and further back."""
    wall = Room(np.full((3, 48, 64), 2.0), np.tile(np.eye(4), (3, 1, 1)))
    wall.poses[1, 0, 3] = 2 * 32 / 55
    wall.poses[2, 2, 3] = -1
    frames = wall.sampled
    assert shared(frames, 0, 0) == 1 and abs(shared(frames, 0, 1) - 0.5) < 0.02 and shared(frames, 0, 2) == 0


@pytest.mark.parametrize(
    ("depth", "colour", "fits"),
    [
        ((640, 480), (1296, 968), True),  # ScanNet
        ((256, 192), (1920, 1440), True),
        ((640, 480), (1920, 1080), False),
        ((640, 480), (1280, 1024), False),
        ((640, 480), (480, 640), False),
    ],
)
def test_aspect_ratio_of_colour_pictures(depth: tuple[int, int], colour: tuple[int, int], fits: bool) -> None:
    problem = aspect_problem("rec", depth, [colour])
    assert (problem is None) == fits
    assert fits or (f"{colour[0]}x{colour[1]}" in str(problem) and "640x480 (1.33)" in str(problem))


def test_pictures_of_another_aspect_ratio_are_a_problem(tmp_path: Path) -> None:
    root = write(room(3), tmp_path / "root/scene", colour_size=(64, 36)).parent

    def ready(strict: bool) -> Path:
        return prepare(DATASET, root, tmp_path / "c", frame_stride=1, strict=strict, progress=lambda items: items)

    (problem,) = read_manifest(ready(strict=False)).problems
    assert problem.startswith("scene: colour pictures are 64x36 (aspect ratio 1.78), depth images 64x48 (1.33)")
    with pytest.raises(DataError, match="64x36"):
        ready(strict=True)
