from __future__ import annotations

import numpy as np
import pytest
import torch

from pretrain_bench.benchmarks.datasets.views import Cloud
from pretrain_bench.benchmarks.input.transforms import (
    axis_rotation,
    clip_mask,
    flip_horizontal,
    labels_of_the_labelled,
    random_rotation,
    training_sample,
)
from pretrain_bench.benchmarks.input.voxelise import IGNORE, quantise
from pretrain_bench.benchmarks.metrics import predictions
from pretrain_bench.benchmarks.metrics.semantic import confusion_matrix
from pretrain_bench.benchmarks.specs.recipes import SemanticRecipe
from pretrain_bench.methods.finetune.steps import collate, voxel_loss

RECIPE = SemanticRecipe(steps=1, batch=1, micro_batch=1, voxel_metres=0.1, validate_every=1, clip_metres=4.0)


def cloud(points: int = 2000, size: float = 3.0, seed: int = 0) -> tuple[Cloud, np.ndarray]:
    rng = np.random.default_rng(seed)
    xyz = rng.uniform(0, size, (points, 3)).astype(np.float32)
    return Cloud(xyz, rng.integers(0, 256, (points, 3)).astype(np.uint8)), rng.integers(0, 13, points).astype(np.uint8)


@pytest.mark.parametrize("seed", range(5))
def test_a_training_sample_is_well_formed(seed: int) -> None:
    sample = training_sample(*cloud(), RECIPE, np.random.default_rng(seed))
    assert len(sample.coordinates) == len(sample.rgb) == len(sample.labels)
    assert len(np.unique(sample.coordinates, axis=0)) == len(sample.coordinates)
    assert sample.rgb.min() >= 0 and sample.rgb.max() <= 255
    assert sample.coordinates.min() >= 0 and set(np.unique(sample.labels)) <= {*range(13), IGNORE}


def test_equal_generators_give_equal_samples() -> None:
    one, two = (training_sample(*cloud(), RECIPE, np.random.default_rng(9)) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def test_without_augmentation_the_sample_is_the_voxelised_cloud() -> None:
    plain = RECIPE.model_copy(
        update={
            "rotation_degrees": (0, 0, 0), "scale": (1.0, 1.0), "dropout_probability": 0, "flip_probability": 0,
            "contrast_probability": 0, "translation_ratio": 0.0, "jitter_std": 0.0, "offset_voxels": 0,
        }
    )  # fmt: skip
    scene, labels = cloud()
    sample = training_sample(scene, labels, plain, np.random.default_rng(0))
    cells = np.floor(scene.xyz.astype(np.float64) / 0.1).astype(int)
    cells -= cells.min(0)
    assert np.array_equal(sample.coordinates, np.unique(cells, axis=0))
    first = {tuple(c): i for i, c in reversed(list(enumerate(cells.tolist())))}
    rows = [first[tuple(c)] for c in sample.coordinates.tolist()]
    assert np.array_equal(sample.rgb, scene.rgb[rows].astype(np.float32))


def test_few_labels_survive_their_unlabelled_neighbours() -> None:
    """With sparse annotations, a voxel has the label of its labelled points; differing labels cancel."""
    scene, labels = cloud(points=40000)
    few = np.full_like(labels, IGNORE)
    few[::400] = labels[::400]
    plain = RECIPE.model_copy(update={"dropout_probability": 0})
    kept, lost = (training_sample(scene, few, plain, np.random.default_rng(0), flag).labels for flag in (True, False))
    assert (kept != IGNORE).sum() > 90 and (lost != IGNORE).sum() < 50
    voxels = quantise(np.array([[0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0], [2, 0, 0], [2, 0, 0]]))
    found = labels_of_the_labelled(np.array([IGNORE, 4, 4, IGNORE, 3, 5], np.uint8), voxels)
    assert found.tolist() == [4, IGNORE, IGNORE]


def test_the_cap_keeps_a_neighbourhood() -> None:
    capped = RECIPE.model_copy(update={"max_voxels_per_scene": 100, "dropout_probability": 0})
    sample = training_sample(*cloud(), capped, np.random.default_rng(0))
    assert len(sample.coordinates) == 100
    assert np.ptp(sample.coordinates, axis=0).max() < 15


def test_clip_applies_to_large_rooms_only() -> None:
    rng = np.random.default_rng(0)
    small, large = rng.uniform(0, 3.9, (500, 3)), rng.uniform(0, 20, (5000, 3))
    assert clip_mask(small, 4.0, rng).all()
    kept = large[clip_mask(large, 4.0, rng)]
    assert 0 < len(kept) < 5000 and np.ptp(kept, axis=0).max() <= 8.0


def test_rotations() -> None:
    assert np.allclose(axis_rotation(2, np.pi / 2) @ [1, 0, 0], [0, 1, 0])
    assert np.allclose(axis_rotation(0, np.pi / 2) @ [0, 1, 0], [0, 0, 1])
    assert np.allclose(axis_rotation(1, np.pi / 2) @ [0, 0, 1], [1, 0, 0])
    for seed in range(5):
        matrix = random_rotation((180, 180, 180), np.random.default_rng(seed))
        assert np.allclose(matrix @ matrix.T, np.eye(3)) and np.isclose(np.linalg.det(matrix), 1)
    upright = random_rotation((0, 0, 180), np.random.default_rng(0))
    assert np.allclose(upright @ [0, 0, 1], [0, 0, 1])


def test_flips_mirror_within_the_bounds() -> None:
    points = np.random.default_rng(0).integers(0, 9, (50, 3))
    kinds = {flip_horizontal(points, 1.0, np.random.default_rng(s)).tobytes() for s in range(40)}
    assert len(kinds) == 4
    assert (flip_horizontal(points, 0.0, np.random.default_rng(0)) == points).all()


def test_collate_and_loss() -> None:
    samples = [training_sample(*cloud(seed=s), RECIPE, np.random.default_rng(s)) for s in range(2)]
    coordinates, colours, labels, instances = collate(samples)
    assert instances is None
    assert len(coordinates) == len(colours) == len(labels) == sum(len(s.labels) for s in samples)
    assert float(colours.abs().max()) <= 0.5 and sorted(set(coordinates[:, 0].tolist())) == [0, 1]
    logits = torch.zeros(len(labels), 13, requires_grad=True)
    assert np.isclose(float(voxel_loss(logits, labels).detach()), np.log(13))
    nothing = voxel_loss(logits, torch.full_like(labels, IGNORE))
    nothing.backward()
    assert float(nothing.detach()) == 0 and not logits.grad.any()


def test_confusion_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="outside 0"):
        confusion_matrix(np.array([0]), np.array([13]), 13)
    with pytest.raises(ValueError, match="labels but"):
        confusion_matrix(np.array([0, 1]), np.array([1]), 13)
    assert confusion_matrix(np.array([255]), np.array([13]), 13).sum() == 0


def test_saved_predictions_come_back_and_damage_is_named(tmp_path) -> None:
    def read(scene: str, voxels: int) -> np.ndarray:
        return predictions.read(tmp_path, scene, "semantic", {"V": voxels})["classes"]

    classes = np.arange(10, dtype=np.uint8)
    predictions.write(tmp_path, {"room": {"classes": classes}})
    assert np.array_equal(read("room", 10), classes)
    path = tmp_path / "room.npz"
    good = path.read_bytes()
    with pytest.raises(predictions.DataError, match=r"uint8 \(10,\); expected format 1, uint8 \(11,\)"):
        read("room", 11)
    with pytest.raises(predictions.DataError, match="no predictions for scene hall"):
        read("hall", 11)
    path.write_bytes(good[:50])
    with pytest.raises(predictions.DataError, match="cannot be read as predictions"):
        read("room", 10)
    np.savez(path, format_version=1, classes=np.array([{"pickled": 1}], dtype=object))
    with pytest.raises(predictions.DataError, match="cannot be read as predictions"):
        read("room", 1)
