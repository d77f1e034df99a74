"""Detector inputs: points, voxels, boxes and votes of a scene, and the targets of a batch (spec F.3), in numpy.

Metres, z up; boxes are (K, 8): centre, full size, heading, class, as in `benchmarks.input.boxes`. No function modifies its
inputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pretrain_bench.benchmarks.input.boxes import extents, points_inside
from pretrain_bench.benchmarks.input.transforms import axis_rotation
from pretrain_bench.benchmarks.input.voxelise import quantise, to_cells
from pretrain_bench.benchmarks.specs.recipes import DetectionRecipe

Array = NDArray[Any]
RULE_VERSION = 1
SAME_METRES = 0.05
"""A box belongs to an instance if its centre is nearer than this to the middle of the instance's extents."""
PLACES = 64
"""Target slots for the objects of each scene in a batch; more if a scene has more objects."""


class BoxSample(NamedTuple):
    """coordinates (V, 3) int32 voxels from 0; points (V, 3) float32 metres, one point per voxel; colours (V, 3) float32,
    normalised; boxes (K, 8) float64, augmented like the points; votes (V, 3, 3) float32, three positions in metres that a
    point may vote for; vote_mask (V,) whether the point votes."""

    coordinates: NDArray[np.int32]
    points: NDArray[np.float32]
    colours: NDArray[np.float32]
    boxes: NDArray[np.float64]
    votes: NDArray[np.float32]
    vote_mask: NDArray[np.bool_]


class BoxArrays(NamedTuple):
    """Targets of B scenes with G object slots: centres (B, G, 3) metres; present (B, G); heading_classes and heading_residuals
    (B, G), radians; size_classes (B, G) and size_residuals (B, G, 3), metres; classes (B, G). float32 and int64, zero in unused
    slots."""

    centres: NDArray[np.float32]
    present: NDArray[np.bool_]
    heading_classes: NDArray[np.int64]
    heading_residuals: NDArray[np.float32]
    size_classes: NDArray[np.int64]
    size_residuals: NDArray[np.float32]
    classes: NDArray[np.int64]


def training_sample(
    xyz: Array,
    rgb: Array,
    boxes: Array,
    instances: NDArray[np.integer] | None,
    recipe: DetectionRecipe,
    rng: Generator,
) -> BoxSample:
    """Make one augmented training sample from points (N, 3) in metres, rgb (N, 3) in 0..255 and boxes (K, 8).

    With `instances` (N,), negative for none, boxes stay axis-aligned and points vote for the middle of the remaining part of
    their instance. Without, points vote for the centres of the boxes that contain them. Raises ValueError for a scene without
    points.
    """
    rows = _drawn(len(xyz), recipe.points, rng)
    places, moved = augment(np.asarray(xyz)[rows], boxes, recipe, rng)
    if instances is not None:
        moved = parallel(moved)
        votes, mask = instance_votes(places, np.asarray(instances)[rows])
    voxels, representative = _voxels(places, recipe)
    if instances is not None:
        votes, mask = votes[representative], mask[representative]
    else:
        votes_of_points = box_votes(places[representative], moved)
        votes = places[representative][:, None] + votes_of_points[:, 1:].reshape(-1, 3, 3)
        mask = votes_of_points[:, 0] > 0
    colours = _normalised(np.asarray(rgb)[rows[representative]], recipe)
    points = places[representative].astype(np.float32)
    return BoxSample(voxels, points, colours, moved, votes.astype(np.float32), mask)


def evaluation_sample(xyz: Array, rgb: Array, recipe: DetectionRecipe, scene: str) -> BoxSample:
    """Make the test input of a scene: no augmentation, boxes or votes. The drawn points depend only on the scene's name and
    number of points. Raises ValueError for a scene without points."""
    seed = hashlib.sha256(f"bench-detection-{RULE_VERSION}:{scene}".encode()).digest()
    rows = _drawn(len(xyz), recipe.points, np.random.default_rng(int.from_bytes(seed[:8], "little")))
    places = np.asarray(xyz, np.float64)[rows]
    voxels, representative = _voxels(places, recipe)
    count = len(representative)
    return BoxSample(
        voxels,
        places[representative].astype(np.float32),
        _normalised(np.asarray(rgb)[rows[representative]], recipe),
        np.zeros((0, 8)),
        np.zeros((count, 3, 3), np.float32),
        np.zeros(count, bool),
    )


def _drawn(count: int, limit: int, rng: Generator) -> NDArray[np.int64]:
    """Rows of at most `limit` points in random order, so that any point of a voxel can become its representative."""
    if count == 0:
        raise ValueError("the scene has no points")
    return rng.choice(count, min(count, limit), replace=False)


def _voxels(places: Array, recipe: DetectionRecipe) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Voxel coordinates (V, 3) from 0, and the rows of their representative points."""
    cells = to_cells(places, recipe.voxel_metres)
    voxels = quantise(cells - cells.min(axis=0))
    return voxels.coordinates, voxels.representative


def _normalised(rgb: Array, recipe: DetectionRecipe) -> NDArray[np.float32]:
    return ((rgb.astype(np.float64) - recipe.colour_mean) / recipe.colour_divisor).astype(np.float32)


def augment(
    xyz: Array, boxes: Array, recipe: DetectionRecipe, rng: Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mirror points (N, 3) and boxes (K, 8) in x and in y, rotate them about z and scale them, with one draw for each step."""
    xyz, boxes = np.array(xyz, np.float64), np.array(boxes, np.float64).reshape(-1, 8)
    # Seen from above, the length of a box points along (cos h, -sin h); the sign of that direction does not matter.
    if rng.random() < recipe.flip_x_probability:
        xyz[:, 0], boxes[:, 0] = -xyz[:, 0], -boxes[:, 0]
        boxes[:, 6] = np.pi - boxes[:, 6]
    if rng.random() < recipe.flip_y_probability:
        xyz[:, 1], boxes[:, 1] = -xyz[:, 1], -boxes[:, 1]
        boxes[:, 6] = -boxes[:, 6]
    angle = np.radians(rng.uniform(-recipe.rotation_degrees, recipe.rotation_degrees))
    turn, scale = axis_rotation(2, angle), rng.uniform(*recipe.scale)
    boxes[:, :3] = boxes[:, :3] @ turn.T * scale
    boxes[:, 3:6] *= scale
    # The rotation is counter-clockwise, the heading clockwise; the result is kept within half a turn of 0.
    boxes[:, 6] = np.pi - np.mod(np.pi - (boxes[:, 6] - angle), 2 * np.pi)
    return xyz @ turn.T * scale, boxes


def parallel(boxes: Array) -> NDArray[np.float64]:
    """The axis-aligned boxes that enclose boxes (K, 8) tightly: the same centres, heading 0."""
    boxes = np.array(boxes, np.float64)
    spans = extents(boxes[:, :7])
    boxes[:, 3:6], boxes[:, 6] = spans[:, 3:] - spans[:, :3], 0.0
    return boxes


def box_instances(xyz: Array, instances: NDArray[np.integer], boxes: Array) -> NDArray[np.int64]:
    """(N,) for each point the row of the box (K, 8) that was made from its instance, -1 for none.

    A box belongs to the instance, numbered above 0, whose extents are centred on it; points (N, 3) use the axes of the boxes.
    """
    box_of_point = np.full(len(xyz), -1, np.int64)
    known = np.flatnonzero(np.asarray(instances) > 0)
    numbers, which = np.unique(np.asarray(instances)[known], return_inverse=True)
    if not len(boxes) or not len(numbers):
        return box_of_point
    middle = _middles(np.asarray(xyz)[known], which, len(numbers))
    apart = np.linalg.norm(np.asarray(boxes)[:, None, :3] - middle[None], axis=2)
    box_of = np.full(len(numbers), -1, np.int64)
    nearest = apart.argmin(axis=1)
    for row in np.flatnonzero(apart.min(axis=1) < SAME_METRES):
        box_of[nearest[row]] = row
    box_of_point[known] = box_of[which]
    return box_of_point


def _middles(xyz: Array, which: NDArray[np.integer], count: int) -> NDArray[np.float64]:
    """(count, 3) midpoints between the lowest and highest coordinates of the points (N, 3) of each group."""
    low, high = np.full((count, 3), np.inf), np.full((count, 3), -np.inf)
    np.minimum.at(low, which, xyz)
    np.maximum.at(high, which, xyz)
    return (low + high) / 2


def instance_votes(xyz: Array, instances: NDArray[np.integer]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Votes (N, 3, 3), three equal ones, and their mask (N,): the midpoint between the lowest and highest coordinates of the
    points of the same instance. Points with a negative instance do not vote."""
    mask = np.asarray(instances) >= 0
    _, which = np.unique(np.asarray(instances)[mask], return_inverse=True)
    count = int(which.max()) + 1 if len(which) else 0
    votes = np.zeros((len(mask), 3, 3))
    votes[mask] = _middles(xyz[mask], which, count)[which][:, None]
    return votes, mask


def box_votes(xyz: NDArray[np.floating], boxes: NDArray[np.floating]) -> NDArray[np.float32]:
    """(N, 10): whether a point lies in any box, and three offsets to box centres (spec F.3). A point in one box has the same
    offset three times; a second and third box that contain it replace the second and third offset."""
    votes = np.zeros((len(xyz), 10), np.float32)
    count = np.zeros(len(xyz), np.int64)
    for box in boxes:  # from the fourth box on, each replaces the third offset, as in the original code
        rows = np.flatnonzero(points_inside(xyz, box))
        offset = box[:3] - np.asarray(xyz, np.float64)[rows]
        first = count[rows] == 0
        votes[rows, 0] = 1
        votes[rows[first], 1:] = np.tile(offset[first], 3)
        for place in (1, 2):
            here = count[rows] == place
            votes[rows[here], 1 + 3 * place : 4 + 3 * place] = offset[here]
        count[rows] = np.minimum(count[rows] + 1, 2)
    return votes


def heading_bins_of(headings: NDArray[np.floating], bins: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The bin of each heading (K,) in radians, and the residual; bin k is centred at k * 2 pi / bins. With one bin both are 0."""
    if bins == 1:
        return np.zeros(len(headings), np.int64), np.zeros(len(headings))
    width = 2 * np.pi / bins
    steps = np.floor((headings + width / 2) / width)
    return np.mod(steps, bins).astype(np.int64), headings - steps * width


def box_arrays(
    boxes_per_scene: Sequence[Array], heading_bins: int, mean_sizes: Array, places: int = PLACES
) -> BoxArrays:
    """The targets of a batch of scenes with boxes (K, 8) each; `mean_sizes` (NS, 3) metres. The size class equals the class."""
    listed = [np.asarray(b, np.float64).reshape(-1, 8) for b in boxes_per_scene]
    means = np.asarray(mean_sizes, np.float64)
    shape = (len(listed), max([places, *map(len, listed)]))
    out = BoxArrays(
        np.zeros((*shape, 3), np.float32),
        np.zeros(shape, bool),
        np.zeros(shape, np.int64),
        np.zeros(shape, np.float32),
        np.zeros(shape, np.int64),
        np.zeros((*shape, 3), np.float32),
        np.zeros(shape, np.int64),
    )
    for scene, boxes in enumerate(listed):
        used = slice(len(boxes))
        classes = boxes[:, 7].astype(np.int64)
        out.centres[scene, used], out.present[scene, used] = boxes[:, :3], True
        out.heading_classes[scene, used], out.heading_residuals[scene, used] = heading_bins_of(
            boxes[:, 6], heading_bins
        )
        out.size_classes[scene, used] = out.classes[scene, used] = classes
        out.size_residuals[scene, used] = boxes[:, 3:6] - means[classes]
    return out
