"""Points of depth images and their voxel means, used to compare frames of one recording (spec B.1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

VOXEL_METRES = 0.05
NEAR_METRES = 1.5 * VOXEL_METRES


def unproject(depth_metres: NDArray[np.floating], intrinsic: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 3) points of the valid pixels in the camera frame (x right, y down, z forward), in metres and row by row:
    x = (u - cx) z / fx, y = (v - cy) z / fy."""
    v, u = np.nonzero(depth_metres > 0)
    z = np.asarray(depth_metres, np.float64)[v, u]
    return np.stack(
        [(u - intrinsic[0, 2]) * z / intrinsic[0, 0], (v - intrinsic[1, 2]) * z / intrinsic[1, 1], z], axis=1
    )


def move(points: NDArray[np.float64], transform: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply a rigid transform (4, 4) to points (N, 3)."""
    return points @ transform[:3, :3].T + transform[:3, 3]


def world_points(
    depth_metres: NDArray[np.floating], pose: NDArray[np.float64], intrinsic: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(N, 3) points of the valid pixels, row by row, in the world of the camera-to-world `pose` (4, 4)."""
    return move(unproject(depth_metres, intrinsic), pose)


def voxel_means(points: NDArray[np.float64], voxel: float = VOXEL_METRES) -> NDArray[np.float64]:
    """(M, 3) mean of the points in each voxel; the grid starts half a voxel below the smallest coordinates."""
    if not len(points):
        return points
    cells = np.floor((points - (points.min(axis=0) - voxel / 2)) / voxel).astype(np.int64)
    extent = cells.max(axis=0) + 1
    keys = (cells[:, 0] * extent[1] + cells[:, 1]) * extent[2] + cells[:, 2]
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return np.stack([np.bincount(inverse, points[:, a]) for a in range(3)], axis=1) / counts[:, None]
