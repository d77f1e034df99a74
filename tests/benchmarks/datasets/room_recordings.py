"""Ray-cast recordings of a furnished box room, whose world, poses and depth can be damaged as in real recordings."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pretrain_bench.benchmarks.datasets.sampled_frames import SampledFrames

SIZE = (64, 48)
INTRINSIC: NDArray[np.float64] = np.array([[55.0, 0, 31.5], [0, 55.0, 23.5], [0, 0, 1]])
BOXES = (((0, 0, 0), (6, 5, 2.6)), ((3.6, 1.2, 0), (4.8, 2.0, 0.8)), ((5.2, 4, 0), (5.9, 4.9, 1.9)))
"""The room, seen from inside, and two objects in it, seen from outside: lowest and highest corner."""
Y_DOWN = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
"""Rotation from a z-up world to a y-down world."""


class Room(NamedTuple):
    """depth (F, H, W) float64 metres, and poses (F, 4, 4) camera-to-world with z up."""

    depth: NDArray[np.float64]
    poses: NDArray[np.float64]

    @property
    def sampled(self) -> SampledFrames:
        """The recording as input of the checks."""
        return SampledFrames(self.depth.astype(np.float32), self.poses, INTRINSIC)


def room(frames: int, downward_degrees: float = 20, turn_degrees: float = 8, step_metres: float = 0.08) -> Room:
    """A camera that moves and turns through the room, tilted downward by a varying angle."""
    poses = np.array([_pose(i, downward_degrees, turn_degrees, step_metres) for i in range(frames)])
    return Room(np.array([_depth(p) for p in poses]), poses)


def turned(recording: Room, turn: NDArray[np.float64]) -> Room:
    """The same recording in a world transformed by (4, 4)."""
    return recording._replace(poses=turn @ recording.poses)


def write(recording: Room, folder: Path, colour_size: tuple[int, int] = SIZE) -> Path:
    """Write the recording in the ScanNet export layout, with depth in millimetres."""
    for name in ("color", "depth", "pose", "intrinsic"):
        (folder / name).mkdir(parents=True)
    matrix = np.eye(4)
    matrix[:3, :3] = INTRINSIC
    np.savetxt(folder / "intrinsic/intrinsic_depth.txt", matrix)
    for number, (depth, pose) in enumerate(zip(recording.depth, recording.poses, strict=True)):
        Image.fromarray(np.full((*colour_size[::-1], 3), 90, np.uint8)).save(folder / f"color/{number}.png")
        millimetres = np.clip(np.round(depth * 1000), 0, 65534).astype(np.uint16)
        Image.fromarray(millimetres).save(folder / f"depth/{number}.png")
        np.savetxt(folder / f"pose/{number}.txt", pose)
    return folder


def _pose(number: int, downward: float, turn: float, step: float) -> NDArray[np.float64]:
    yaw, pitch = np.radians(turn * number), np.radians(downward + 8 * np.sin(number))
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), -np.sin(pitch)])
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2] = right, np.cross(forward, right), forward
    pose[:3, 3] = (2.6 + 0.6 * np.sin(step * number), 2.4 + 0.5 * np.cos(step * number), 1.5)
    return pose


def _depth(pose: NDArray[np.float64]) -> NDArray[np.float64]:
    v, u = np.mgrid[: SIZE[1], : SIZE[0]]
    rays = np.stack([(u - 31.5) / 55, (v - 23.5) / 55, np.ones(u.shape)], axis=-1) @ pose[:3, :3].T
    rays = np.where(np.abs(rays) < 1e-9, 1e-9, rays)
    depth = np.full(u.shape, np.inf)
    for number, corners in enumerate(BOXES):
        at = (np.array(corners)[:, None, None] - pose[:3, 3]) / rays
        enter, leave = at.min(axis=0).max(axis=-1), at.max(axis=0).min(axis=-1)
        depth = np.minimum(depth, leave if number == 0 else np.where((enter > 0) & (enter < leave), enter, np.inf))
    return depth
