"""Instance segmentation: targets, losses, clusters and the network."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch
from scipy.sparse.csgraph import connected_components

from pretrain_bench.benchmarks.datasets.views import Cloud
from pretrain_bench.benchmarks.input.transforms import training_sample
from pretrain_bench.benchmarks.specs.network import NetworkSettings
from pretrain_bench.benchmarks.specs.recipes import InstanceRecipe
from pretrain_bench.methods.finetune.clustering import clusters, connected
from pretrain_bench.methods.finetune.instance import centre_offsets, instance_loss, offset_losses
from pretrain_bench.methods.finetune.steps import MicroBatch, collate
from pretrain_bench.methods.networks.instance_net import InstanceNet
from pretrain_bench.methods.networks.res16unet import seeded_backbone
from pretrain_bench.methods.sparse.tensor import SparseTensor, batched_coordinates

RECIPE = InstanceRecipe(
    kind="instance", steps=1, batch=1, micro_batch=1, voxel_metres=0.1, validate_every=1, clip_metres=4.0
)


def naive_components(places: np.ndarray, classes: np.ndarray, radius: float) -> np.ndarray:
    gap = (places[:, None] - places[None]) ** 2
    near = gap[..., 0] + gap[..., 1] + gap[..., 2] < np.float32(radius) ** 2
    label = connected_components(near & (classes[:, None] == classes[None]), directed=False)[1]
    seen: dict[int, int] = {}
    return np.array([seen.setdefault(int(x), len(seen)) for x in label])


@pytest.mark.parametrize("kind", ["spread", "grid", "crowded"])
def test_components_equal_those_of_all_pairs(kind: str) -> None:
    rng = np.random.default_rng(["spread", "grid", "crowded"].index(kind))
    for _ in range(200):
        count = int(rng.integers(1, 250))
        places = {
            "spread": rng.uniform(-8, 8, (count, 3)),
            "grid": rng.integers(-5, 5, (count, 3)),  # a distance of exactly the radius does not connect
            "crowded": rng.normal(0, 0.6, (count, 3)) + rng.integers(-3, 4, (count, 3)) * 2,
        }[kind].astype(np.float32)
        classes, radius = rng.integers(0, 3, count), float(rng.choice([0.5, 1.0, 1.5, 2.0]))
        assert (connected(places, classes, radius) == naive_components(places, classes, radius)).all()


def test_crowded_cells_need_no_table_of_all_pairs() -> None:
    """Two cells with 20,000 voxels each have 400 million pairs."""
    rng = np.random.default_rng(0)
    heap = rng.normal(0, 0.01, (20_000, 3))
    places = np.concatenate([heap, heap + np.array([1.4, 0, 0])]).astype(np.float32)
    began = time.process_time()
    assert connected(places, np.zeros(len(places), int), 1.5).max() == 0
    assert connected(places, np.zeros(len(places), int), 1.2).max() == 1
    print(f"{time.process_time() - began:.1f} CPU-seconds")


def test_voxels_of_cells_that_touch_nowhere_may_be_within_the_radius() -> None:
    """Near corners of two cells with one cell between them along each axis, a ten-thousandth closer than the radius."""
    radius = 1.0
    side = radius / (math.sqrt(3) * 1.0001)
    places = np.array([[0.99999] * 3, [2.00001] * 3], np.float32) * np.float32(side)
    assert 0.9998 * radius < math.dist(*places.tolist()) < radius
    assert connected(places, np.zeros(2, int), radius).max() == 0


def test_clusters_by_hand() -> None:
    """A row of five voxels of class 1, a row of three of class 1 two steps away, and four voxels of class 2 in between."""
    places = np.array([[x, 0, 0] for x in (0, 1, 2, 3, 4, 6.5, 7.5, 8.5)] + [[x, 1, 0] for x in range(4)], np.float32)
    logits = np.zeros((12, 3), np.float32)
    logits[:8, 1], logits[8:, 2] = [1, 2, 3, 4, 5, 9, 9, 9], 7
    found = clusters(places, logits, (1, 2), 1.5, 4, 0)
    assert found.classes.tolist() == [1, 2] and found.starts.tolist() == [0, 5, 9]
    assert found.voxels.tolist() == [0, 1, 2, 3, 4, 8, 9, 10, 11]
    assert found.confidences.tolist() == [3.0, 7.0], "the mean raw logit"
    assert clusters(places, logits, (1, 2), 1.5, 3, 3).classes.tolist() == [1, 2], "more than 3"
    assert clusters(places, logits, (1, 2), 1.5, 3, 2).classes.tolist() == [1, 1, 2]
    assert clusters(places, logits, (2,), 1.5, 1, 0).voxels.tolist() == [8, 9, 10, 11]
    assert len(clusters(places, logits, (0,), 1.5, 1, 0).classes) == 0
    nothing = clusters(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), (1,), 1.5, 1, 0)
    assert nothing.starts.tolist() == [0] and len(nothing.voxels) == 0


def test_offsets_lead_to_the_mean_voxel_of_the_augmented_sample() -> None:
    coordinates = torch.tensor(
        [[0, 0, 0, 0], [0, 2, 0, 0], [0, 9, 9, 9], [1, 5, 5, 5], [1, 5, 5, 8]], dtype=torch.int32
    )
    instances = torch.tensor([0, 0, -1, 1, 1])
    expected = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 0, 0], [0, 0, 1.5], [0, 0, -1.5]])
    assert torch.equal(centre_offsets(coordinates, instances), expected)
    assert not centre_offsets(coordinates, torch.full((5,), -1)).any()


def test_offset_losses_by_hand() -> None:
    targets = torch.tensor([[1.0, 0, 0], [0, 2, 0], [5, 5, 5]])
    predicted = torch.tensor([[1.0, 1, 0], [0, -1, 0], [0, 0, 0]], requires_grad=True)
    found = offset_losses(predicted, targets, torch.tensor([True, True, False]))
    assert math.isclose(found.distance.item(), (1 + 3) / 2, rel_tol=1e-5)
    assert math.isclose(found.direction.item(), -(1 / math.sqrt(2) - 1) / 2, rel_tol=1e-5)
    nothing = offset_losses(predicted, targets, torch.zeros(3, dtype=torch.bool))
    (nothing.distance + nothing.direction).backward()
    assert nothing.distance.item() == nothing.direction.item() == 0 and not predicted.grad.any()


def test_an_offset_of_zero_has_a_finite_gradient() -> None:
    predicted = torch.zeros(4, 3, requires_grad=True)
    found = offset_losses(predicted, torch.rand(4, 3), torch.ones(4, dtype=torch.bool))
    (found.distance + found.direction).backward()
    assert torch.isfinite(predicted.grad).all()


def scene(count: int = 3000) -> tuple[Cloud, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    xyz = rng.uniform(0, 3, (count, 3)).astype(np.float32)
    semantic = (xyz[:, 0] > 1.5).astype(np.uint8)
    instance = (xyz[:, 1] > 1.5).astype(np.int32) + 2 * semantic
    return Cloud(xyz, rng.integers(0, 256, (count, 3)).astype(np.uint8)), semantic, instance


@pytest.mark.parametrize("few", [False, True])
def test_instances_stay_with_their_voxels(few: bool) -> None:
    cloud, semantic, instance = scene()
    things = np.where(semantic == 1, instance, -1).astype(np.int32)
    sample = training_sample(cloud, semantic, RECIPE, np.random.default_rng(0), few, things)
    assert sample.instances is not None and sample.instances.dtype == np.int32
    assert set(np.unique(sample.instances)) == {-1, 2, 3}
    assert (sample.labels[sample.instances >= 0] == 1).all(), "none where the label is ignored or has no instances"
    without = training_sample(cloud, semantic, RECIPE, np.random.default_rng(0), few)
    assert all(np.array_equal(a, b) for a, b in zip(sample[:3], without[:3], strict=True)), "the same sample otherwise"


@pytest.mark.parametrize(("rule", "instances"), [("common", [-1, -1, 5]), ("first", [-1, 3, 5])])
def test_a_voxel_with_two_instances_has_none_or_that_of_its_first_point(rule: str, instances: list[int]) -> None:
    """Three voxels: with two classes and two instances; one class and two instances; one class and one instance."""
    xyz = np.array([[0.01, 0, 0], [0.02, 0, 0], [0.11, 0, 0], [0.12, 0, 0], [0.21, 0, 0], [0.22, 0, 0]])
    cloud = Cloud(xyz.astype(np.float32), np.zeros((6, 3), np.uint8))
    recipe = InstanceRecipe.model_validate(
        {
            "kind": "instance", "steps": 1, "voxel_metres": 0.1, "validate_every": 1, "instance_of_voxel": rule, "scale": (1, 1),
            "rotation_degrees": (0, 0, 0), "dropout_probability": 0, "flip_probability": 0, "offset_voxels": 0,
        }
    )  # fmt: skip
    semantic, objects = np.array([0, 1, 1, 1, 1, 1], np.uint8), np.array([2, 3, 3, 4, 5, 5], np.int32)
    sample = training_sample(cloud, semantic, recipe, np.random.default_rng(0), False, objects)
    assert sample.instances is not None
    order = np.argsort(sample.coordinates[:, 0])
    assert sample.instances[order].tolist() == instances and sample.labels[order].tolist() == [255, 1, 1]


def test_instances_of_several_scenes_are_distinguished() -> None:
    cloud, semantic, instance = scene()
    samples = [training_sample(cloud, semantic, RECIPE, np.random.default_rng(s), False, instance) for s in (0, 1)]
    part = collate(samples)
    assert part.instances is not None
    for number in (0, 1):
        assert set(part.instances[part.coordinates[:, 0] == number].tolist()) - {-1} == {
            *range(4 * number, 4 * number + 4)
        }


def test_the_network_gives_logits_and_offsets_and_learns_both() -> None:
    rng = np.random.default_rng(0)
    cells = np.unique(rng.integers(0, 12, (500, 3)), axis=0).astype(np.int32)
    coordinates = batched_coordinates([torch.from_numpy(cells)])
    backbone = seeded_backbone(3, NetworkSettings(width=0.125), 0.1, "torch", 0)
    network = InstanceNet(backbone, 0.1, 5)
    again = InstanceNet(seeded_backbone(3, NetworkSettings(width=0.125), 0.1, "torch", 0), 0.1, 5)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    part = MicroBatch(
        coordinates,
        torch.rand(len(cells), 3),
        torch.from_numpy(rng.integers(0, 3, len(cells))),
        torch.from_numpy(rng.integers(-1, 4, len(cells))),
    )
    out = network(SparseTensor(part.colours, part.coordinates))
    assert out.logits.shape == out.offsets.shape == (len(cells), 3)
    loss = instance_loss(network, RECIPE, (1, 2), out, part, 0.9)
    assert set(loss.parts) == {"semantic_loss", "offset_loss", "direction_loss"}
    assert math.isclose(float(loss.total.detach()), sum(loss.parts.values()), rel_tol=1e-5)
    loss.total.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_which_classes_have_instances() -> None:
    classes = ("ceiling", "chair", "wall", "table")
    assert RECIPE.counted_classes(classes, ("chair", "table")) == (1, 3)
    everything = RECIPE.model_copy(update={"instance_classes": "all"})
    assert everything.counted_classes(classes, ("chair", "table")) == (0, 1, 2, 3)
