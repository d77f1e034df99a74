"""Oriented boxes: corners, intersection over union, suppression (spec F.3, F.4).

A box is 7 numbers: centre, full size along its own axes, heading; metres and radians, z up. A positive heading turns the box
clockwise seen from above: VoteNet's convention, about the y axis of a camera that looks along y with y down. Everything is
`float64`.

A detector may predict negative sizes. A negative length or width mirrors the box onto itself. A negative height puts the top
below the bottom, and the box then intersects no other box.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.floating]
_TOLERANCE = 1e-12
_CORNERS = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]]) / 2
"""Corners of a unit square, in order around it."""


def plan_corners(boxes: Boxes) -> NDArray[np.float64]:
    """Corners (N, 4, 2) of boxes (N, 7) seen from above, in order around each box."""
    boxes = np.asarray(boxes, np.float64)
    local = _CORNERS * boxes[:, None, 3:5]
    c, s = np.cos(boxes[:, 6])[:, None], np.sin(boxes[:, 6])[:, None]
    x, y = local[..., 0], local[..., 1]
    return np.stack([c * x + s * y, c * y - s * x], axis=2) + boxes[:, None, :2]


def corners(boxes: Boxes) -> NDArray[np.float64]:
    """Corners (N, 8, 3) of boxes (N, 7): the lower four in order around the box, then the upper four above them."""
    boxes = np.asarray(boxes, np.float64)
    plan, half = plan_corners(boxes), boxes[:, 5] / 2
    levels = [np.repeat((boxes[:, 2] + sign * half)[:, None, None], 4, axis=1) for sign in (-1, 1)]
    return np.concatenate([np.concatenate([plan, level], axis=2) for level in levels], axis=1)


def extents(boxes: Boxes) -> NDArray[np.float64]:
    """Axis-aligned bounds (N, 6) of boxes (N, 7): lowest, then highest corner."""
    boxes = np.asarray(boxes, np.float64)
    plan = plan_corners(boxes)
    half = np.abs(boxes[:, 5]) / 2
    low = np.column_stack([plan.min(axis=1), boxes[:, 2] - half])
    return np.column_stack([low, plan.max(axis=1), boxes[:, 2] + half])


def points_inside(xyz: NDArray[np.floating], box: Boxes) -> NDArray[np.bool_]:
    """(N,) whether points (N, 3) lie in a box of 7 or more numbers, borders included."""
    box = np.asarray(box, np.float64)
    c, s = np.cos(box[6]), np.sin(box[6])
    moved = np.asarray(xyz, np.float64) - box[:3]
    # The box is rotated by -heading about z, so points are rotated by +heading.
    along, across = c * moved[:, 0] - s * moved[:, 1], s * moved[:, 0] + c * moved[:, 1]
    return (np.abs(np.stack([along, across, moved[:, 2]], axis=1)) <= np.abs(box[3:6]) / 2).all(axis=1)


def oriented_iou(one: Boxes, two: Boxes) -> NDArray[np.float64]:
    """(N,) intersection over union of the volumes of two sets of boxes (N, 7), pair by pair."""
    one, two = np.asarray(one, np.float64), np.asarray(two, np.float64)
    height = np.minimum(one[:, 2] + one[:, 5] / 2, two[:, 2] + two[:, 5] / 2) - np.maximum(
        one[:, 2] - one[:, 5] / 2, two[:, 2] - two[:, 5] / 2
    )
    common = plan_overlap(plan_corners(one), plan_corners(two)) * np.maximum(height, 0)
    return _over_union(common, np.abs(one[:, 3:6].prod(axis=1)), np.abs(two[:, 3:6].prod(axis=1)))


def plan_iou(one: Boxes, two: Boxes) -> NDArray[np.float64]:
    """(N,) intersection over union of the areas of boxes (N, 7) seen from above, pair by pair."""
    one, two = np.asarray(one, np.float64), np.asarray(two, np.float64)
    common = plan_overlap(plan_corners(one), plan_corners(two))
    return _over_union(common, np.abs(one[:, 3:5].prod(axis=1)), np.abs(two[:, 3:5].prod(axis=1)))


def plan_overlap(one: NDArray[np.float64], two: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) intersection area of two sets of convex quadrangles (N, 4, 2), pair by pair.

    The corners of the intersection are the corners of each quadrangle inside the other and the crossings of their edges.
    Sorted by angle about their mean they give its area, exact to rounding and never above the smaller area.
    """
    origin = one.mean(axis=1, keepdims=True)
    one, two = one - origin, two - origin
    crossings, crossed = _crossings(one, two)
    points = np.concatenate([one, two, crossings], axis=1)
    known = np.concatenate([_inside(one, two), _inside(two, one), crossed], axis=1)
    count = known.sum(axis=1)
    centre = np.where(known[..., None], points, 0).sum(axis=1) / np.maximum(count, 1)[:, None]
    # Slots without a corner repeat an existing one, which adds no area.
    first = points[np.arange(len(points)), known.argmax(axis=1)]
    points = np.where(known[..., None], points, first[:, None]) - centre[:, None]
    order = np.arctan2(points[..., 1], points[..., 0]).argsort(axis=1)
    around = np.take_along_axis(points, order[..., None], axis=1)
    after = np.roll(around, -1, axis=1)
    area = np.abs((around[..., 0] * after[..., 1] - around[..., 1] * after[..., 0]).sum(axis=1)) / 2
    return np.minimum(np.where(count >= 3, area, 0.0), np.minimum(_area(one), _area(two)))


def _inside(points: NDArray[np.float64], hull: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N, P) whether points (N, P, 2) lie in convex hulls (N, 4, 2) of either orientation; borders included."""
    edge = np.roll(hull, -1, axis=1) - hull
    to = points[:, :, None] - hull[:, None]
    side = edge[:, None, :, 0] * to[..., 1] - edge[:, None, :, 1] * to[..., 0]
    # The tolerance scales with the figure, so that it suits boxes of any size.
    reach = np.maximum(np.abs(hull).max(axis=(1, 2)), np.abs(points).max(axis=(1, 2)))
    slack = (_TOLERANCE * np.hypot(edge[..., 0], edge[..., 1]) * reach[:, None])[:, None]
    return (side >= -slack).all(axis=2) | (side <= slack).all(axis=2)


def _crossings(one: NDArray[np.float64], two: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Crossings (N, 16, 2) of all pairs of edges, and (N, 16) whether they exist; parallel edges have none."""
    p, r = one[:, :, None], (np.roll(one, -1, axis=1) - one)[:, :, None]
    q, s = two[:, None], (np.roll(two, -1, axis=1) - two)[:, None]
    turn = r[..., 0] * s[..., 1] - r[..., 1] * s[..., 0]
    gap = q - p
    with np.errstate(divide="ignore", invalid="ignore"):
        along = (gap[..., 0] * s[..., 1] - gap[..., 1] * s[..., 0]) / turn
        across = (gap[..., 0] * r[..., 1] - gap[..., 1] * r[..., 0]) / turn
    lengths = np.hypot(r[..., 0], r[..., 1]) * np.hypot(s[..., 0], s[..., 1])
    crossed = (np.abs(turn) > _TOLERANCE * lengths) & (along >= 0) & (along <= 1) & (across >= 0) & (across <= 1)
    where = p + np.where(crossed, along, 0)[..., None] * r
    return where.reshape(len(one), 16, 2), crossed.reshape(len(one), 16)


def _area(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    after = np.roll(corners, -1, axis=1)
    return np.abs((corners[..., 0] * after[..., 1] - corners[..., 1] * after[..., 0]).sum(axis=1)) / 2


def _over_union(common: NDArray[np.float64], one: NDArray[np.float64], two: NDArray[np.float64]) -> NDArray[np.float64]:
    common = np.minimum(common, np.minimum(one, two))
    union = one + two - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def suppress(
    spans: NDArray[np.floating],
    scores: NDArray[np.floating],
    threshold: float,
    classes: NDArray[np.integer] | None = None,
    relative_to: Literal["union", "weaker"] = "union",
) -> NDArray[np.int64]:
    """Rows that survive non-maximum suppression, by decreasing score (of equal scores the later row first).

    `spans` (N, 2 D) are lower and upper bounds along D axes. A box is removed if its overlap with a stronger survivor exceeds
    `threshold`: intersection over union, or over the volume of the weaker box. With `classes`, only boxes of one class compete.
    """
    spans, axes = np.asarray(spans, np.float64), np.shape(spans)[1] // 2
    low, high = spans[:, :axes], spans[:, axes:]
    sides = np.minimum(high[:, None], high[None]) - np.maximum(low[:, None], low[None])
    common = np.maximum(sides, 0).prod(axis=2)
    volume = (high - low).prod(axis=1)
    whole = volume[None] + volume[:, None] - common if relative_to == "union" else np.broadcast_to(volume, common.shape)
    overlap = np.divide(common, whole, out=np.zeros_like(common), where=whole > 0)
    if classes is not None:
        overlap = np.where(np.asarray(classes)[:, None] == np.asarray(classes)[None], overlap, 0.0)
    return strongest_first(overlap, scores, threshold)


def strongest_first(overlap: NDArray[np.floating], scores: NDArray[np.floating], threshold: float) -> NDArray[np.int64]:
    """Rows that survive, by decreasing score (of equal scores the later row first): a row is removed if its `overlap` (N, N)
    with a stronger survivor exceeds `threshold`."""
    alive, kept = np.ones(len(scores), dtype=bool), []
    for row in np.argsort(scores, kind="stable")[::-1]:
        if alive[row]:
            kept.append(row)
            alive &= overlap[row] <= threshold
            alive[row] = False
    return np.asarray(kept, np.int64)
