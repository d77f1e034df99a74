"""DepthContrast's augmentations of one scan, in the order of the original (spec D.3), in numpy.

A scan is (N, 6) float64: xyz in metres in the camera frame (x right, y down, z forward), and rgb in 0..255.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pretrain_bench.benchmarks.datasets.views import Frame, camera_points
from pretrain_bench.methods.depthcontrast.recipe import DepthContrast

Scan = NDArray[np.float64]
TRIES = 100


def frame_scan(frame: Frame, points: int, rng: Generator) -> Scan | None:
    """Exactly `points` random points of a frame, repeated only if it has fewer; None if it has none."""
    seen = camera_points(frame)
    if not len(seen.xyz):
        return None
    return resample(np.concatenate([seen.xyz, seen.rgb], axis=1), points, rng)


def augmented(scan: Scan, recipe: DepthContrast, rng: Generator) -> Scan:
    """One augmented copy of exactly `recipe.points` points: crop, drop, resample, flip, turn and scale."""
    scan = resample(scan, min(len(scan), recipe.scan_points), rng)
    scan = crop_cuboid(scan, recipe, rng)
    scan = drop_cuboid(scan, recipe.drop_share, rng)
    scan = resample(scan, int(rng.choice(recipe.sizes)), rng)
    flip = np.where(rng.random(2) < 0.5, -1.0, 1.0)
    xyz = scan[:, :3] * np.append(flip, 1.0)
    xyz = xyz @ turn_about_one_axis(rng).T * rng.uniform(*recipe.scale)
    return resample(np.concatenate([xyz, scan[:, 3:]], axis=1), recipe.points, rng)


def resample(scan: Scan, count: int, rng: Generator) -> Scan:
    """`count` random points, without repeats if the scan has enough."""
    return scan[rng.choice(len(scan), count, replace=len(scan) < count)]


def crop_cuboid(scan: Scan, recipe: DepthContrast, rng: Generator) -> Scan:
    """The points in a random cuboid around a random point; the whole scan if TRIES cuboids in a row leave too few points."""
    for _ in range(TRIES):
        shares = rng.uniform(*recipe.crop_share, 3)
        pairs = shares[[0, 0, 1]], shares[[1, 2, 2]]
        if (np.minimum(*pairs) / np.maximum(*pairs)).max() >= recipe.crop_aspect:
            break
    half = np.ptp(scan[:, :3], axis=0) * shares / 2
    for _ in range(TRIES):
        centre = scan[rng.integers(len(scan)), :3]
        inside = (np.abs(scan[:, :3] - centre) <= half).all(axis=1)
        if inside.sum() > recipe.crop_least_points:
            return scan[inside]
    return scan


def drop_cuboid(scan: Scan, share: float, rng: Generator) -> Scan:
    """Remove the points in a cuboid around a random point, with sides of `share` of the scan's; keep all if none would remain."""
    half = np.ptp(scan[:, :3], axis=0) * share / 2
    centre = scan[rng.integers(len(scan)), :3]
    outside = (np.abs(scan[:, :3] - centre) > half).any(axis=1)
    return scan[outside] if outside.any() else scan


def turn_about_one_axis(rng: Generator) -> NDArray[np.float64]:
    """(3, 3) rotation by a uniform angle: about x with probability 0.33, else about y with probability 0.66, else about z."""
    axis = 0 if rng.random() <= 0.33 else 1 if rng.random() <= 0.66 else 2
    angle = rng.uniform(-np.pi, np.pi)
    one, two = (axis + 1) % 3, (axis + 2) % 3
    turn = np.eye(3)
    turn[one, one] = turn[two, two] = np.cos(angle)
    turn[two, one] = np.sin(angle)
    turn[one, two] = -turn[two, one]
    return turn
