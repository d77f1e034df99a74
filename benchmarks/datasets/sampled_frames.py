"""A few pixels of each frame of a recording: enough to judge poses, depth and what is up without all pictures in memory."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LONG_SIDE = 80
"""Pixels of the longer side that are kept of a depth image."""


class SampledFrames(NamedTuple):
    """Frames of one recording with poses. depth (F, h, w) float32 metres, 0 for none: every n-th pixel; poses (F, 4, 4)
    camera-to-world as recorded; intrinsic (3, 3) in pixels of `depth`."""

    depth: NDArray[np.float32]
    poses: NDArray[np.float64]
    intrinsic: NDArray[np.float64]


def sample_depth(millimetres: NDArray[np.uint16]) -> NDArray[np.float32]:
    """(h, w) float32 metres of every n-th pixel of a depth image, 0 for none."""
    kept = millimetres[:: (step := sampling_step(millimetres.shape)), ::step]
    return np.where(kept == 65535, 0, kept).astype(np.float32) / np.float32(1000)


def sampling_step(shape: tuple[int, ...]) -> int:
    """Every how many pixels one is kept of a depth image of `shape` (H, W)."""
    return max(1, round(max(shape) / LONG_SIDE))


def sampled_intrinsic(intrinsic: NDArray[np.float64], step: int) -> NDArray[np.float64]:
    """(3, 3) intrinsics in pixels of the sample; the centre of the first pixel is at (0, 0) in both."""
    return np.diag([1 / step, 1 / step, 1.0]) @ intrinsic


def grid_points(depth: NDArray[np.floating], intrinsic: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., h, w, 3) points in the camera's frame of depth (..., h, w); NaN where there is no depth."""
    v, u = np.mgrid[: depth.shape[-2], : depth.shape[-1]]
    z = np.where(depth > 0, depth, np.nan).astype(np.float64)
    x, y = (u - intrinsic[0, 2]) * z / intrinsic[0, 0], (v - intrinsic[1, 2]) * z / intrinsic[1, 1]
    return np.stack([x, y, z], axis=-1)
