"""Two views of one scan (spec 1.2), in numpy.

Coordinates are in metres, z up; colours are in 0..255 until a view is complete. No function changes its arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pretrain_bench.benchmarks.input.transforms import axis_rotation, crop_to_voxels, nearest_rows
from pretrain_bench.benchmarks.input.voxelise import quantise, to_cells
from pretrain_bench.methods.msc.recipe import MaskedSceneContrast

Points = NDArray[np.float64]
GREY = np.array([0.2989, 0.587, 0.114])
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


class View(NamedTuple):
    """One view: coordinates (V, 3) int32 voxels, starting at 0 before the crop; origin (V, 3) float32 metres, the position of the
    voxel's point before the view was moved; colours (V, 3) float32 in -0.5..0.5."""

    coordinates: NDArray[np.int32]
    origin: NDArray[np.float32]
    colours: NDArray[np.float32]


class ScanViews(NamedTuple):
    """Both views of one scan, and candidate matches (M, 2) int64 as rows of both, sorted by the first."""

    one: View
    two: View
    candidates: NDArray[np.int64]


def scan_views(xyz: NDArray, rgb: NDArray, recipe: MaskedSceneContrast, rng: Generator) -> ScanViews | None:
    """Two views of a scan with points (N, 3) in metres, z up, and colours (N, 3) in 0..255; None if they are too small or overlap
    too little."""
    if not len(xyz):
        return None
    origin = settled(np.asarray(xyz), rng.uniform(*recipe.scale))
    if recipe.max_voxels_per_view is not None:
        region = shared_region(origin, recipe, rng)
        origin, rgb = origin[region], rgb[region]
    colours = np.asarray(rgb, np.float64)
    one, two = (draw_view(origin, colours, recipe, rng) for _ in range(2))
    if min(len(one.coordinates), len(two.coordinates)) < recipe.least_voxels_per_view:
        return None
    radius = recipe.match_voxels * recipe.voxel_metres
    candidates = match_candidates(one.origin, two.origin, radius, recipe.match_neighbours)
    if len(np.unique(candidates[:, 0])) < recipe.least_pairs:
        return None
    return ScanViews(one, two, candidates)


def settled(xyz: NDArray, scale: float) -> NDArray[np.float32]:
    """(N, 3) float32: points shifted so that the bounding box is centred at x = y = 0 and starts at z = 0, then scaled."""
    low, high = xyz.min(axis=0), xyz.max(axis=0)
    base = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]], xyz.dtype)
    return ((xyz - base) * scale).astype(np.float32)


def shared_region(origin: NDArray[np.float32], recipe: MaskedSceneContrast, rng: Generator) -> NDArray[np.bool_]:
    """(N,) mask of the points in the voxels nearest to a random one, as many as the crop reduces to `max_voxels_per_view`.

    Voxels are counted on a randomly moved copy, as in a view: tilted walls and floors occupy more voxels than aligned ones.
    """
    assert recipe.max_voxels_per_view is not None
    voxels = quantise(to_cells(moved(origin, recipe, rng), recipe.voxel_metres))
    rows = crop_to_voxels(voxels.coordinates.astype(np.int64), int(recipe.max_voxels_per_view / recipe.crop_share), rng)
    kept = np.zeros(len(voxels.coordinates), dtype=bool)
    kept[rows] = True
    return kept[voxels.inverse]


def draw_view(origin: NDArray[np.float32], rgb: Points, recipe: MaskedSceneContrast, rng: Generator) -> View:
    """One view of points (N, 3) with colours (N, 3) in 0..255: moved, recoloured, voxelised and cropped."""
    xyz = moved(origin, recipe, rng)
    strengths = np.array(recipe.colour_jitter)
    factors = np.array([1.0, 1.0, 1.0, 0.0]) + rng.uniform(-strengths, strengths)
    rgb = recoloured(rgb, rng.permutation(4), factors, rng.random(4) < recipe.colour_jitter_probability)
    if rng.random() < recipe.colour_noise_probability:
        rgb = np.clip(rgb + recipe.colour_noise * 255 * rng.standard_normal(rgb.shape), 0, 255)
    cells = to_cells(xyz, recipe.voxel_metres)
    shuffled = rng.permutation(len(cells))  # makes the first point of a voxel a random one (J-34)
    voxels = quantise(cells[shuffled] - cells.min(axis=0))
    rows = shuffled[voxels.representative]
    kept = sphere(xyz[rows], int(rng.integers(len(rows))), view_size(len(rows), recipe))
    colours = rgb[rows[kept]] / 255 - 0.5
    return View(voxels.coordinates[kept], origin[rows[kept]], colours.astype(np.float32))


def view_size(voxels: int, recipe: MaskedSceneContrast) -> int:
    """The number of voxels that the crop keeps out of `voxels`."""
    kept = int(recipe.crop_share * voxels)
    return min(kept, recipe.max_voxels_per_view or kept)


def moved(origin: NDArray[np.float32], recipe: MaskedSceneContrast, rng: Generator) -> Points:
    """Points (N, 3) in metres, randomly rotated, mirrored and jittered."""
    angles = [np.radians(rng.uniform(-bound, bound)) for bound in recipe.rotation_degrees]
    xyz = mirrored(turned(origin.astype(np.float64), angles), rng.random(2) < recipe.flip_probability)
    deviation, bound = recipe.jitter_voxels * recipe.voxel_metres, recipe.jitter_clip_voxels * recipe.voxel_metres
    return xyz + np.clip(deviation * rng.standard_normal(xyz.shape), -bound, bound)


def turned(xyz: Points, angles: Sequence[float]) -> Points:
    """Rotate points (N, 3) by `angles` (about x, y, z, in radians): about z through the origin, then about x and about y, each
    through the centre of the current bounding box."""
    about_x, about_y, about_z = (axis_rotation(axis, angle).T for axis, angle in enumerate(angles))
    xyz = xyz @ about_z
    for rotation in (about_x, about_y):
        middle = (xyz.min(axis=0) + xyz.max(axis=0)) / 2
        xyz = (xyz - middle) @ rotation + middle
    return xyz


def mirrored(xyz: Points, flips: NDArray[np.bool_]) -> Points:
    """Negate x and y of points (N, 3) where `flips` (2,) is true."""
    return xyz * np.append(np.where(flips, -1.0, 1.0), 1.0)


def recoloured(rgb: Points, order: Sequence[int] | NDArray, factors: NDArray, applied: NDArray[np.bool_]) -> Points:
    """Colours (N, 3) in 0..255 after brightness, contrast, saturation and hue (kinds 0 to 3) in `order`.

    `factors` (4,) by kind: three factors, then the hue shift in turns of the hue circle. `applied` (4,) by position in `order`.
    """
    for kind in np.asarray(order)[applied]:
        factor = factors[kind]
        if kind == BRIGHTNESS:
            rgb = np.clip(factor * rgb, 0, 255)
        elif kind == CONTRAST:
            rgb = np.clip(factor * rgb + (1 - factor) * (rgb @ GREY).mean(), 0, 255)
        elif kind == SATURATION:
            rgb = np.clip(factor * rgb + (1 - factor) * (rgb @ GREY)[:, None], 0, 255)
        else:
            rgb = hue_turned(rgb, factor)
    return rgb


def hue_turned(rgb: Points, turns: float) -> Points:
    """Shift the HSV hue of colours (N, 3), in any range, by `turns` of the hue circle; grey is unchanged."""
    value = rgb.max(axis=1)
    span = value - rgb.min(axis=1)
    safe = np.where(span > 0, span, 1.0)
    red, green, blue = rgb.T
    sector = np.where(
        value == red, (green - blue) / safe, np.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    )
    # Each channel of a pure hue is a trapezoid over the six sectors of the hue circle, shifted from channel to channel.
    places = (np.array([5.0, 3.0, 1.0]) + (sector + 6 * turns)[:, None]) % 6
    return value[:, None] - span[:, None] * np.clip(np.minimum(places, 4 - places), 0, 1)


def sphere(points: Points, centre: int, count: int) -> NDArray[np.int64]:
    """Sorted rows of the `count` points nearest to row `centre`."""
    return nearest_rows(points, points[centre], count)


def match_candidates(
    one: NDArray[np.float32], two: NDArray[np.float32], radius: float, neighbours: int
) -> NDArray[np.int64]:
    """(M, 2) pairs of rows of `one` (N, 3) and `two` (K, 3): for each row of `one`, those of its `neighbours` nearest rows of
    `two` that are closer than `radius` metres; sorted by the first row, then by distance."""
    distances, rows = cKDTree(two).query(one, k=np.arange(1, neighbours + 1), distance_upper_bound=radius)
    first, place = np.nonzero(distances < radius)
    return np.stack([first, rows[first, place]], axis=1).astype(np.int64)
