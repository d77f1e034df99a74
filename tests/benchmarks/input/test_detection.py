"""The input of detection: points, boxes and votes stay consistent under all augmentations, and targets match their boxes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain_bench.benchmarks.input.boxes import extents, points_inside
from pretrain_bench.benchmarks.input.detection import (
    augment,
    box_arrays,
    box_votes,
    evaluation_sample,
    heading_bins_of,
    instance_votes,
    parallel,
    training_sample,
)
from pretrain_bench.benchmarks.specs.recipes import DetectionRecipe

RECIPE = DetectionRecipe(
    kind="detection", steps=1, batch=1, micro_batch=1, voxel_metres=0.1, validate_every=1, points=400,
    rotation_degrees=180.0, scale=(0.8, 1.25),
)  # fmt: skip
STILL = {"flip_x_probability": 0.0, "flip_y_probability": 0.0, "rotation_degrees": 0.0, "scale": (1.0, 1.0)}
BOXES = np.array([[1.0, 2.0, 0.5, 2.0, 0.6, 1.0, 0.4, 3], [-2.0, 1.0, 0.4, 0.5, 1.5, 0.8, -2.9, 0]])


def scene(seed: int = 0, points: int = 1500) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform([-4, -1, 0], [3, 4, 1.5], (points, 3)), rng.integers(0, 256, (points, 3)).astype(np.uint8)


def corners(boxes: np.ndarray, share: float) -> np.ndarray:
    """(K, 8, 3) positions in each box, at `share` of the way from its centre to its corners."""
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / 2 * share
    local = signs * boxes[:, None, 3:6]
    c, s = np.cos(boxes[:, 6])[:, None], np.sin(boxes[:, 6])[:, None]
    turned = np.stack([c * local[..., 0] + s * local[..., 1], c * local[..., 1] - s * local[..., 0], local[..., 2]], -1)
    return turned + boxes[:, None, :3]


sizes = st.floats(0.2, 3.0)
places = st.floats(-5.0, 5.0)


@settings(max_examples=200, deadline=None)
@given(
    st.tuples(places, places, places, sizes, sizes, sizes, st.floats(-np.pi, np.pi), st.just(0.0)),
    st.booleans(), st.booleans(), st.sampled_from([0.0, 5.0, 30.0, 180.0]), st.floats(0.5, 2.0), st.integers(0, 99),
)  # fmt: skip
def test_what_is_inside_a_box_stays_inside(box, flip_x: bool, flip_y: bool, degrees: float, scale: float, seed: int):
    """Also at its surface: at 99.9 % of the way to a corner inside, at 100.1 % outside, so the heading is right."""
    recipe = RECIPE.model_copy(
        update={
            "flip_x_probability": float(flip_x), "flip_y_probability": float(flip_y), "rotation_degrees": degrees,
            "scale": (scale, scale),
        }
    )  # fmt: skip
    boxes = np.array([box])
    points = np.concatenate([corners(boxes, 0.999)[0], corners(boxes, 1.001)[0]])
    moved, turned = augment(points, boxes, recipe, np.random.default_rng(seed))
    assert points_inside(moved, turned[0]).tolist() == [True] * 8 + [False] * 8
    assert np.allclose(turned[0, 3:6], np.array(box[3:6]) * scale) and -np.pi <= turned[0, 6] <= np.pi + 1e-9
    assert np.array_equal(boxes[0], box), "what was given is as it was"
    held = parallel(turned)
    assert np.allclose(extents(held[:, :7]), extents(turned[:, :7])) and held[0, 6] == 0
    assert points_inside(moved[:8], held[0]).all()


def test_the_headings_of_mirrored_and_of_turned_boxes() -> None:
    box = np.array([[1.0, 2.0, 3.0, 2.0, 1.0, 1.0, 0.3, 5]])
    mirror = RECIPE.model_copy(update={**STILL, "flip_x_probability": 1.0})
    _, turned = augment(np.zeros((1, 3)), box, mirror, np.random.default_rng(0))
    assert np.allclose(turned, [[-1, 2, 3, 2, 1, 1, np.pi - 0.3, 5]]), "VoteNet's own rule"
    recipe = RECIPE.model_copy(update={**STILL, "rotation_degrees": 90.0})
    point, turned = augment(np.array([[1.0, 0, 0]]), box, recipe, np.random.default_rng(3))
    angle = np.arctan2(point[0, 1], point[0, 0])
    assert abs(angle) > 0.1 and np.isclose(turned[0, 6], 0.3 - angle), "counter-clockwise is negative"


def test_without_augmentation_a_sample_is_the_voxelised_scene() -> None:
    xyz, rgb = scene()
    recipe = RECIPE.model_copy(update={**STILL, "points": 5000})
    sample = training_sample(xyz, rgb, BOXES, None, recipe, np.random.default_rng(0))
    cells = np.floor(xyz / 0.1).astype(int)
    assert np.array_equal(sample.coordinates, np.unique(cells - cells.min(0), axis=0))
    assert np.array_equal(np.floor(sample.points.astype(float) / 0.1).astype(int) - cells.min(0), sample.coordinates)
    row = {tuple(p): c for p, c in zip(xyz.astype(np.float32).tolist(), rgb, strict=True)}
    expected = (np.array([row[tuple(p)] for p in sample.points.tolist()]) - recipe.colour_mean) / recipe.colour_divisor
    assert np.allclose(sample.colours, expected, atol=1e-6) and np.allclose(sample.boxes, BOXES)


@pytest.mark.parametrize("seed", range(8))
def test_points_vote_for_the_boxes_that_hold_them(seed: int) -> None:
    sample = training_sample(*scene(), BOXES, None, RECIPE, np.random.default_rng(seed))
    assert len(sample.coordinates) == len(sample.points) == len(sample.colours) <= RECIPE.points
    assert sample.coordinates.min(0).tolist() == [0, 0, 0] and sample.boxes.shape == BOXES.shape
    inside = np.stack([points_inside(sample.points, b) for b in sample.boxes])
    assert np.array_equal(inside.any(0), sample.vote_mask) and 5 < sample.vote_mask.sum() < 200
    for box, rows in zip(sample.boxes, inside, strict=True):
        assert rows.any() and np.allclose(sample.votes[rows], box[:3], atol=1e-5)


def test_two_boxes_around_a_point_are_two_votes() -> None:
    boxes = np.array([[0.1 * n, 0, 0, 2, 2, 2, 0, 0] for n in range(2)])
    recipe = RECIPE.model_copy(update=STILL)
    sample = training_sample(np.zeros((1, 3)), np.zeros((1, 3)), boxes, None, recipe, np.random.default_rng(0))
    assert sample.vote_mask.all() and np.allclose(sample.votes[0], [[0, 0, 0], [0.1, 0, 0], [0, 0, 0]])


def test_a_fourth_box_replaces_the_third_vote() -> None:
    boxes = np.array([[0, 0, 0.1 * n, 2, 2, 2, 0, 0] for n in range(4)], np.float32)
    (vote,) = box_votes(np.zeros((1, 3), np.float32), boxes)
    assert np.allclose(vote, [1, 0, 0, 0, 0, 0, 0.1, 0, 0, 0.3])


@pytest.mark.parametrize("seed", range(4))
def test_instances_vote_for_their_middle_and_their_boxes_stay_parallel_to_the_axes(seed: int) -> None:
    xyz, rgb = scene(seed)
    instances = np.full(len(xyz), -1)
    straight = BOXES * [1, 1, 1, 1, 1, 1, 0, 1]
    for number, box in enumerate(straight):
        instances[points_inside(xyz, box)] = 7 * number
    recipe = RECIPE.model_copy(update={"points": 5000, "voxel_metres": 1e-4})
    sample = training_sample(xyz, rgb, straight, instances, recipe, np.random.default_rng(seed))
    assert len(sample.points) == len(xyz) and (sample.boxes[:, 6] == 0).all()
    assert sample.vote_mask.sum() == (instances >= 0).sum()
    for box in sample.boxes:
        # The votes of this instance are close to the centre of its box.
        mine = sample.vote_mask & (np.abs(sample.votes[:, 0] - box[:3]).max(1) < 0.3)
        points = sample.points[mine]
        assert len(points) > 5 and points_inside(points, box + np.array([0, 0, 0, 1e-5, 1e-5, 1e-5, 0, 0])).all()
        middle = (points.min(0) + points.max(0)) / 2
        assert np.allclose(sample.votes[mine], middle, atol=1e-5)


def test_instances_without_points_and_scenes_without_instances() -> None:
    votes, mask = instance_votes(np.ones((3, 3)), np.array([-1, -5, -1]))
    assert not mask.any() and not votes.any()
    sample = training_sample(*scene(), np.zeros((0, 8)), np.full(1500, -1), RECIPE, np.random.default_rng(0))
    assert sample.boxes.shape == (0, 8) and not sample.vote_mask.any()
    sample = training_sample(*scene(), np.zeros((0, 8)), None, RECIPE, np.random.default_rng(0))
    assert sample.boxes.shape == (0, 8) and not sample.vote_mask.any() and np.isfinite(sample.votes).all()


def test_equal_generators_give_equal_samples_and_others_do_not() -> None:
    one, two, other = (training_sample(*scene(), BOXES, None, RECIPE, np.random.default_rng(s)) for s in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert not np.array_equal(one.boxes, other.boxes)


def test_a_test_scene_is_drawn_by_its_name() -> None:
    xyz, rgb = scene()
    one, two = (evaluation_sample(xyz, rgb, RECIPE, "scene0011_00") for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    other = evaluation_sample(xyz, rgb, RECIPE, "scene0011_01")
    assert not np.array_equal(one.points[:50], other.points[:50])
    assert 300 < len(one.points) <= 400 and one.coordinates.min(0).tolist() == [0, 0, 0]
    drawn = set(map(tuple, xyz.astype(np.float32).tolist()))
    assert drawn >= set(map(tuple, one.points.tolist())), "as they are, without augmentation"
    assert len(one.boxes) == 0 and not one.vote_mask.any() and one.votes.shape == (len(one.points), 3, 3)


def test_the_order_of_the_points_changes_no_voxel() -> None:
    xyz, rgb = scene()
    order = np.random.default_rng(5).permutation(len(xyz))
    recipe = RECIPE.model_copy(update={"points": 5000})
    for seed in range(3):
        one = training_sample(xyz, rgb, BOXES, None, recipe, np.random.default_rng(seed))
        two = training_sample(xyz[order], rgb[order], BOXES, None, recipe, np.random.default_rng(seed))
        assert np.array_equal(one.coordinates, two.coordinates) and np.array_equal(one.boxes, two.boxes)
    one, two = evaluation_sample(xyz, rgb, recipe, "a"), evaluation_sample(xyz[order], rgb[order], recipe, "a")
    assert np.array_equal(one.coordinates, two.coordinates)


def test_a_scene_without_points_is_refused() -> None:
    nothing = np.zeros((0, 3))
    with pytest.raises(ValueError, match="the scene has no points"):
        training_sample(nothing, nothing, BOXES, None, RECIPE, np.random.default_rng(0))
    with pytest.raises(ValueError, match="the scene has no points"):
        evaluation_sample(nothing, nothing, RECIPE, "a")


@pytest.mark.parametrize("bins", [1, 2, 12])
def test_headings_are_the_middle_of_their_bin_and_a_rest(bins: int) -> None:
    headings = np.linspace(-7, 7, 301)
    classes, rest = heading_bins_of(headings, bins)
    assert classes.min() >= 0 and classes.max() < bins
    if bins == 1:
        assert not rest.any()
        return
    assert np.abs(rest).max() <= np.pi / bins + 1e-12
    again = classes * 2 * np.pi / bins + rest
    assert np.allclose(np.cos(again), np.cos(headings)) and np.allclose(np.sin(again), np.sin(headings))
    assert heading_bins_of(np.array([-np.pi / bins + 1e-9, 2 * np.pi - 1e-9, -1e-20]), bins)[0].tolist() == [0, 0, 0]


def test_the_targets_of_a_batch() -> None:
    means = np.array([[1.0, 1, 1], [2, 2, 2], [3, 3, 3], [1, 2, 3]])
    many = np.tile(BOXES[:1], (70, 1))
    arrays = box_arrays([BOXES, np.zeros((0, 8))], 12, means)
    assert arrays.centres.shape == (2, 64, 3) and arrays.present.sum(1).tolist() == [2, 0]
    assert np.allclose(arrays.centres[0, :2], BOXES[:, :3]) and not arrays.centres[0, 2:].any()
    assert arrays.classes[0, :3].tolist() == arrays.size_classes[0, :3].tolist() == [3, 0, 0]
    assert np.allclose(arrays.size_residuals[0, :2], [[1, -1.4, -2], [-0.5, 0.5, -0.2]])
    assert arrays.heading_classes[0, :2].tolist() == [1, 6]
    assert np.allclose(arrays.heading_residuals[0, :2], [0.4 - np.pi / 6, np.pi - 2.9])
    assert all(a.dtype in (np.float32, np.int64, np.bool_) for a in arrays)
    more = box_arrays([many, BOXES], 12, means)
    assert more.present.sum(1).tolist() == [70, 2] and more.centres.shape[1] == 70, "no object is left out"
    assert box_arrays([], 12, means).centres.shape == (0, 64, 3)
