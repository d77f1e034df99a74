"""The fine-tuning input pipeline of segmentation, step by step (spec C.3), in numpy.

Coordinates are metres before voxelisation and voxels after it; colours are 0 to 255 until they reach the network. Every function
draws from the given generator in a fixed order and does not modify its inputs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pretrain_bench.benchmarks.datasets.views import Cloud
from pretrain_bench.benchmarks.input.voxelise import IGNORE, Voxels, bounds, quantise, to_cells, voxel_labels
from pretrain_bench.benchmarks.specs.recipes import InstanceRecipe, SemanticRecipe

Array = NDArray[Any]


class VoxelSample(NamedTuple):
    """coordinates (V, 3) int32 voxels; rgb (V, 3) float32 in 0..255; labels (V,) uint8, 255 ignored; instances (V,) int32, -1 for
    none, or None if none were given."""

    coordinates: NDArray[np.int32]
    rgb: NDArray[np.float32]
    labels: NDArray[np.uint8]
    instances: NDArray[np.int32] | None = None


def training_sample(
    cloud: Cloud,
    semantic: NDArray[np.uint8],
    recipe: SemanticRecipe,
    rng: Generator,
    few_labels: bool = False,
    instances: NDArray[np.int32] | None = None,
) -> VoxelSample:
    """Make one augmented training sample from a scene with labels (N,) and optional `instances` (N,), -1 for none.

    With `few_labels`, unlabelled points do not conflict with the label of their voxel, as they were never annotated. Raises
    ValueError for a scene without points.
    """
    if len(cloud.xyz) == 0:
        raise ValueError("the scene has no points")
    xyz, rgb, labels = np.asarray(cloud.xyz, np.float64), np.asarray(cloud.rgb), np.asarray(semantic)
    objects = np.full(len(labels), -1, np.int32) if instances is None else np.asarray(instances)
    if recipe.within_metres is not None:
        near = np.flatnonzero((np.abs(xyz[:, :2]) <= recipe.within_metres).all(axis=1))
        if len(near):
            xyz, rgb = xyz.take(near, axis=0), rgb.take(near, axis=0)
            labels, objects = labels.take(near), objects.take(near)
    if recipe.elastic and rng.random() < recipe.elastic_probability:
        for granularity, magnitude in recipe.elastic:
            xyz = elastic_distortion(xyz, granularity, magnitude, elastic_noise(xyz, granularity, rng))
    if recipe.clip_metres is not None:
        inside = np.flatnonzero(clip_mask(xyz, recipe.clip_metres, rng))
        xyz, rgb = xyz.take(inside, axis=0), rgb.take(inside, axis=0)
        labels, objects = labels.take(inside), objects.take(inside)
    turned = xyz @ (random_rotation(recipe.rotation_degrees, rng) * rng.uniform(*recipe.scale)).T
    cells = to_cells(turned, recipe.voxel_metres)
    voxels = quantise(cells - bounds(cells)[0])
    coordinates = voxels.coordinates.astype(np.int64)
    colour: Array = rgb[voxels.representative].astype(np.float64)
    if few_labels:
        label, thing = labels_of_the_labelled(labels, voxels), labels_of_the_labelled(objects, voxels, ignore=-1)
    else:
        first = isinstance(recipe, InstanceRecipe) and recipe.instance_of_voxel == "first"
        label = voxel_labels(labels, voxels)
        thing = objects[voxels.representative] if first else voxel_labels(objects, voxels, ignore=-1)
    if recipe.max_voxels_per_scene is not None:
        keep = crop_to_voxels(coordinates, recipe.max_voxels_per_scene, rng)
        coordinates, colour, label, thing = coordinates[keep], colour[keep], label[keep], thing[keep]
    if rng.random() < recipe.dropout_probability:
        kept = int(len(coordinates) * (1 - recipe.dropout_share))
        keep = np.sort(rng.permutation(len(coordinates))[: max(1, kept)])
        coordinates, colour, label, thing = coordinates[keep], colour[keep], label[keep], thing[keep]
    coordinates = flip_horizontal(coordinates, recipe.flip_probability, rng)
    colour = auto_contrast(colour, recipe.contrast_probability, rng)
    colour = translate_colour(colour, recipe.translation_ratio, rng)
    colour = jitter_colour(colour, recipe.jitter_std, rng)
    coordinates = coordinates + rng.integers(0, recipe.offset_voxels + 1, 3)
    if instances is None:
        return VoxelSample(coordinates.astype(np.int32), colour.astype(np.float32), label)
    thing = np.where(label == IGNORE, np.int32(-1), thing)
    return VoxelSample(coordinates.astype(np.int32), colour.astype(np.float32), label, thing)


def labels_of_the_labelled(labels: Array, voxels: Voxels, ignore: int = IGNORE) -> Array:
    """(V,) the label shared by all labelled points of a voxel; `ignore` if they differ or there are none."""
    known = labels != ignore
    rows, values, limits = voxels.inverse[known], labels[known], np.iinfo(labels.dtype)
    low = np.full(len(voxels.coordinates), limits.max, labels.dtype)
    high = np.full(len(voxels.coordinates), limits.min, labels.dtype)
    np.minimum.at(low, rows, values)
    np.maximum.at(high, rows, values)
    return np.where(low == high, low, ignore).astype(labels.dtype)


def evaluation_sample(cloud: Cloud, voxel_metres: float) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """A whole scene without augmentation: voxel coordinates (V, 3) from 0, and colours (V, 3) in 0..255.

    Rows are in the order of `evaluation_voxels`, which the scorer uses to match predictions with labels.
    """
    voxels = evaluation_voxels(cloud.xyz, voxel_metres)
    return voxels.coordinates, np.asarray(cloud.rgb)[voxels.representative].astype(np.float32)


def evaluation_voxels(xyz: Array, voxel_metres: float) -> Voxels:
    """The voxels that a scene is scored on, with coordinates from 0."""
    cells = to_cells(xyz, voxel_metres)
    return quantise(cells - bounds(cells)[0] if len(cells) else cells)


def elastic_noise(xyz: Array, granularity: float, rng: Generator) -> NDArray[np.float32]:
    """Standard normal noise on a grid (X, Y, Z, 3) over the cloud's bounding box, with a margin of one cell; `granularity` is the
    cell size in metres."""
    cells = np.floor(np.ptp(xyz, axis=0) / granularity).astype(int) + 3
    return rng.standard_normal((*cells, 3), dtype=np.float32)


def elastic_distortion(
    xyz: Array, granularity: float, magnitude: float, noise: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Displace points (N, 3) by the noise, smoothed twice over three cells along each axis, times `magnitude` metres."""
    import torch
    from scipy.ndimage import uniform_filter1d

    for axis in (0, 1, 2, 0, 1, 2):
        noise = uniform_filter1d(noise, 3, axis=axis, mode="constant")
    xyz = np.asarray(xyz, np.float64)
    # Node i lies at minimum + (i - 1) * granularity; torch expects -1..1 from the first to the last node, z first.
    place = (xyz - (xyz.min(axis=0) - granularity)) * (2 / granularity / (np.array(noise.shape[:3]) - 1)) - 1
    grid = torch.from_numpy(np.ascontiguousarray(place[:, ::-1]))[None, None, None]
    volume = torch.from_numpy(np.ascontiguousarray(noise.transpose(3, 0, 1, 2))).double()[None]
    moved = torch.nn.functional.grid_sample(volume, grid, align_corners=True)[0, :, 0, 0].T.numpy()
    return xyz + magnitude * moved


def random_rotation(degrees: tuple[float, float, float], rng: Generator) -> NDArray[np.float64]:
    """(3, 3) product, in random order, of rotations about x, y and z by angles uniform within +/- `degrees`."""
    angles = np.radians([rng.uniform(-bound, bound) for bound in degrees])
    matrices = [axis_rotation(axis, angle) for axis, angle in enumerate(angles)]
    one, two, three = rng.permutation(3)
    return matrices[one] @ matrices[two] @ matrices[three]


def axis_rotation(axis: int, angle: float) -> NDArray[np.float64]:
    """(3, 3) right-handed rotation about a coordinate axis, `angle` in radians."""
    c, s = np.cos(angle), np.sin(angle)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


def clip_mask(xyz: Array, bound: float, rng: Generator) -> NDArray[np.bool_]:
    """(N,) whether points lie within `bound` metres of a jittered centre on every axis; all points of a smaller scene.

    If the window would be empty (at the centre of an L-shaped room), all points are kept.
    """
    low, high = bounds(xyz)
    size = high - low
    if size.max() < bound:
        return np.ones(len(xyz), dtype=bool)
    centre = (low + high) / 2 + rng.uniform(-1, 1, 3) * [0.2, 0.2, 0.05] * size
    keep = np.ones(len(xyz), dtype=bool)
    for axis in range(3):  # column by column: numpy's all(axis=1) takes ten times as long
        keep &= (xyz[:, axis] >= centre[axis] - bound) & (xyz[:, axis] < centre[axis] + bound)
    return keep if keep.any() else np.ones(len(xyz), dtype=bool)


def crop_to_voxels(coordinates: NDArray[np.int64], limit: int, rng: Generator) -> NDArray[np.int64]:
    """Sorted rows of the `limit` voxels nearest to a random voxel; all rows if there are no more."""
    if len(coordinates) <= limit:
        return np.arange(len(coordinates))
    return nearest_rows(coordinates, coordinates[rng.integers(len(coordinates))], limit)


def nearest_rows(points: Array, centre: Array, count: int) -> NDArray[np.int64]:
    """Sorted rows of the `count` points (N, 3) nearest to `centre`, ties by row; all rows if there are no more."""
    if len(points) <= count:
        return np.arange(len(points))
    return np.sort(np.argsort(((points - centre) ** 2).sum(axis=1), kind="stable")[:count])


def flip_horizontal(coordinates: NDArray, probability: float, rng: Generator) -> NDArray:
    """With `probability`: mirror x of coordinates (N, 3), and independently y, each in half of the cases (c -> max - c)."""
    if rng.random() >= probability:
        return coordinates
    flipped = coordinates.copy()
    for axis in range(2):
        if rng.random() < 0.5:
            flipped[:, axis] = flipped[:, axis].max() - flipped[:, axis]
    return flipped


def auto_contrast(rgb: Array, probability: float, rng: Generator) -> Array:
    """With `probability`: blend colours (N, 3) in 0..255 with the same stretched to 0..255, channel by channel; constant channels
    are unchanged."""
    if rng.random() >= probability:
        return rgb
    low, high = bounds(rgb)
    span = np.where(high > low, high - low, 1.0)
    stretched = np.where(high > low, (rgb - low) * (255.0 / span), rgb)
    blend = rng.random()
    return (1 - blend) * rgb + blend * stretched


def translate_colour(rgb: Array, ratio: float, rng: Generator) -> Array:
    """With probability 0.95: add one shift to all colours (N, 3) in 0..255, uniform within 255 * ratio for each channel;
    clipped."""
    if rng.random() >= 0.95:
        return rgb
    return np.clip(rgb + rng.uniform(-1, 1, 3) * 255 * ratio, 0, 255)


def jitter_colour(rgb: Array, std: float, rng: Generator) -> Array:
    """With probability 0.95: add Gaussian noise of standard deviation 255 * std to every value of colours (N, 3) in 0..255;
    clipped."""
    if rng.random() >= 0.95:
        return rgb
    return np.clip(rgb + rng.normal(0, 1, rgb.shape) * 255 * std, 0, 255)
