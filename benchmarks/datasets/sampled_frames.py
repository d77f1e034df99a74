"""A sparse sample of each frame of a recording: enough to judge poses, depth and up direction without holding all pictures."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LONG_SIDE = 80
"""Number of pixels kept along the longer side of a depth image."""


class SampledFrames(NamedTuple):
    """Sampled frames of one recording with poses: depth (F, h, w) float32 metres, 0 for none; poses (F, 4, 4) camera-to-world
    as recorded; intrinsic (3, 3) in pixels of `depth`."""

    depth: NDArray[np.float32]
    poses: NDArray[np.float64]
    intrinsic: NDArray[np.float64]


def sample_depth(millimetres: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Every n-th pixel of a depth image as (h, w) float32 metres, 0 for none."""
    kept = millimetres[:: (step := sampling_step(millimetres.shape)), ::step]
    return np.where(kept == 65535, 0, kept).astype(np.float32) / np.float32(1000)


def sampling_step(shape: tuple[int, ...]) -> int:
    """The step n between pixels kept of a depth image with `shape` (H, W)."""
    return max(1, round(max(shape) / LONG_SIDE))


def sampled_intrinsic(intrinsic: NDArray[np.float64], step: int) -> NDArray[np.float64]:
    """Intrinsics (3, 3) in pixels of the sample; in both, (0, 0) is the centre of the first pixel."""
    return np.diag([1 / step, 1 / step, 1.0]) @ intrinsic


def grid_points(depth: NDArray[np.floating], intrinsic: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (..., h, w, 3) in the camera frame of depth (..., h, w); NaN where depth is missing."""
    v, u = np.mgrid[: depth.shape[-2], : depth.shape[-1]]
    z = np.where(depth > 0, depth, np.nan).astype(np.float64)
    x, y = (u - intrinsic[0, 2]) * z / intrinsic[0, 0], (v - intrinsic[1, 2]) * z / intrinsic[1, 1]
    return np.stack([x, y, z], axis=-1)
