"""DepthContrast: augmentation, queue and schedule (spec D.3)."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from pretrain_bench.benchmarks.datasets.views import depth_frame
from pretrain_bench.methods.depthcontrast.augment import (
    augmented,
    crop_cuboid,
    drop_cuboid,
    frame_scan,
    resample,
    turn_about_one_axis,
)
from pretrain_bench.methods.depthcontrast.recipe import DepthContrast
from pretrain_bench.methods.depthcontrast.scans import queue_keys, voxel_view
from pretrain_bench.methods.training.optim import cosine
from tests.methods.stages import recipe_in

SMALL = DepthContrast(
    scan_points=3000, points=1000, sizes=(500, 1500), crop_least_points=400, abstraction_points=(64, 32, 16, 8)
)


def cube(points: int = 3000, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.uniform(0, (2, 3, 4), (points, 3)), rng.integers(0, 256, (points, 3))], axis=1)


def test_a_frame_gives_a_fixed_number_of_points_in_the_cameras_frame() -> None:
    depth = np.zeros((6, 8), np.float32)
    depth[2, 3], depth[4, 5] = 2.0, 4.0
    colour = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    frame = depth_frame(colour, depth, np.diag([9.0, 9, 9, 1]), np.array([[2.0, 0, 4], [0, 2, 3], [0, 0, 1]]))
    scan = frame_scan(frame, 5, np.random.default_rng(0))
    assert scan is not None and scan.shape == (5, 6)
    expected = {(-1.0, -1.0, 2.0, *map(float, colour[2, 3])), (2.0, 2.0, 4.0, *map(float, colour[4, 5]))}
    assert set(map(tuple, scan.tolist())) == expected, "no pose, z is depth"
    assert (
        frame_scan(depth_frame(colour, np.zeros_like(depth), frame.pose, frame.intrinsic), 5, np.random.default_rng(0))
        is None
    )


def test_resampling_repeats_only_where_it_must() -> None:
    scan = cube(50)
    assert len(np.unique(resample(scan, 50, np.random.default_rng(0)), axis=0)) == 50
    assert resample(scan, 120, np.random.default_rng(0)).shape == (120, 6)


@pytest.mark.parametrize("seed", range(10))
def test_a_crop_is_a_cuboid_of_half_to_all_of_each_side(seed: int) -> None:
    rng, scan = np.random.default_rng(seed), cube()
    kept = crop_cuboid(scan, SMALL, rng)
    assert 400 < len(kept) <= len(scan)
    assert (np.ptp(kept[:, :3], axis=0) <= np.ptp(scan[:, :3], axis=0)).all()
    low, high = kept[:, :3].min(0), kept[:, :3].max(0)
    inside = ((scan[:, :3] >= low) & (scan[:, :3] <= high)).all(1)
    assert inside.sum() == len(kept), "all points of the cuboid, no others"
    few = SMALL.model_copy(update={"crop_least_points": 10**6})
    assert len(crop_cuboid(scan, few, rng)) == len(scan)


def test_a_drop_removes_a_fifth_of_each_side_at_most() -> None:
    scan = cube(5000)
    for seed in range(10):
        kept = drop_cuboid(scan, 0.2, np.random.default_rng(seed))
        gone = scan[~np.isin(scan[:, 0], kept[:, 0])]
        assert 0 < len(gone) < 0.02 * len(scan)
        assert (np.ptp(gone[:, :3], axis=0) <= 0.2 * np.ptp(scan[:, :3], axis=0) + 1e-9).all()
    assert len(drop_cuboid(np.ones((5, 6)), 0.2, np.random.default_rng(0))) == 5


def test_turns_are_about_one_axis_with_the_published_chances() -> None:
    rng = np.random.default_rng(1)
    turns = np.array([turn_about_one_axis(rng) for _ in range(4000)])
    assert np.allclose(turns @ turns.transpose(0, 2, 1), np.eye(3)) and np.allclose(np.linalg.det(turns), 1)
    axes = turns[:, range(3), range(3)] == 1
    assert (axes.sum(1) == 1).all()
    assert np.allclose(axes.mean(0), (0.33, 0.67 * 0.66, 0.67 * 0.34), atol=0.03)


def test_copies_have_their_size_their_colours_and_differ() -> None:
    scan, rng = cube(), np.random.default_rng(2)
    one, two = augmented(scan, SMALL, rng), augmented(scan, SMALL, rng)
    assert one.shape == two.shape == (1000, 6) and not np.array_equal(one, two)
    colours = set(map(tuple, scan[:, 3:].tolist()))
    assert set(map(tuple, one[:, 3:].tolist())) <= colours
    reach = np.linalg.norm(one[:, None, :3] - one[None, :200, :3], axis=2).max()
    assert reach <= 1.2 * np.linalg.norm((2, 3, 4)) + 1e-9
    view = voxel_view(one, SMALL, rng)
    assert view.colours.abs().max() <= 0.5 and len(view.coordinates) == len(view.colours) <= 1000


def test_the_rate_falls_by_half_a_cosine_in_one_stair_an_epoch() -> None:
    rate = cosine(0.12, 0.00012, 40, 4000)
    assert rate(0) == rate(99) == 0.12 and rate(100) < 0.12
    assert np.isclose(rate(2000), (0.12 + 0.00012) / 2) and np.isclose(rate(3999), rate(3900))
    assert np.isclose(rate(4000), 0.00012)
    short = cosine(0.12, 0.00012, 40, 80)
    assert [short(t) for t in (0, 1, 40)] == [rate(0), rate(0), rate(2000)]


def test_the_queue_never_holds_more_than_half_of_the_frames() -> None:
    headline = recipe_in("headline", "depthcontrast", "scans")
    assert queue_keys(headline, 10**6) == 131072
    assert queue_keys(headline, 38_000) == 18_976 == 593 * 32 <= 19_000
    assert queue_keys(headline, 10) == 32, "at least a batch"


def test_the_profiles_hold_the_papers_numbers() -> None:
    recipe = recipe_in("headline", "depthcontrast", "scans")
    assert (recipe.scans_per_step, recipe.epochs, recipe.temperature, recipe.key_momentum) == (32, 40, 0.1, 0.999)
    assert (recipe.optimiser.learning_rate, recipe.final_learning_rate, recipe.optimiser.momentum) == (
        0.12,
        0.00012,
        0.9,
    )
    assert recipe.optimiser.dampening == 0 and recipe.optimiser.weight_decay == 1e-4
    assert (recipe.points, recipe.voxel_metres, recipe.embedding_channels) == (20_000, 0.05, 128)
    official = recipe_in("official", "depthcontrast", "scans")
    assert (official.scans_per_step, official.scans_per_pass, official.epochs) == (1024, 32, 400)
    tiny = recipe_in("tiny", "depthcontrast", "scans")
    assert tiny.points == 5000 and tiny.abstraction_points == (512, 256, 128, 64)


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValidationError, match="multiple of scans_per_pass"):
        DepthContrast(scans_per_step=32, scans_per_pass=5)
    with pytest.raises(ValidationError, match="must not grow"):
        DepthContrast(points=1000)
