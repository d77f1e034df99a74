"""What simulated sensors see of a world: a coloured, labelled cloud, and RGB-D frames by ray casting."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from benchmarks.procedural.rooms import World

_LIGHT = np.array([0.35, 0.25, 0.9]) / np.linalg.norm([0.35, 0.25, 0.9])


class CloudSample(NamedTuple):
    """xyz (N, 3) metres, rgb (N, 3) uint8, box (N,) the box each point lies on."""

    xyz: NDArray[np.float64]
    rgb: NDArray[np.uint8]
    box: NDArray[np.int64]


class Rendered(NamedTuple):
    """colour (H, W, 3) uint8; depth (H, W) uint16 millimetres along the optical axis, 0 for none."""

    colour: NDArray[np.uint8]
    depth: NDArray[np.uint16]


def sample_surfaces(world: World, rng: Generator, points_per_square_metre: float) -> CloudSample:
    """Points spread evenly over the visible faces, with 2 mm of noise along the normal and noisy colours."""
    xyz, normals, boxes, local = [], [], [], []
    for index in range(len(world.half)):
        half = world.half[index]
        for axis in range(3):
            others = [a for a in range(3) if a != axis]
            area = 4 * half[others[0]] * half[others[1]]
            for side in (-1.0, 1.0):
                count = rng.poisson(area * points_per_square_metre)
                point = rng.uniform(-1, 1, (count, 3)) * half
                point[:, axis] = side * half[axis]
                normal = np.zeros((count, 3))
                normal[:, axis] = side
                local.append(point)
                normals.append(_turn(normal, world.yaw[index]))
                xyz.append(_turn(point, world.yaw[index]) + world.centre[index])
                boxes.append(np.full(count, index))
    points, normal, box, inside_box = (np.concatenate(a) for a in (xyz, normals, boxes, local))
    probe = points + 0.004 * normal
    seen = ~_inside_any(world, probe) & (probe > -0.02).all(axis=1) & (probe < np.array(world.size) + 0.02).all(axis=1)
    points, normal, box, inside_box = points[seen], normal[seen], box[seen], inside_box[seen]
    colour = _shade(world, inside_box, normal, box) + rng.normal(0, 0.02, (len(points), 3))
    points = points + normal * rng.normal(0, 0.002, (len(points), 1))
    return CloudSample(points, (np.clip(colour, 0, 1) * 255).astype(np.uint8), box)


def render(
    world: World, pose: NDArray[np.float64], intrinsic: NDArray[np.float64], size: tuple[int, int], rng: Generator
) -> Rendered:
    """One RGB-D frame of `size` (width, height): depth noise grows with distance, depth is lost at grazing angles,
    on half of the window glass and beyond 6 m."""
    width, height = size
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    rays = np.stack(
        [(u - intrinsic[0, 2]) / intrinsic[0, 0], (v - intrinsic[1, 2]) / intrinsic[1, 1], np.ones_like(u, float)], -1
    ).reshape(-1, 3)
    directions = rays @ pose[:3, :3].T
    distance, box, normal = cast(world, pose[:3, 3], directions)
    hit = np.isfinite(distance)
    safe = np.where(hit, distance, 0.0)
    points = pose[:3, 3] + safe[:, None] * directions
    local = _turn(points - world.centre[box], -world.yaw[box])
    colour = _shade(world, local, normal, box) * hit[:, None] + rng.normal(0, 0.015, (len(points), 3))
    glass = np.array([label == "window" for label in world.labels])[box]
    cosine = np.abs((normal * directions).sum(1)) / np.linalg.norm(directions, axis=1)
    # The rays have unit z, so the distance along a ray is the depth along the optical axis.
    depth = safe + rng.normal(0, 1, len(safe)) * (0.0012 + 0.0019 * np.maximum(safe - 0.4, 0) ** 2)
    lost = (
        ~hit | (safe > 6.0) | (cosine < 0.12) | (glass & (rng.random(len(safe)) < 0.5)) | (rng.random(len(safe)) < 0.01)
    )
    millimetres = np.where(lost, 0, np.clip(np.round(depth * 1000), 1, 65534)).astype(np.uint16)
    picture = (np.clip(colour, 0, 1) * 255).astype(np.uint8)
    return Rendered(picture.reshape(height, width, 3), millimetres.reshape(height, width))


def cast(
    world: World, origin: NDArray[np.float64], directions: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """First hit of each ray (R, 3): multiples of the direction (R,), inf for none; box (R,); outward normal (R, 3)."""
    best = np.full(len(directions), np.inf)
    box = np.zeros(len(directions), dtype=np.int64)
    entry_axis = np.zeros(len(directions), dtype=np.int64)
    for index in range(len(world.half)):
        start = _turn((origin - world.centre[index])[None], -world.yaw[index])[0]
        ray = _turn(directions, -world.yaw[index])
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = 1.0 / ray
            one = (-world.half[index] - start) * inverse
            two = (world.half[index] - start) * inverse
        near = np.minimum(one, two)
        enter, leave = near.max(axis=1), np.maximum(one, two).min(axis=1)
        hit = (enter < leave) & (enter > 1e-6) & (enter < best)
        best[hit] = enter[hit]
        box[hit] = index
        entry_axis[hit] = near[hit].argmax(axis=1)
    rows = np.arange(len(directions))
    local = np.zeros_like(directions)
    local[rows, entry_axis] = -np.sign(_turn(directions, -world.yaw[box])[rows, entry_axis])
    return best, box, _turn(local, world.yaw[box])


def walk(world: World, rng: Generator, frames: int) -> list[NDArray[np.float64]]:
    """Camera-to-world poses of a slow pan from free spots of the room; neighbours overlap."""
    poses: list[NDArray[np.float64]] = []
    yaw = rng.uniform(0, 2 * math.pi)
    eye = _free_spot(world, rng)
    for number in range(frames):
        if number and number % 4 == 0:
            eye = _free_spot(world, rng)
        yaw += rng.uniform(0.3, 0.6)
        centre = np.array([world.size[0] / 2, world.size[1] / 2]) - eye[:2]
        # Look across the room more than into the nearest wall.
        heading = yaw if np.linalg.norm(centre) < 0.8 else math.atan2(centre[1], centre[0]) + 0.6 * math.sin(yaw)
        pitch = rng.uniform(-0.45, -0.1)
        forward = np.array([math.cos(heading) * math.cos(pitch), math.sin(heading) * math.cos(pitch), math.sin(pitch)])
        right = np.array([math.sin(heading), -math.cos(heading), 0.0])
        pose = np.eye(4)
        pose[:3, 0], pose[:3, 1], pose[:3, 2], pose[:3, 3] = right, np.cross(forward, right), forward, eye
        poses.append(pose)
    return poses


def _free_spot(world: World, rng: Generator) -> NDArray[np.float64]:
    for _ in range(100):
        eye = np.array(
            [rng.uniform(0.4, world.size[0] - 0.4), rng.uniform(0.4, world.size[1] - 0.4), rng.uniform(1.3, 1.8)]
        )
        if not _inside_any(
            world, eye[None] + np.array([[0, 0, 0], [0.2, 0, 0], [-0.2, 0, 0], [0, 0.2, 0], [0, -0.2, 0]])
        ).any():
            return eye
    return np.array([world.size[0] / 2, world.size[1] / 2, 2.2])


def _inside_any(world: World, points: NDArray[np.float64]) -> NDArray[np.bool_]:
    inside = np.zeros(len(points), dtype=bool)
    for index in range(len(world.half)):
        local = _turn(points - world.centre[index], -world.yaw[index])
        inside |= (np.abs(local) < world.half[index]).all(axis=1)
    return inside


def _turn(vectors: NDArray[np.float64], yaw: float | NDArray[np.float64]) -> NDArray[np.float64]:
    c, s = np.cos(yaw), np.sin(yaw)
    x, y = vectors[:, 0], vectors[:, 1]
    return np.stack([c * x - s * y, s * x + c * y, vectors[:, 2]], axis=1)


def _shade(
    world: World, local: NDArray[np.float64], normal: NDArray[np.float64], box: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(N, 3) colours in [0, 1]: base colour, texture in the box's own frame, and one soft light from above."""
    base = np.array([look.colour for look in world.looks])[box]
    kind = np.array([look.texture for look in world.looks])[box]
    phase = np.array([look.phase for look in world.looks])[box]
    frequency = np.array([look.frequency for look in world.looks])[box, None]
    wave = np.sin(2 * math.pi * frequency * local + phase)
    textures = np.stack(
        [
            np.zeros(len(local)),
            np.sign(wave[:, 0] + wave[:, 1]),
            np.sign(wave[:, 0] * wave[:, 1] * np.where(wave[:, 2] < 0, -1, 1)),
            wave.mean(1),
        ]
    )
    pattern = textures[kind, np.arange(len(local))] * np.array([look.contrast for look in world.looks])[box]
    light = 0.62 + 0.38 * np.clip(normal @ _LIGHT, -0.4, 1.0)
    return base * (1.0 + pattern[:, None]) * light[:, None]
