"""Pairs of frames of one recording that see the same surfaces, for the multi-view methods (spec B.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

VOXEL_METRES = 0.05
NEAR_METRES = 1.5 * VOXEL_METRES
MIN_OVERLAP = 0.3


def unproject(depth_metres: NDArray[np.floating], intrinsic: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 3) points of the valid pixels in the camera's frame, row by row: x = (u - cx) z / fx, y = (v - cy) z / fy."""
    v, u = np.nonzero(depth_metres > 0)
    z = np.asarray(depth_metres, np.float64)[v, u]
    return np.stack(
        [(u - intrinsic[0, 2]) * z / intrinsic[0, 0], (v - intrinsic[1, 2]) * z / intrinsic[1, 1], z], axis=1
    )


def move(points: NDArray[np.float64], transform: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 3) points under a rigid transform (4, 4)."""
    return points @ transform[:3, :3].T + transform[:3, 3]


def world_points(
    depth_metres: NDArray[np.floating], pose: NDArray[np.float64], intrinsic: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(N, 3) world points of the valid pixels, row by row: unprojected, then under the pose."""
    return move(unproject(depth_metres, intrinsic), pose)


def voxel_means(points: NDArray[np.float64], voxel: float = VOXEL_METRES) -> NDArray[np.float64]:
    """(M, 3) mean of the points in each voxel, the grid starting half a voxel below the least coordinates."""
    if not len(points):
        return points
    cells = np.floor((points - (points.min(axis=0) - voxel / 2)) / voxel).astype(np.int64)
    extent = cells.max(axis=0) + 1
    keys = (cells[:, 0] * extent[1] + cells[:, 1]) * extent[2] + cells[:, 2]
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return np.stack([np.bincount(inverse, points[:, a]) for a in range(3)], axis=1) / counts[:, None]


def overlaps(clouds: list[NDArray[np.float64]], least: float = MIN_OVERLAP) -> NDArray[np.float64]:
    """(P, 3): i, j and overlap of all pairs i < j of voxel means whose overlap is `least` or more.

    The overlap is the larger of the shares of either cloud's points that have a point of the other within NEAR_METRES.
    """
    from scipy.spatial import cKDTree  # slow to import, and whoever finds data prepared needs none

    trees = [cKDTree(c) if len(c) else None for c in clouds]
    boxes = [(c.min(0) - NEAR_METRES, c.max(0) + NEAR_METRES) if len(c) else None for c in clouds]
    found = []
    for i in range(len(clouds)):
        for j in range(i + 1, len(clouds)):
            one, two = boxes[i], boxes[j]
            if one is None or two is None or (one[0] > two[1]).any() or (two[0] > one[1]).any():
                continue
            share = max(near_share(trees[i], clouds[j]), near_share(trees[j], clouds[i]))
            if share >= least:
                found.append((i, j, share))
    return np.asarray(found, np.float64).reshape(-1, 3)


def near_share(tree: cKDTree, points: NDArray[np.float64]) -> float:
    """Share of `points` with a point of `tree` within NEAR_METRES."""
    distance, _ = tree.query(points, distance_upper_bound=NEAR_METRES)
    return float(np.isfinite(distance).mean())
