"""Geometry of boxes, cylinders and ellipsoids: ray hits, points on surfaces, and containment."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pretrain_bench.benchmarks.procedural.parts import BOX, CYLINDER, ELLIPSOID
from pretrain_bench.benchmarks.procedural.worlds import World

Normals = Callable[[NDArray[np.float64], NDArray[np.bool_]], NDArray[np.float64]]


def _hit_box(
    start: NDArray[np.float64], ray: NDArray[np.float64], half: NDArray[np.float64]
) -> tuple[NDArray[np.float64], Normals]:
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1.0 / ray
        one, two = (-half - start) * inverse, (half - start) * inverse
    near = np.minimum(one, two)
    enter, leave = near.max(axis=1), np.maximum(one, two).min(axis=1)

    def normals(distance: NDArray[np.float64], hit: NDArray[np.bool_]) -> NDArray[np.float64]:
        normals_of_hits = np.zeros((len(distance), 3))
        axis = near[hit].argmax(axis=1)
        rows = np.arange(len(distance))
        normals_of_hits[rows, axis] = -np.sign(ray[hit][rows, axis])
        return normals_of_hits

    return np.where(enter < leave, enter, np.inf), normals


def _hit_ellipsoid(
    start: NDArray[np.float64], ray: NDArray[np.float64], half: NDArray[np.float64]
) -> tuple[NDArray[np.float64], Normals]:
    s, r = start / half, ray / half
    a, b, c = (r * r).sum(1), r @ s, float(s @ s) - 1.0
    root = b * b - a * c
    enter = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf)

    def normals(distance: NDArray[np.float64], hit: NDArray[np.bool_]) -> NDArray[np.float64]:
        return unit((start + distance[:, None] * ray[hit]) / half**2)

    return enter, normals


def _hit_cylinder(
    start: NDArray[np.float64], ray: NDArray[np.float64], half: NDArray[np.float64]
) -> tuple[NDArray[np.float64], Normals]:
    s, r = start[:2] / half[:2], ray[:, :2] / half[:2]
    a, b, c = (r * r).sum(1), r @ s, float(s @ s) - 1.0
    root = b * b - a * c
    with np.errstate(divide="ignore", invalid="ignore"):
        width = np.sqrt(np.maximum(root, 0))
        side_in = np.where(a > 1e-12, (-b - width) / a, -np.inf if c < 0 else np.inf)
        side_out = np.where(a > 1e-12, (-b + width) / a, np.inf)
        one, two = (-half[2] - start[2]) / ray[:, 2], (half[2] - start[2]) / ray[:, 2]
    cap_in, cap_out = np.minimum(one, two), np.maximum(one, two)
    enter = np.maximum(side_in, cap_in)
    good = np.where(a > 1e-12, root > 0, c < 0) & (enter < np.minimum(side_out, cap_out))

    def normals(distance: NDArray[np.float64], hit: NDArray[np.bool_]) -> NDArray[np.float64]:
        point = start + distance[:, None] * ray[hit]
        side = np.concatenate([point[:, :2] / half[:2] ** 2, np.zeros((len(point), 1))], axis=1)
        cap = np.zeros_like(side)
        cap[:, 2] = -np.sign(ray[hit][:, 2])
        return np.where((cap_in > side_in)[hit][:, None], cap, unit(side))

    return np.where(good, enter, np.inf), normals


def _box_faces(
    half: NDArray[np.float64], rng: Generator, density: float
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    faces = []
    for axis in range(3):
        others = [a for a in range(3) if a != axis]
        for side in (-1.0, 1.0):
            count = rng.poisson(4 * half[others[0]] * half[others[1]] * density)
            point = rng.uniform(-1, 1, (count, 3)) * half
            point[:, axis] = side * half[axis]
            normal = np.zeros((count, 3))
            normal[:, axis] = side
            faces.append((point, normal))
    return faces


def _ellipsoid_faces(
    half: NDArray[np.float64], rng: Generator, density: float
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    p = 1.6075  # Knud Thomsen's approximation of the area
    a, b, c = half**p
    area = 4 * math.pi * ((a * b + a * c + b * c) / 3) ** (1 / p)
    sphere = unit(rng.normal(size=(rng.poisson(2 * area * density) + 1, 3)))
    # The area to which a patch of the unit sphere is stretched: points are kept in proportion to it.
    stretch = np.prod(half) * np.linalg.norm(sphere / half, axis=1)
    keep = rng.random(len(sphere)) * stretch.max() < stretch
    point = (sphere * half)[keep][: rng.poisson(area * density)]
    return [(point, unit(point / half**2))]


def _cylinder_faces(
    half: NDArray[np.float64], rng: Generator, density: float
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    around = math.pi * (3 * (half[0] + half[1]) - math.sqrt((3 * half[0] + half[1]) * (half[0] + 3 * half[1])))
    angle = rng.uniform(0, 2 * math.pi, rng.poisson(2 * around * half[2] * density))
    point = np.stack(
        [half[0] * np.cos(angle), half[1] * np.sin(angle), rng.uniform(-1, 1, len(angle)) * half[2]], axis=1
    )
    normal = unit(np.stack([np.cos(angle) / half[0], np.sin(angle) / half[1], np.zeros(len(angle))], axis=1))
    faces = [(point, normal)]
    for side in (-1.0, 1.0):
        count = rng.poisson(math.pi * half[0] * half[1] * density)
        angle, radius = rng.uniform(0, 2 * math.pi, count), np.sqrt(rng.random(count))
        cap = np.stack(
            [half[0] * radius * np.cos(angle), half[1] * radius * np.sin(angle), np.full(count, side * half[2])], axis=1
        )
        faces.append((cap, np.tile([0.0, 0.0, side], (count, 1))))
    return faces


INTERSECTIONS = {BOX: _hit_box, CYLINDER: _hit_cylinder, ELLIPSOID: _hit_ellipsoid}
"""By kind: maps start (3,), directions (R, 3) and half extents (3,) to distances (R,), inf for none, and a function for
normals."""
SURFACES = {BOX: _box_faces, CYLINDER: _cylinder_faces, ELLIPSOID: _ellipsoid_faces}
"""By kind: maps half extents (3,), generator and points per square metre to pairs of points (N, 3) and outward normals (N, 3)."""


def inside_any(world: World, points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N,) whether each point (N, 3) lies inside any solid."""
    inside = np.zeros(len(points), dtype=bool)
    order = np.argsort(points[:, 0])
    sorted_x = points[order, 0]
    reach = np.hypot(world.half[:, 0], world.half[:, 1])
    for index in range(len(world.half)):
        first, last = np.searchsorted(
            sorted_x, [world.centre[index, 0] - reach[index], world.centre[index, 0] + reach[index]]
        )
        rows = order[first:last]
        moved = points[rows] - world.centre[index]
        close = (np.abs(moved[:, 1]) < reach[index]) & (np.abs(moved[:, 2]) < world.half[index, 2])
        rows, moved = rows[close], moved[close]
        local = turn(moved, -world.yaw[index]) / world.half[index]
        kind = world.kind[index]
        if kind == BOX:
            within = (np.abs(local) < 1).all(axis=1)
        else:
            within = (local[:, : 2 if kind == CYLINDER else 3] ** 2).sum(axis=1) < 1
        inside[rows[within]] = True
    return inside


def turn(vectors: NDArray[np.float64], yaw: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotate vectors (N, 3) about z by `yaw` radians, one angle for all or one per row."""
    c, s = np.cos(yaw), np.sin(yaw)
    x, y = vectors[:, 0], vectors[:, 1]
    return np.stack([c * x - s * y, s * x + c * y, vectors[:, 2]], axis=1)


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normalise vectors (N, 3) to length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
