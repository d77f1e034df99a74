"""Elastic distortion against results of the original code, and against its definition written out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.interpolate import RegularGridInterpolator

from pretrain_bench.benchmarks.datasets.views import Cloud
from pretrain_bench.benchmarks.input.transforms import elastic_distortion, elastic_noise, training_sample
from pretrain_bench.benchmarks.specs.recipes import SemanticRecipe

STEPS = ((0.2, 0.4), (0.8, 1.6))


def test_golden_distortion(golden_shared: Path) -> None:
    with np.load(golden_shared / "data.npz") as golden:
        xyz = golden["elastic__coords_in_f64"]
        for number, (granularity, magnitude) in enumerate(STEPS):
            xyz = elastic_distortion(xyz, granularity, magnitude, golden[f"elastic__noise{number}"])
            assert np.abs(xyz - golden[f"elastic__coords_after{number}_f64"]).max() < 1e-6


def test_distortion_by_its_definition() -> None:
    rng = np.random.default_rng(4)
    xyz = rng.uniform(-1, 2, (500, 3)) * [1, 2, 0.5]
    for granularity, magnitude in STEPS:
        noise = elastic_noise(xyz, granularity, rng)
        assert noise.shape[:3] == tuple(np.floor(np.ptp(xyz, axis=0) / granularity).astype(int) + 3)
        smooth = noise.astype(float)
        for _ in range(2):
            for axis in range(3):
                padded = np.pad(smooth, [(1, 1) if a == axis else (0, 0) for a in range(4)])
                smooth = sum(np.take(padded, range(i, i + smooth.shape[axis]), axis) for i in range(3)) / 3
        axes = [
            np.linspace(xyz[:, a].min() - granularity, xyz[:, a].min() + granularity * (n - 2), n)
            for a, n in enumerate(noise.shape[:3])
        ]
        moved = RegularGridInterpolator(axes, smooth, bounds_error=False, fill_value=0)(xyz)
        assert np.abs(elastic_distortion(xyz, granularity, magnitude, noise) - (xyz + magnitude * moved)).max() < 1e-6
    still = elastic_distortion(xyz, 0.2, 0.4, np.zeros((20, 30, 12, 3), np.float32)[:18])
    assert np.allclose(still, xyz)


def test_the_pipeline_distorts_where_the_recipe_says_so() -> None:
    rng = np.random.default_rng(0)
    cloud = Cloud(rng.uniform(0, 3, (3000, 3)).astype(np.float32), rng.integers(0, 256, (3000, 3)).astype(np.uint8))
    labels = np.zeros(3000, np.uint8)
    plain = SemanticRecipe(steps=1, batch=1, micro_batch=1, voxel_metres=0.05, validate_every=1)
    shapes = set()
    for recipe in (plain, plain.model_copy(update={"elastic": STEPS, "elastic_probability": 1.0})):
        sample = training_sample(cloud, labels, recipe, np.random.default_rng(1))
        shapes.add(np.ptp(sample.coordinates, axis=0).tolist().__str__())
    assert len(shapes) == 2
    never = plain.model_copy(update={"elastic": STEPS, "elastic_probability": 0.0})
    assert len(training_sample(cloud, labels, never, np.random.default_rng(1)).coordinates) > 1000
