"""Overlap of frame pairs of one recording: the share of surface points that both frames see (spec B.1).

The result equals a nearest-neighbour comparison of all pairs. Two exact short cuts make thousands of frames affordable. Coarse
cells bound the share of each pair from above and rule most pairs out. A table of fine cells around one frame then decides for
most points whether the frame has a point near them; only the remaining points are searched for in a tree.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.datasets.pairs import NEAR_METRES

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

MIN_OVERLAP = 0.3
COARSE_METRES = 4 * NEAR_METRES
FINE_METRES = 0.02
MAX_TABLE_CELLS = 1 << 26
TABLE_FROM_FRAMES = 16
"""With at least this many frames to compare, the table of fine cells saves more time than it costs."""
_MARGIN = 1e-6  # far above rounding errors of coordinates, so that no cell is misclassified
_FRAMES_AT_ONCE = 32


class Clouds(NamedTuple):
    """All frames of a recording. `points` (N, 3) float64: frame i has rows `starts[i]` to `starts[i + 1]`. Its occupied coarse
    cells are rows `cell_starts[i]` to `cell_starts[i + 1]` of `cells` (indices into the ascending `keys`) and `counts` (points
    in each cell)."""

    points: NDArray[np.float64]
    starts: NDArray[np.int64]
    keys: NDArray[np.int64]
    cells: NDArray[np.int64]
    counts: NDArray[np.int64]
    cell_starts: NDArray[np.int64]
    origin: NDArray[np.float64]
    extent: NDArray[np.int64]

    def frame(self, number: int) -> NDArray[np.float64]:
        """(M, 3) points of one frame."""
        return self.points[self.starts[number] : self.starts[number + 1]]


class NearTable(NamedTuple):
    """Fine cells around one frame, as a flat array of states: 0, no place in the cell is near a point of the frame; 2, every
    place is; 1, a search must decide. The grid has `shape` cells of size `cell` metres and starts at `low`."""

    low: NDArray[np.float64]
    cell: float
    shape: NDArray[np.int64]
    states: NDArray[np.uint8]


def overlaps(clouds: Sequence[NDArray[np.float64]], least: float = MIN_OVERLAP) -> NDArray[np.float64]:
    """All frame pairs with an overlap of at least `least`: (P, 3) rows i, j, overlap with i < j, sorted.

    `clouds` are voxel means, each (M, 3) metres. The overlap of two clouds is the share of points that have a point of the other
    within NEAR_METRES, taken from whichever cloud gives the larger share.
    """
    gathered = gather(np.concatenate([np.zeros((0, 3)), *clouds]), np.cumsum([0, *map(len, clouds)]))
    return pairs_of([(i, *shares_near(gathered, i, least)) for i in range(len(clouds))], len(clouds), least)


def gather(points: NDArray[np.float64], starts: NDArray[np.int64]) -> Clouds:
    """Compute the coarse cells that each frame occupies; frame i has rows `starts[i]` to `starts[i + 1]` of points (N, 3)."""
    if not len(points):
        none = np.zeros(0, np.int64)
        return Clouds(points, starts, none, none, none, np.zeros_like(starts), np.zeros(3), np.ones(3, np.int64))
    origin = points.min(axis=0) - COARSE_METRES
    extent = np.floor((points.max(axis=0) - origin) / COARSE_METRES).astype(np.int64) + 2
    frames = [points[a:b] for a, b in itertools.pairwise(starts)]
    held = [np.unique(_coarse_keys(f, origin, extent), return_counts=True) for f in frames]
    keys, cells = np.unique(np.concatenate([k for k, _ in held]), return_inverse=True)
    counts = np.concatenate([n for _, n in held])
    return Clouds(points, starts, keys, cells, counts, np.cumsum([0, *(len(k) for k, _ in held)]), origin, extent)


def shares_near(clouds: Clouds, number: int, least: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(n,) int64 numbers of the other frames whose share can reach `least`, and (n,) float64 the share of points of each within
    NEAR_METRES of frame `number`."""
    from scipy.spatial import cKDTree  # slow to import, and not needed for data that are prepared already

    cloud = np.asarray(clouds.frame(number))
    others = np.flatnonzero(_bounds(clouds, cloud) >= least)
    others = others[(others != number) & (np.diff(clouds.starts)[others] > 0)]
    if not len(others) or not len(cloud):
        return np.zeros(0, np.int64), np.zeros(0)
    tree = cKDTree(cloud)
    table = near_table(cloud) if len(others) >= TABLE_FROM_FRAMES else None
    shares = []
    for first in range(0, len(others), _FRAMES_AT_ONCE):
        parts = [clouds.frame(j) for j in others[first : first + _FRAMES_AT_ONCE]]
        sizes = np.array([len(p) for p in parts])
        near = is_near(np.concatenate(parts), tree, table)
        shares.append(np.add.reduceat(near.astype(np.int64), np.cumsum(sizes) - sizes) / sizes)
    return others, np.concatenate(shares)


def near_table(cloud: NDArray[np.float64]) -> NearTable:
    """The table around the points (M, 3) of one frame; cells grow where the table would exceed MAX_TABLE_CELLS."""
    span = np.ptp(cloud, axis=0) + 4 * NEAR_METRES
    cell = max(FINE_METRES, float(np.cbrt(span.prod() / MAX_TABLE_CELLS)))
    reach = int(np.ceil(NEAR_METRES / cell)) + 3  # so that the outermost cells are near no point
    low = cloud.min(axis=0) - reach * cell
    places = np.unique(((cloud - low) / cell).astype(np.int64), axis=0)
    shape = places.max(axis=0) + reach + 1
    strides = np.array([shape[1] * shape[2], shape[2], 1])
    steps = np.array(list(itertools.product(range(-reach, reach + 1), repeat=3)))
    least = cell * np.sqrt((np.maximum(np.abs(steps) - 1, 0) ** 2).sum(axis=1))
    most = cell * np.sqrt(((np.abs(steps) + 1) ** 2).sum(axis=1))
    states = np.zeros(int(shape.prod()), np.uint8)
    flat = places @ strides
    for state, chosen in ((1, least <= NEAR_METRES + _MARGIN), (2, most < NEAR_METRES - _MARGIN)):
        for step in steps[chosen] @ strides:
            states[flat + step] = state
    return NearTable(low, cell, shape, states)


def is_near(points: NDArray[np.float64], tree: cKDTree, table: NearTable | None) -> NDArray[np.bool_]:
    """(N,) whether the tree has a point within NEAR_METRES of each point (N, 3); `table` avoids most searches."""
    if table is None:
        return np.isfinite(tree.query(points, distance_upper_bound=NEAR_METRES)[0])
    places = np.clip((points - table.low) / table.cell, 0, table.shape - 1).astype(np.int64)
    states = table.states[(places[:, 0] * table.shape[1] + places[:, 1]) * table.shape[2] + places[:, 2]]
    near = states == 2
    open_rows = np.flatnonzero(states == 1)
    near[open_rows] = np.isfinite(tree.query(points[open_rows], distance_upper_bound=NEAR_METRES)[0])
    return near


def _coarse_keys(points: NDArray[np.float64], origin: NDArray[np.float64], extent: NDArray[np.int64]) -> NDArray:
    cells = np.floor((points - origin) / COARSE_METRES).astype(np.int64)
    return (cells[:, 0] * extent[1] + cells[:, 1]) * extent[2] + cells[:, 2]


def _bounds(clouds: Clouds, cloud: NDArray[np.float64]) -> NDArray[np.float64]:
    """(F,) an upper bound for each frame of the share of its points near `cloud`: the points in coarse cells within reach."""
    sizes = np.diff(clouds.starts)
    if not len(cloud):
        return np.zeros(len(sizes))
    reach = NEAR_METRES + _MARGIN
    corners = [cloud + np.array(s) for s in itertools.product((-reach, reach), repeat=3)]
    reached = np.unique(np.concatenate([_coarse_keys(c, clouds.origin, clouds.extent) for c in corners]))
    counted = np.isin(clouds.keys, reached)[clouds.cells] * clouds.counts
    total = np.concatenate([[0], np.cumsum(counted)])
    return (total[clouds.cell_starts[1:]] - total[clouds.cell_starts[:-1]]) / np.maximum(sizes, 1)


def pairs_of(
    rows: list[tuple[int, NDArray[np.int64], NDArray[np.float64]]], frames: int, least: float
) -> NDArray[np.float64]:
    """(P, 3) sorted pairs i < j with overlap, from rows (frame, others, shares of their points near the frame)."""
    numbers = np.concatenate([np.zeros((0, 2), np.int64), *(np.c_[np.full(len(o), i), o] for i, o, _ in rows)])
    shares = np.concatenate([np.zeros(0), *(s for _, _, s in rows)])
    codes, place = np.unique(numbers.min(axis=1) * frames + numbers.max(axis=1), return_inverse=True)
    best = np.zeros(len(codes))
    np.maximum.at(best, place, shares)
    kept = best >= least
    return np.stack([codes[kept] // frames, codes[kept] % frames, best[kept]], axis=1).astype(np.float64)
