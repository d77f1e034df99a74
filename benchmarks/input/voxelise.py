"""Convert points to voxels and back, in numpy (spec A.7, section 0.2 item 1).

Voxels are sorted by (x, y, z), so that results do not depend on the order of points or on a hash map. A voxel is represented
by its first point in file order; its features are those of that point, never an average.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

IGNORE = 255


class Voxels(NamedTuple):
    """Occupied voxels of one cloud.

    coordinates: (V, 3) int32, sorted by x, then y, then z. representative: (V,) int64, the lowest point index in each
    voxel. inverse: (N,) int64, the voxel row of every point.
    """

    coordinates: NDArray[np.int32]
    representative: NDArray[np.int64]
    inverse: NDArray[np.int64]


def quantise(cells: NDArray[np.integer]) -> Voxels:
    """Group integer cells (N, 3), any sign, into voxels. An empty cloud gives empty arrays."""
    cells = np.asarray(cells, dtype=np.int64)
    if len(cells) == 0:
        nothing = np.zeros(0, dtype=np.int64)
        return Voxels(np.zeros((0, 3), dtype=np.int32), nothing, nothing)
    low, high = bounds(cells)
    extent = high - low + 1
    if float(extent[0]) * float(extent[1]) * float(extent[2]) >= 2.0**62:
        raise ValueError(f"the cloud spans {extent.tolist()} voxels, more than can be numbered; check the voxel size")
    shifted = cells - low
    keys = (shifted[:, 0] * extent[1] + shifted[:, 1]) * extent[2] + shifted[:, 2]
    bits = len(cells).bit_length()
    if int(keys.max()).bit_length() + bits > 62:
        _, representative, inverse = np.unique(keys, return_index=True, return_inverse=True)
        return Voxels(cells[representative].astype(np.int32), representative, inverse.reshape(-1))
    # Key and point index packed into one number: a plain sort, many times faster than a stable sort of indices.
    packed = np.sort((keys << bits) | np.arange(len(keys)))
    order, ordered = packed & ((1 << bits) - 1), packed >> bits
    first = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    inverse = np.empty(len(keys), np.int64)
    inverse[order] = np.cumsum(first) - 1
    representative = order[first]
    return Voxels(cells[representative].astype(np.int32), representative, inverse)


def bounds(points: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Lowest and highest corner (3,), (3,) of points (N, 3), N > 0, in their dtype."""
    # Column by column: numpy takes 20 times as long with axis=0.
    columns = range(points.shape[1])
    return np.array([points[:, c].min() for c in columns]), np.array([points[:, c].max() for c in columns])


def to_cells(xyz: NDArray[np.floating], voxel: float) -> NDArray[np.int64]:
    """Cells (N, 3) of points (N, 3) in metres: the true floor of position over voxel size, also for negative coordinates."""
    return np.floor(np.asarray(xyz, dtype=np.float64) / voxel).astype(np.int64)


def voxel_labels(labels: NDArray[Any], voxels: Voxels, ignore: int = IGNORE) -> NDArray[Any]:
    """Labels (N,) of points to labels (V,) of voxels, in the same dtype: the common label, or `ignore` if points disagree."""
    first = np.asarray(labels)[voxels.representative]
    differs = np.asarray(labels) != first[voxels.inverse]
    conflict = np.bincount(voxels.inverse[differs], minlength=len(first)) > 0
    return np.where(conflict, ignore, first).astype(first.dtype)
