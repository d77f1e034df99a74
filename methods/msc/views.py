"""Two views of one scan (spec 1.2), in numpy.

Coordinates are metres, z up; colours are 0..255 until a view is finished. Functions change nothing in place.
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
    """One view: coordinates (V, 3) int32 voxels, from 0 before the crop; origin (V, 3) float32 metres, where the voxel's point
    lies before it was turned; colours (V, 3) float32 in -0.5..0.5."""

    coordinates: NDArray[np.int32]
    origin: NDArray[np.float32]
    colours: NDArray[np.float32]


class ScanViews(NamedTuple):
    """Both views of one scan, and the (M, 2) int64 rows of both that may match, sorted by the first."""

    one: View
    two: View
    candidates: NDArray[np.int64]


def scan_views(xyz: NDArray, rgb: NDArray, recipe: MaskedSceneContrast, rng: Generator) -> ScanViews | None:
    """Two views of a scan of points (N, 3) in metres, z up, and colours (N, 3) in 0..255; None where they are too small or
    overlap too little."""
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
    """(N, 3) float32: the middle of the bounding box at x = y = 0, the lowest point at z = 0, times `scale`."""
    low, high = xyz.min(axis=0), xyz.max(axis=0)
    base = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]], xyz.dtype)
    return ((xyz - base) * scale).astype(np.float32)


def shared_region(origin: NDArray[np.float32], recipe: MaskedSceneContrast, rng: Generator) -> NDArray[np.bool_]:
    """(N,) points in the voxels nearest to a random voxel, as many as crop to `max_voxels_per_view`.

    The voxels are those of a moved copy, as a view has them: turned walls and floors fill more voxels than straight ones.
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
    shuffled = rng.permutation(len(cells))  # so that the first point of a voxel is a random one (J-34)
    voxels = quantise(cells[shuffled] - cells.min(axis=0))
    rows = shuffled[voxels.representative]
    kept = sphere(xyz[rows], int(rng.integers(len(rows))), view_size(len(rows), recipe))
    colours = rgb[rows[kept]] / 255 - 0.5
    return View(voxels.coordinates[kept], origin[rows[kept]], colours.astype(np.float32))


def view_size(voxels: int, recipe: MaskedSceneContrast) -> int:
    """How many of a number of voxels are kept."""
    kept = int(recipe.crop_share * voxels)
    return min(kept, recipe.max_voxels_per_view or kept)


def moved(origin: NDArray[np.float32], recipe: MaskedSceneContrast, rng: Generator) -> Points:
    """Points (N, 3) turned, mirrored and jittered at random."""
    angles = [np.radians(rng.uniform(-bound, bound)) for bound in recipe.rotation_degrees]
    xyz = mirrored(turned(origin.astype(np.float64), angles), rng.random(2) < recipe.flip_probability)
    deviation, bound = recipe.jitter_voxels * recipe.voxel_metres, recipe.jitter_clip_voxels * recipe.voxel_metres
    return xyz + np.clip(deviation * rng.standard_normal(xyz.shape), -bound, bound)


def turned(xyz: Points, angles: Sequence[float]) -> Points:
    """By `angles` (about x, y, z, radians): about z through the origin, then about x and about y through the middle of the
    bounding box at that moment."""
    about_x, about_y, about_z = (axis_rotation(axis, angle).T for axis, angle in enumerate(angles))
    xyz = xyz @ about_z
    for rotation in (about_x, about_y):
        middle = (xyz.min(axis=0) + xyz.max(axis=0)) / 2
        xyz = (xyz - middle) @ rotation + middle
    return xyz


def mirrored(xyz: Points, flips: NDArray[np.bool_]) -> Points:
    """x and y negated where `flips` (2,) says so."""
    return xyz * np.append(np.where(flips, -1.0, 1.0), 1.0)


def recoloured(rgb: Points, order: Sequence[int] | NDArray, factors: NDArray, applied: NDArray[np.bool_]) -> Points:
    """Colours (N, 3) in 0..255 after brightness, contrast, saturation and hue (kinds 0 to 3) in `order`.

    `factors` (4,) go by kind: three factors, and turns of the hue circle; `applied` (4,) by place in the order.
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
    """Colours (N, 3), any range, with the hue of the HSV cone turned; grey stays."""
    value = rgb.max(axis=1)
    span = value - rgb.min(axis=1)
    safe = np.where(span > 0, span, 1.0)
    red, green, blue = rgb.T
    sector = np.where(
        value == red, (green - blue) / safe, np.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    )
    # A channel of a pure hue is a trapezoid over the six sectors of the circle; channels start at different sectors.
    places = (np.array([5.0, 3.0, 1.0]) + (sector + 6 * turns)[:, None]) % 6
    return value[:, None] - span[:, None] * np.clip(np.minimum(places, 4 - places), 0, 1)


def sphere(points: Points, centre: int, count: int) -> NDArray[np.int64]:
    """Sorted rows of the `count` points nearest to row `centre`."""
    return nearest_rows(points, points[centre], count)


def match_candidates(
    one: NDArray[np.float32], two: NDArray[np.float32], radius: float, neighbours: int
) -> NDArray[np.int64]:
    """(M, 2) rows of `one` and `two`: for each row of `one` those of its nearest `neighbours` rows of `two` that are closer than
    `radius` metres; sorted by the first row, then by distance."""
    distances, rows = cKDTree(two).query(one, k=np.arange(1, neighbours + 1), distance_upper_bound=radius)
    first, place = np.nonzero(distances < radius)
    return np.stack([first, rows[first, place]], axis=1).astype(np.int64)
