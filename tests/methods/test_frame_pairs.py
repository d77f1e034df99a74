"""Pairs of frames: geometry, matches, and the stages of PointContrast and CSC on a small part of a real recording."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pretrain_bench.benchmarks.datasets.views import Frame, depth_frame
from pretrain_bench.benchmarks.input.transforms import nearest_rows, random_rotation
from pretrain_bench.benchmarks.procedural import rooms, sensors, write
from pretrain_bench.benchmarks.specs.optimisers import ExponentialDecay
from pretrain_bench.methods.csc.pairs import scene_loss
from pretrain_bench.methods.csc.recipe import SceneContexts
from pretrain_bench.methods.pointcontrast.hardest import hardest_contrastive
from pretrain_bench.methods.pointcontrast.pairs import any_rotation, pair_loss
from pretrain_bench.methods.pointcontrast.recipe import PointContrast
from pretrain_bench.methods.training.frame_pairs import (
    Batch,
    PairSample,
    TurnedCloud,
    all_matches,
    one_match_each,
    pair_sample,
    turn,
)
from pretrain_bench.methods.training.optim import exponential
from tests.methods.stages import recipe_in
from tests.parity.vectors import load

RECIPE = PointContrast(voxel_metres=0.1)


@pytest.fixture(scope="module")
def frames() -> tuple[Frame, Frame]:
    rng = np.random.default_rng(5)
    world = rooms.build_room(rng, ("lounge",))
    intrinsic = write.camera_matrix((96, 72))
    views = [(p, sensors.render(world, p, intrinsic, (96, 72), rng)) for p in sensors.walk(world, rng, 2)]
    one, two = (depth_frame(v.colour, v.depth.astype(np.float32) / 1000, p, intrinsic) for p, v in views)
    return one, two


def no_rotation(rng: np.random.Generator) -> np.ndarray:
    return np.eye(3)


def test_matches_lie_near_each_other_in_the_world(frames: tuple[Frame, Frame]) -> None:
    for rotation in (no_rotation, any_rotation, lambda rng: random_rotation((3, 3, 180.0), rng)):
        sample = pair_sample(frames, RECIPE, rotation, False, np.random.default_rng(1))
        assert sample is not None and len(sample.matches) > 20
        # Back in the world, the voxel centres of a match are at most the radius plus two half diagonals apart.
        places = []
        for cloud, rows in ((sample.one, sample.matches[:, 0]), (sample.two, sample.matches[:, 1])):
            turned = (cloud.coordinates[rows].double().numpy() + 0.5) * 0.1
            inverse = np.linalg.inv(cloud.transform.double().numpy())
            places.append(turned @ inverse[:3, :3].T + inverse[:3, 3])
        apart = np.linalg.norm(places[0] - places[1], axis=1)
        assert apart.max() <= 0.15 + np.sqrt(3) * 0.1 + 1e-3
        assert len(torch.unique(sample.matches[:, 0])) < len(sample.matches), "all matches are kept, many to many"


def test_a_turn_is_rigid_and_about_the_mean() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(50, 3)) + 7
    for _ in range(20):
        rotation = any_rotation(rng)
        assert np.allclose(rotation @ rotation.T, np.eye(3)) and np.isclose(np.linalg.det(rotation), 1)
        transform = turn(points, rotation)
        moved = points @ transform[:3, :3].T + transform[:3, 3]
        assert np.allclose(moved.mean(0), 0, atol=1e-12)
    # All directions occur: the z axis is rotated into every octant.
    ends = np.sign(np.array([any_rotation(rng)[:, 2] for _ in range(400)]))
    assert len(np.unique(ends, axis=0)) == 8


def test_matches_are_many_to_many_and_one_is_drawn_evenly() -> None:
    one = np.array([[0.0, 0, 0], [5, 0, 0], [9, 9, 9]])
    two = np.array([[0.1, 0, 0], [0, 0.1, 0], [5, 0.05, 0], [0.2, 0, 0.0]])
    matches = all_matches(one, two, 0.15)
    assert matches.tolist() == [[0, 0], [0, 1], [1, 2]]
    drawn = [one_match_each(torch.from_numpy(matches), np.random.default_rng(s)).tolist() for s in range(400)]
    assert all([1, 2] in d and len(d) == 2 for d in drawn)
    assert 140 < sum([0, 0] in d for d in drawn) < 260


def test_cropping_keeps_matches_consistent(frames: tuple[Frame, Frame]) -> None:
    recipe = RECIPE.model_copy(update={"max_voxels_per_frame": 120})
    sample = pair_sample(frames, recipe, no_rotation, True, np.random.default_rng(2))
    assert sample is not None and len(sample.one.coordinates) == len(sample.two.coordinates) == 120
    assert sample.matches.min() >= 0 and sample.matches.max() < 120
    shift = sample.one.transform[:3, 3] - sample.two.transform[:3, 3]
    cells = sample.one.coordinates[sample.matches[:, 0]] - sample.two.coordinates[sample.matches[:, 1]]
    assert ((cells * 0.1 - shift).abs().max()) <= 0.15 + 0.2
    assert nearest_rows(np.eye(3), np.zeros(3), 9).tolist() == [0, 1, 2]


def test_inputs_are_those_of_the_papers(frames: tuple[Frame, Frame]) -> None:
    """PointContrast sees ones with noise, CSC colours centred on zero; frames without overlap give None."""
    ones = pair_sample(
        frames, RECIPE.model_copy(update={"jitter_std": 0.0}), no_rotation, False, np.random.default_rng(3)
    )
    colours = pair_sample(frames, SceneContexts(voxel_metres=0.1), no_rotation, True, np.random.default_rng(3))
    assert ones is not None and torch.equal(ones.one.features, torch.ones_like(ones.one.features))
    assert colours is not None and -0.51 < float(colours.one.features.min()) < float(colours.one.features.max()) < 0.51
    assert len(torch.unique(colours.one.features)) > 50
    away = frames[1].pose.copy()
    away[:3, 3] += 50
    assert (
        pair_sample((frames[0], frames[1]._replace(pose=away)), RECIPE, no_rotation, False, np.random.default_rng(3))
        is None
    )
    empty = frames[1]._replace(camera=frames[1].camera[:0], uv=frames[1].uv[:0])
    assert pair_sample((frames[0], empty), RECIPE, no_rotation, False, np.random.default_rng(3)) is None


def batch_of_two(rng: np.random.Generator) -> tuple[Batch, tuple[torch.Tensor, torch.Tensor]]:
    """Two pairs of clouds of 30 rows with many-to-many matches, and unit features of all rows."""
    samples = []
    for _ in range(2):
        cloud = TurnedCloud(torch.zeros(30, 3, dtype=torch.int32), torch.ones(30, 3), torch.eye(4))
        matches = np.unique(np.stack([np.repeat(np.arange(10), 3), rng.integers(0, 30, 30)], 1), axis=0)
        samples.append(PairSample(cloud, cloud, torch.from_numpy(matches)))
    features = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(2, 60, 4))), dim=2)
    return Batch(samples, np.array([[0, 0], [30, 30]])), (features[0], features[1])


def test_the_hardest_loss_sees_all_matches_and_info_nce_one_of_each_point() -> None:
    batch, features = batch_of_two(np.random.default_rng(4))
    rows = torch.cat([batch.samples[0].matches, batch.samples[1].matches + 30])
    recipe = PointContrast(loss="hardest")
    loss, queries, _ = pair_loss(recipe, batch, features, np.random.default_rng(0))
    everything = torch.arange(60)
    expected = hardest_contrastive(*features, rows, everything, everything, rows)
    assert len(queries) == len(rows) and torch.isclose(loss, expected.positive + expected.negative)
    _, queries, _ = pair_loss(PointContrast(), batch, features, np.random.default_rng(0))
    assert len(queries) == 20 == len(torch.unique(rows[:, 0]))


def test_positives_are_counted_over_the_batch_by_pointcontrast_and_for_each_pair_by_csc() -> None:
    batch, features = batch_of_two(np.random.default_rng(4))
    _, queries, _ = pair_loss(PointContrast(positives=6), batch, features, np.random.default_rng(0))
    assert len(queries) == 6
    for partition in ("fast4", "general8"):
        recipe = SceneContexts(positives=6, partition=partition)
        _, queries, keys = scene_loss(recipe, batch, features, np.random.default_rng(0))
        assert len(queries) == len(keys) == 12


def test_turning_the_world_changes_no_match() -> None:
    rng = np.random.default_rng(3)
    one, two = rng.uniform(0, 2, (300, 3)), rng.uniform(0, 2, (280, 3))
    matches = all_matches(one, two, 0.2)
    turned = any_rotation(rng)
    assert len(matches) > 200
    assert np.array_equal(all_matches(one @ turned.T + 3, two @ turned.T + 3, 0.2), matches)


@pytest.mark.parametrize("every", [250, 1000])
def test_the_schedule_steps_after_the_first_iteration(every: int) -> None:
    golden = load("schedules")
    rate = exponential(0.1, ExponentialDecay(every_steps=every, after_first=True), 60_000, 60_000)
    iterations, used = golden[f"lr_exp_freq{every}__iteration"], golden[f"lr_exp_freq{every}__lr_used_f64"]
    assert np.allclose([rate(int(n) - 1) for n in iterations], used, rtol=1e-12)


def test_the_profiles_hold_the_papers_numbers() -> None:
    point, csc = recipe_in("headline", "pointcontrast", "pairs"), recipe_in("headline", "csc", "pairs")
    for recipe, every, rate in ((point, 250, 0.05), (csc, 1000, 0.1)):
        assert (recipe.voxel_metres, recipe.temperature, recipe.positives, recipe.min_overlap) == (
            0.025,
            0.4,
            4096,
            0.3,
        )
        assert (recipe.optimiser.learning_rate, recipe.optimiser.momentum, recipe.optimiser.dampening) == (
            rate,
            0.8,
            0.0,
        )
        assert recipe.optimiser.weight_decay == 1e-4 and recipe.decay.every_steps == every and recipe.decay.after_first
    assert csc.partition == "fast4" and (csc.inner_voxels, csc.outer_voxels) == (2, 20)
    assert point.loss == "info_nce" and recipe_in("official", "csc", "pairs").pairs_per_step == 32


def test_the_rate_of_pointcontrast_goes_with_its_loss() -> None:
    rates = [PointContrast(loss=loss).optimiser.learning_rate for loss in ("info_nce", "hardest")]
    assert rates == [0.05, 0.1]
    partly = PointContrast.model_validate({"loss": "hardest", "optimiser": {"momentum": 0.5}}).optimiser
    assert (partly.learning_rate, partly.momentum) == (0.1, 0.5)
    own = PointContrast.model_validate({"loss": "hardest", "optimiser": {"learning_rate": 0.2}}).optimiser
    assert own.learning_rate == 0.2
    assert recipe_in("official", "pointcontrast", "pairs").optimiser.learning_rate == 0.05
    assert recipe_in("tiny", "pointcontrast", "pairs").optimiser.learning_rate == 0.05
