"""Instances as connected components of voxels that were shifted towards the centres of their instances (spec F.1).

Two voxels of one class are connected if they are closer than a radius. The result is exact, in roughly linear time: voxels in one
small cell are connected without a test, and a pair of cells is tested only while it is not already connected through others.
(The original considers only the first 1,000 neighbours of a voxel.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

FIRST_PAIRS, PAIRS_AT_ONCE = 1 << 16, 1 << 22
"""Pairs of voxels tested before the components are updated: in the first round, and at most (rounds double)."""


class Clusters(NamedTuple):
    """P clusters: voxels[starts[i]:starts[i + 1]] are the rows of cluster i, ascending; starts (P + 1,), classes (P,) and
    confidences (P,)."""

    voxels: NDArray[np.int32]
    starts: NDArray[np.int32]
    classes: NDArray[np.uint8]
    confidences: NDArray[np.float32]


def clusters(
    places: NDArray[np.float32],
    logits: NDArray[np.float32],
    instance_classes: Sequence[int],
    radius: float,
    least: int,
    above: int,
) -> Clusters:
    """Connected components of one class with at least `least` and more than `above` voxels, ordered by their lowest row.

    `places` (V, 3) are in the unit of `radius`. A voxel has the class of its largest logit (V, C); voxels of classes without
    instances are left out. The confidence of a cluster is the mean logit of its class.
    """
    classes = logits.argmax(axis=1) if len(logits) else np.zeros(0, np.int64)
    rows = np.flatnonzero(np.isin(classes, list(instance_classes)))
    component = connected(places[rows], classes[rows], radius)
    sizes = np.bincount(component)
    large = (sizes >= least) & (sizes > above)
    kept = large[component] if len(component) else np.zeros(0, bool)
    order = np.flatnonzero(kept)[np.argsort(component[kept], kind="stable")]
    counts = sizes[large]
    starts = np.concatenate([[0], np.cumsum(counts)])
    voxels = rows[order]
    named = classes[voxels[starts[:-1]]]
    own = logits[voxels, classes[voxels]].astype(np.float64)
    sums = np.add.reduceat(own, starts[:-1]) if len(counts) else np.zeros(0)
    return Clusters(
        voxels.astype(np.int32),
        starts.astype(np.int32),
        named.astype(np.uint8),
        (sums / np.maximum(counts, 1)).astype(np.float32),
    )


def connected(places: NDArray[np.float32], classes: NDArray[np.integer], radius: float) -> NDArray[np.int64]:
    """(V,) component of each voxel, numbered in order of their lowest rows. Two voxels of one class are connected if their
    squared distance is below radius ** 2, both in float32."""
    if not len(places):
        return np.zeros(0, np.int64)
    places = np.ascontiguousarray(places, np.float32)
    # The diagonal of a cell is slightly shorter than the radius, so all voxels of one cell are connected.
    cells = np.floor(places.astype(np.float64) * (np.sqrt(3) * 1.0001 / radius)).astype(np.int64)
    table = np.column_stack([classes, cells])
    table -= table.min(axis=0)
    span = table.max(axis=0) + 5  # so that a step to a neighbour never wraps around into another cell
    keys = ((table[:, 0] * span[1] + table[:, 1]) * span[2] + table[:, 2]) * span[3] + table[:, 3]
    known, cell, counts = np.unique(keys, return_inverse=True, return_counts=True)
    order = np.argsort(cell, kind="stable")
    # Rows sorted by cell, so that neighbours are close in memory.
    cloud = _Cells(places[order], np.concatenate([[0], np.cumsum(counts)[:-1]]), counts, np.float32(radius) ** 2)
    one, two = _neighbours(known, span)
    # One voxel per cell decides most pairs of cells. The rest are tested cheapest first, and most turn out connected before.
    middle = cloud.starts + counts // 2
    touching = cloud.near(middle[one], middle[two])
    part = _components(one[touching], two[touching], len(known))
    open_ = (part[one] != part[two]) & (counts[one] * counts[two] > 1)
    one, two = one[open_], two[open_]
    size = counts[one] * counts[two]
    cheap_first = np.argsort(size, kind="stable")
    one, two, size = one[cheap_first], two[cheap_first], size[cheap_first]
    pairs = FIRST_PAIRS
    while len(one):
        count = max(1, int(np.searchsorted(np.cumsum(size), pairs)))
        pairs = min(2 * pairs, PAIRS_AT_ONCE)
        touching = cloud.touch(one[:count], two[:count])
        joined = part[one[:count][touching]], part[two[:count][touching]]
        part = _components(*joined, int(part.max()) + 1)[part]
        rest = part[one[count:]] != part[two[count:]]
        one, two, size = one[count:][rest], two[count:][rest], size[count:][rest]
    labels = part[cell]
    _, lowest, number = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(lowest), np.int64)
    rank[np.argsort(lowest)] = np.arange(len(lowest))
    return rank[number.reshape(-1)]


class _Cells(NamedTuple):
    """places[starts[c]:starts[c] + counts[c]] are the voxels of cell c; `limit` is the squared radius."""

    places: NDArray[np.float32]
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]
    limit: np.float32

    def touch(self, one: NDArray[np.int64], two: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(P,) for each pair of cells, whether any voxel of one is within the radius of any of the other."""
        size = self.counts[one] * self.counts[two]
        if len(one) == 1 and size[0] > PAIRS_AT_ONCE:
            return np.array([self._crowds_touch(int(one[0]), int(two[0]))])
        pair = np.repeat(np.arange(len(one)), size)
        place = np.arange(len(pair)) - np.repeat(np.cumsum(size) - size, size)
        left = self.starts[one][pair] + place // self.counts[two][pair]
        right = self.starts[two][pair] + place % self.counts[two][pair]
        return np.bincount(pair[self.near(left, right)], minlength=len(one)) > 0

    def _crowds_touch(self, one: int, two: int) -> bool:
        rows = [np.arange(self.starts[c], self.starts[c] + self.counts[c]) for c in (one, two)]
        reach = float(np.sqrt(self.limit)) * 1.00001
        gap, nearest = cKDTree(self.places[rows[1]]).query(self.places[rows[0]], distance_upper_bound=reach)
        close = np.flatnonzero(np.isfinite(gap))
        return bool(self.near(rows[0][close], rows[1][nearest[close]]).any())

    def near(self, one: NDArray[np.int64], two: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(P,) for each pair of rows, whether they are within the radius of each other."""
        gap = self.places[one] - self.places[two]
        gap *= gap
        return (gap[:, 0] + gap[:, 1] + gap[:, 2]) < self.limit


def _neighbours(known: NDArray[np.int64], span: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of different cells of one class that may hold voxels within the radius of each other; each pair once."""
    steps = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    # The side of a cell is radius / (1.0001 * sqrt(3)), so cells whose nearest corners are more than sqrt(3) sides apart are
    # too far.
    gaps = np.maximum(np.abs(steps) - 1, 0)
    steps = steps[(gaps**2).sum(axis=1) <= 3]
    ones, twos = [], []
    for x, y, z in steps:
        jump = (x * span[2] + y) * span[3] + z
        if jump > 0:
            place = np.searchsorted(known, known + jump)
            hit = np.flatnonzero(known[np.minimum(place, len(known) - 1)] == known + jump)
            ones.append(hit)
            twos.append(place[hit])
    return np.concatenate(ones), np.concatenate(twos)


def _components(one: NDArray[np.int64], two: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    graph = coo_matrix((np.ones(len(one), np.int8), (one, two)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)
