"""The speed of the input pipeline on one core: `python -m tests.performance.input` prints JSON, in seconds."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from scipy.interpolate import RegularGridInterpolator

from pretrain_bench.benchmarks.datasets import s3dis
from pretrain_bench.benchmarks.datasets.views import Cloud
from pretrain_bench.benchmarks.input import transforms
from pretrain_bench.benchmarks.procedural import rooms, sensors
from pretrain_bench.benchmarks.specs.recipes import SemanticRecipe

POINTS, SEED, REPEATS = 100_000, 20261122, 15
RECIPE = SemanticRecipe(
    steps=1, batch=1, micro_batch=1, voxel_metres=0.02, validate_every=1, elastic=((0.2, 0.4), (0.8, 1.6))
)


def room() -> tuple[Cloud, np.ndarray]:
    """A procedural room of exactly POINTS points with their classes."""
    rng = np.random.default_rng(SEED)
    world = rooms.build_room(rng, ("lounge",))
    cloud = sensors.sample_surfaces(world, rng, 1400)
    rows = rng.permutation(len(cloud.xyz))[:POINTS]
    assert len(rows) == POINTS
    return Cloud(cloud.xyz[rows].astype(np.float32), cloud.rgb[rows]), (cloud.instance[rows] % 13).astype(np.uint8)


def plain(cloud: Cloud, labels: np.ndarray, rng: Generator) -> int:
    """The same steps in loops over points and grid cells, as the reference."""
    xyz = cloud.xyz.astype(float)
    for granularity, magnitude in RECIPE.elastic:
        noise = transforms.elastic_noise(xyz, granularity, rng)
        for _ in range(2):
            for axis in range(3):
                padded = np.pad(noise, [(1, 1) if a == axis else (0, 0) for a in range(4)])
                noise = sum(np.take(padded, range(i, i + noise.shape[axis]), axis) for i in range(3)) / 3
        axes = [xyz[:, a].min() + granularity * (np.arange(noise.shape[a]) - 1) for a in range(3)]
        xyz = xyz + magnitude * RegularGridInterpolator(axes, noise, bounds_error=False, fill_value=0)(xyz)
    xyz = xyz @ (transforms.random_rotation(RECIPE.rotation_degrees, rng) * rng.uniform(*RECIPE.scale)).T
    cells = np.floor(xyz / RECIPE.voxel_metres).astype(int)
    cells -= cells.min(axis=0)
    voxels: dict[tuple[int, ...], tuple[int, int]] = {}
    for number, cell in enumerate(map(tuple, cells.tolist())):
        label = int(labels[number])
        first, common = voxels.get(cell, (number, label))
        voxels[cell] = (first, common if common == label else 255)
    order = sorted(voxels)
    colour = cloud.rgb[[voxels[c][0] for c in order]].astype(float)
    coordinates = transforms.flip_horizontal(np.array(order), RECIPE.flip_probability, rng)
    colour = transforms.auto_contrast(colour, RECIPE.contrast_probability, rng)
    colour = transforms.translate_colour(colour, RECIPE.translation_ratio, rng)
    colour = transforms.jitter_colour(colour, RECIPE.jitter_std, rng)
    return len(coordinates) + len(colour)


def typical(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """CPU-seconds, the median of several runs."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return float(np.median(times))


def text_rate() -> float:
    """Bytes of S3DIS text read per CPU-second."""
    rng = np.random.default_rng(SEED)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "Area_1/room_1/Annotations/wall_1.txt"
        path.parent.mkdir(parents=True)
        rows = zip(
            rng.uniform(-20, 20, (400_000, 3)).tolist(), rng.integers(0, 256, (400_000, 3)).tolist(), strict=True
        )
        path.write_text("".join(f"{x:.3f} {y:.3f} {z:.3f} {r} {g} {b}\n" for (x, y, z), (r, g, b) in rows))
        return path.stat().st_size / typical(lambda: s3dis.read_points(path), 3)


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    cloud, labels = room()
    seeds = iter(range(1000))
    result = {
        "sample": typical(
            lambda: transforms.training_sample(cloud, labels, RECIPE, np.random.default_rng(next(seeds)))
        ),
        "plain": typical(lambda: plain(cloud, labels, np.random.default_rng(next(seeds))), 3),
        "text_rate": text_rate(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
