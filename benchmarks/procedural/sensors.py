"""Simulate sensors in a world by ray casting: coloured surface clouds, RGB-D frames, laser sweeps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pretrain_bench.benchmarks.procedural.solids import INTERSECTIONS, SURFACES, inside_any, turn
from pretrain_bench.benchmarks.procedural.worlds import World

_LIGHT = np.array([0.35, 0.25, 0.9]) / np.linalg.norm([0.35, 0.25, 0.9])
Window = Callable[[NDArray[np.float64]], list[tuple[slice, slice]]]
"""Maps the eight corners (8, 3) of a solid's box to the parts of the ray grid (rows, columns) that may hit it."""


class CloudSample(NamedTuple):
    """xyz (N, 3) metres, rgb (N, 3) uint8, instance (N,)."""

    xyz: NDArray[np.float64]
    rgb: NDArray[np.uint8]
    instance: NDArray[np.int64]


class Rendered(NamedTuple):
    """colour (H, W, 3) uint8; depth (H, W) uint16 millimetres along the optical axis, 0 for none; instance (H, W), -1 for
    none."""

    colour: NDArray[np.uint8]
    depth: NDArray[np.uint16]
    instance: NDArray[np.int64]


class Hits(NamedTuple):
    """First hits of rays (R,): distance as a multiple of the direction, inf for none; solid; outward normal (R, 3)."""

    distance: NDArray[np.float64]
    solid: NDArray[np.int64]
    normal: NDArray[np.float64]


def sample_surfaces(
    world: World, rng: Generator, points_per_square_metre: float, noise_metres: float = 0.002
) -> CloudSample:
    """Points spread evenly over the visible surfaces, with noise along the normal and noisy colours."""
    locals_, normals, solids = [], [], []
    for index in range(len(world.half)):
        for local, normal in SURFACES[int(world.kind[index])](world.half[index], rng, points_per_square_metre):
            locals_.append(local)
            normals.append(normal)
            solids.append(np.full(len(local), index))
    local, solid = np.concatenate(locals_), np.concatenate(solids)
    normal = turn(np.concatenate(normals), world.yaw[solid])
    points = turn(local, world.yaw[solid]) + world.centre[solid]
    probe = points + 0.004 * normal
    inside = (probe > -0.02).all(axis=1) & (probe < np.array(world.size) + 0.02).all(axis=1)
    # In window and door openings the surfaces lie within the thickness of the wall.
    inside |= (
        (probe > -0.11).all(axis=1) & (probe < np.array(world.size) + 0.11).all(axis=1) & (_openings(world)[solid])
    )
    seen = inside & ~inside_any(world, probe)
    local, normal, points, solid = local[seen], normal[seen], points[seen], solid[seen]
    colour = _shade(world, local, normal, points, solid) + rng.normal(0, 0.02, (len(points), 3))
    points = points + normal * rng.normal(0, noise_metres, (len(points), 1))
    return CloudSample(points, (np.clip(colour, 0, 1) * 255).astype(np.uint8), world.instance[solid])


def _openings(world: World) -> NDArray[np.bool_]:
    return np.array([label in ("window", "door") for label in world.labels])


def render(
    world: World, pose: NDArray[np.float64], intrinsic: NDArray[np.float64], size: tuple[int, int], rng: Generator
) -> Rendered:
    """Render one RGB-D frame of `size` (width, height) from the camera-to-world `pose` (4, 4) in metres, with `intrinsic` (3,
    3) in pixels. Depth noise grows with distance; depth is lost at grazing angles, on most of the window glass and beyond 6 m;
    the exposure varies."""
    width, height = size
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    rays = np.stack(
        [(u - intrinsic[0, 2]) / intrinsic[0, 0], (v - intrinsic[1, 2]) / intrinsic[1, 1], np.ones_like(u, float)], -1
    )
    directions = rays @ pose[:3, :3].T
    hits = cast(world, pose[:3, 3], directions, camera_window(pose, intrinsic, size))
    hit = np.isfinite(hits.distance)
    safe = np.where(hit, hits.distance, 0.0)
    flat = directions.reshape(-1, 3)
    points = pose[:3, 3] + safe[:, None] * flat
    local = turn(points - world.centre[hits.solid], -world.yaw[hits.solid])
    sky = np.array([0.62, 0.74, 0.9])
    colour = np.where(hit[:, None], _shade(world, local, hits.normal, points, hits.solid), sky)
    colour = colour * rng.uniform(0.85, 1.1) + rng.normal(0, 0.015, (len(points), 3))
    glass = np.array([label == "window" for label in world.labels])[hits.solid]
    cosine = np.abs((hits.normal * flat).sum(1)) / np.linalg.norm(flat, axis=1)
    # The rays have unit z, so the distance along a ray is the depth along the optical axis.
    depth = safe + rng.normal(0, 1, len(safe)) * (0.0012 + 0.0019 * np.maximum(safe - 0.4, 0) ** 2)
    chance = rng.random((2, len(safe)))
    lost = ~hit | (safe > 6.0) | (cosine < 0.12) | (glass & (chance[0] < 0.7)) | (chance[1] < 0.01)
    millimetres = np.where(lost, 0, np.clip(np.round(depth * 1000), 1, 65534)).astype(np.uint16)
    picture = (np.clip(colour, 0, 1) * 255).astype(np.uint8)
    instance = np.where(hit, world.instance[hits.solid], -1)
    return Rendered(
        picture.reshape(height, width, 3), millimetres.reshape(height, width), instance.reshape(height, width)
    )


def sweep(
    world: World, pose: NDArray[np.float64], elevations: NDArray[np.float64], azimuths: int, rng: Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Simulate one rotation of a spinning laser at `pose` (4, 4): (N, 4) x, y, z in its own frame and remission; (N,) instances.

    Range noise is 2 cm; there are no returns beyond 80 m, and fewer at grazing angles and far away.
    """
    angles = np.linspace(math.pi, -math.pi, azimuths, endpoint=False)
    el, az = np.meshgrid(elevations, angles, indexing="ij")
    rays = np.stack([np.cos(el) * np.cos(az), np.cos(el) * np.sin(az), np.sin(el)], axis=-1)
    directions = rays @ pose[:3, :3].T
    hits = cast(world, pose[:3, 3], directions, laser_window(pose, elevations, angles))
    flat, own = directions.reshape(-1, 3), rays.reshape(-1, 3)
    cosine = np.abs((hits.normal * flat).sum(1))
    near = np.isfinite(hits.distance) & (hits.distance < 80.0)
    safe = np.where(near, hits.distance, 0.0)
    keep = near & (safe > 1.5) & (rng.random(len(flat)) < np.clip(0.35 + 3 * cosine, 0, 0.98) * np.exp(-safe / 150))
    points = pose[:3, 3] + safe[:, None] * flat
    local = turn(points - world.centre[hits.solid], -world.yaw[hits.solid])
    albedo = _shade(world, local, hits.normal, points, hits.solid).mean(axis=1)
    remission = np.clip(albedo * (0.35 + 0.65 * cosine) * np.exp(-safe / 60) + rng.normal(0, 0.04, len(flat)), 0, 0.99)
    distance = safe + rng.normal(0, 0.02, len(flat))
    returns = np.concatenate([own * distance[:, None], remission[:, None]], axis=1)[keep]
    return returns.astype(np.float32), world.instance[hits.solid][keep]


def cast(world: World, origin: NDArray[np.float64], directions: NDArray[np.float64], window: Window) -> Hits:
    """First hit of each ray of a grid (H, W, 3); each solid is tested only against the rays that `window` selects."""
    shape = directions.shape[:2]
    best = np.full(shape, np.inf)
    solid = np.zeros(shape, dtype=np.int64)
    normal = np.zeros((*shape, 3))
    signs = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
    for index in range(len(world.half)):
        half, yaw, centre = world.half[index], world.yaw[index], world.centre[index]
        start = turn((origin - centre)[None], -yaw)[0]
        for rows, columns in window(turn(signs * half, yaw) + centre):
            ray = turn(directions[rows, columns].reshape(-1, 3), -yaw)
            if not len(ray):
                continue
            nearest = best[rows, columns].reshape(-1)
            enter, local = INTERSECTIONS[int(world.kind[index])](start, ray, half)
            hit = (enter > 1e-6) & (enter < nearest)
            if not hit.any():
                continue
            rectangle = best[rows, columns].shape
            mask = hit.reshape(rectangle)
            best[rows, columns][mask] = enter[hit]
            solid[rows, columns][mask] = index
            normal[rows, columns][mask] = turn(local(enter[hit], hit), yaw)
    return Hits(best.reshape(-1), solid.reshape(-1), normal.reshape(-1, 3))


def camera_window(pose: NDArray[np.float64], intrinsic: NDArray[np.float64], size: tuple[int, int]) -> Window:
    """Window of the pixels that a solid can cover, for a camera-to-world `pose` (4, 4) and `intrinsic` (3, 3) in pixels;
    `size` is (width, height)."""
    width, height = size
    back = pose[:3, :3]
    everything = [(slice(0, height), slice(0, width))]

    def window(corners: NDArray[np.float64]) -> list[tuple[slice, slice]]:
        seen = (corners - pose[:3, 3]) @ back
        if (seen[:, 2] < 0.02).all():
            return []
        if (seen[:, 2] < 0.02).any():
            return everything
        u = seen[:, 0] / seen[:, 2] * intrinsic[0, 0] + intrinsic[0, 2]
        v = seen[:, 1] / seen[:, 2] * intrinsic[1, 1] + intrinsic[1, 2]
        left, right = max(0, math.floor(u.min())), min(width, math.ceil(u.max()) + 1)
        top, bottom = max(0, math.floor(v.min())), min(height, math.ceil(v.max()) + 1)
        return [(slice(top, bottom), slice(left, right))] if left < right and top < bottom else []

    return window


def laser_window(pose: NDArray[np.float64], elevations: NDArray[np.float64], azimuths: NDArray[np.float64]) -> Window:
    """Window of the beams and columns that can hit a solid, for a laser at `pose` (4, 4); all of them if the sensor is above or
    below it."""
    count = len(azimuths)
    everything = [(slice(0, len(elevations)), slice(0, count))]

    def window(corners: NDArray[np.float64]) -> list[tuple[slice, slice]]:
        seen = (corners - pose[:3, 3]) @ pose[:3, :3]
        if np.hypot(seen[:, 0], seen[:, 1]).min() > 90:
            return []
        angle = np.arctan2(seen[:, 1], seen[:, 0])
        middle = math.atan2(seen[:, 1].mean(), seen[:, 0].mean())
        away = (angle - middle + math.pi) % (2 * math.pi) - math.pi
        if away.max() - away.min() > 0.9 * math.pi:
            return everything
        # Columns run from +pi downwards.
        step = 2 * math.pi / count
        first = math.floor((math.pi - (middle + away.max())) / step) - 1
        last = math.ceil((math.pi - (middle + away.min())) / step) + 2
        rows = slice(0, len(elevations))
        first, last = first % count, first % count + (last - first)
        if last <= count:
            return [(rows, slice(first, last))]
        return [(rows, slice(first, count)), (rows, slice(0, last - count))]

    return window


def walk(world: World, rng: Generator, frames: int) -> list[NDArray[np.float64]]:
    """Camera-to-world poses (4, 4), in metres, of a slow pan of `frames` frames through the room; neighbouring frames overlap
    strongly."""
    poses: list[NDArray[np.float64]] = []
    eye = _free_spot(world, rng)
    target = np.array([world.size[0] / 2, world.size[1] / 2])
    heading = math.atan2(target[1] - eye[1], target[0] - eye[0]) + rng.uniform(-0.8, 0.8)
    turn = float(rng.choice([-1, 1]))
    for _ in range(frames):
        ahead = eye + np.array([rng.uniform(-0.25, 0.25), rng.uniform(-0.25, 0.25), rng.normal(0, 0.03)])
        inside = (ahead[:2] > 0.35).all() and (ahead[:2] < np.array(world.size[:2]) - 0.35).all()
        if inside and not inside_any(world, ahead + _AROUND).any():
            eye = ahead
        heading += turn * rng.uniform(0.1, 0.45)
        # Turn back towards the far side instead of facing the nearest wall.
        way = [world.size[0] / 2 - eye[0], world.size[1] / 2 - eye[1]]
        if math.hypot(*way) > 0.8 and math.cos(heading - math.atan2(way[1], way[0])) < -0.2:
            turn = 1.0 if math.sin(math.atan2(way[1], way[0]) - heading) > 0 else -1.0
        poses.append(look(eye, heading, rng.uniform(-0.5, -0.1)))
    return poses


def look(eye: NDArray[np.float64], heading: float, pitch: float) -> NDArray[np.float64]:
    """(4, 4) camera-to-world of a level camera: x right, y down, z forward; angles in radians."""
    forward = np.array([math.cos(heading) * math.cos(pitch), math.sin(heading) * math.cos(pitch), math.sin(pitch)])
    right = np.array([math.sin(heading), -math.cos(heading), 0.0])
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2], pose[:3, 3] = right, np.cross(forward, right), forward, eye
    return pose


_AROUND = np.array([[0, 0, 0], [0.2, 0, 0], [-0.2, 0, 0], [0, 0.2, 0], [0, -0.2, 0]])


def _free_spot(world: World, rng: Generator) -> NDArray[np.float64]:
    for _ in range(100):
        eye = np.array(
            [rng.uniform(0.4, world.size[0] - 0.4), rng.uniform(0.4, world.size[1] - 0.4), rng.uniform(1.3, 1.8)]
        )
        if not inside_any(world, eye + _AROUND).any():
            return eye
    return np.array([world.size[0] / 2, world.size[1] / 2, 2.2])


def _shade(
    world: World,
    local: NDArray[np.float64],
    normal: NDArray[np.float64],
    points: NDArray[np.float64],
    solid: NDArray[np.int64],
) -> NDArray[np.float64]:
    """(N, 3) colours in [0, 1]: base colour, texture in the solid's own frame, soft light from above and from a lamp."""
    base = np.array([look.colour for look in world.looks])[solid]
    kind = np.array([look.texture for look in world.looks])[solid]
    phase = np.array([look.phase for look in world.looks])[solid]
    frequency = np.array([look.frequency for look in world.looks])[solid, None]
    contrast = np.array([look.contrast for look in world.looks])[solid]
    wave = np.sin(2 * math.pi * frequency * local + phase)
    stripes, checks = (
        np.sign(wave[:, 0] + wave[:, 1]),
        np.sign(wave[:, 0] * wave[:, 1] * np.where(wave[:, 2] < 0, -1, 1)),
    )
    pattern = np.choose(kind, [np.zeros(len(local)), stripes, checks, wave.mean(1)]) * contrast
    light = 0.52 + 0.28 * np.clip(normal @ _LIGHT, -0.4, 1.0)
    lamp = np.array([world.size[0] / 2, world.size[1] / 2, world.size[2] - 0.2]) - points
    far = np.linalg.norm(lamp, axis=1)
    light = light + 0.3 * np.clip((normal * lamp).sum(1) / np.maximum(far, 0.2), 0, 1) / (1 + 0.15 * far**2)
    return base * (1.0 + pattern[:, None]) * light[:, None]
