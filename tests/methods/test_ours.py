"""Geometry and sampling of both stages of `ours`."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from pretrain_bench.benchmarks.datasets.views import Frame, depth_frame, upright_points
from pretrain_bench.methods.ours import augment, projection
from pretrain_bench.methods.ours.images import make_views, pixel_loss, view_features
from pretrain_bench.methods.ours.points import frame_sample, point_loss
from pretrain_bench.methods.ours.recipe import OursImages, OursPoints
from pretrain_bench.methods.training.contrast import unit_rows
from tests.parity.vectors import case, formula

SMALL = OursImages(image_side=24, pixels_per_pair=100)


def grid_of(crop: augment.Crop) -> torch.Tensor:
    """(side * side, 2) source y and x of each view pixel, row by row."""
    pixels = torch.arange(crop.side, dtype=torch.float64)
    y, x = torch.meshgrid(crop.source(1, pixels), crop.source(0, pixels), indexing="ij")
    return torch.stack([y, x], -1).reshape(-1, 2)


@pytest.mark.parametrize("seed", range(10))
def test_matches_equal_a_brute_force_search(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, two = (augment.draw_crop(97, 64, SMALL, rng) for _ in range(2))
    distance = torch.cdist(grid_of(one), grid_of(two))
    near = distance.min(1).values <= 1.5
    nearest, first = augment.match_pixels(one, two, 1.5), augment.match_pixels(one, two, 1.5, nearest=False)
    assert torch.equal(near.nonzero().reshape(-1), nearest[:, 0]) and torch.equal(nearest[:, 0], first[:, 0])
    assert torch.allclose(distance[nearest[:, 0], nearest[:, 1]], distance.min(1).values[near])
    assert torch.equal((distance[near] <= 1.5).int().argmax(1), first[:, 1])


def test_tracked_coordinates_equal_those_of_a_resized_coordinate_image() -> None:
    rng = np.random.default_rng(0)
    width, height = 61, 47
    image = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")).double()
    for _ in range(20):
        crop = augment.draw_crop(width, height, SMALL, rng)
        window = image[None, :, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
        out = torch.nn.functional.interpolate(window, (24, 24), mode="bilinear", align_corners=False)[0]
        out = out.flip(2) if crop.flip else out
        assert torch.allclose(out.reshape(2, -1).t(), grid_of(crop), atol=1e-9)


def test_matched_pixels_show_the_same_thing() -> None:
    """On an image with smoothly varying colour, matched pixels of two views without colour changes have similar colours."""
    y, x = np.mgrid[0:90, 0:120]
    image = np.stack([2 * x, 2 * y, x + y], -1).astype(np.uint8)
    plain = OursImages(image_side=32, pixels_per_pair=500, jitter_probability=0, grey_probability=0, blur_probability=0)
    one, two, pairs = make_views(image, plain, np.random.default_rng(4))
    assert len(pairs) > 50
    a, b = one.flatten(1)[:, pairs[:, 0]], two.flatten(1)[:, pairs[:, 1]]
    assert (a - b).abs().mean() < 0.02


def test_colour_changes_stay_in_range_and_do_something() -> None:
    rng = np.random.default_rng(0)
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    changed = [augment.change_colours(image, OursImages(), rng) for _ in range(30)]
    assert all(c.shape == image.shape and float(c.min()) >= -1e-6 and float(c.max()) <= 1 + 1e-6 for c in changed)
    assert sum(not torch.equal(c, image) for c in changed) > 20


def test_hue_turns_in_a_circle() -> None:
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(augment._turn_hue(image, 0.0), image, atol=1e-6)
    assert torch.allclose(augment._turn_hue(augment._turn_hue(image, 0.3), -0.3), image, atol=1e-5)
    red = torch.tensor([1.0, 0, 0])[:, None, None]
    assert torch.allclose(augment._turn_hue(red, 1 / 3).flatten(), torch.tensor([0.0, 1, 0]), atol=1e-6)


def test_views_pass_together_or_one_after_the_other() -> None:
    """A small stand-in network: its batch norm sees 4 images of two views at once and updates once, or 2 per view and updates twice."""
    torch.manual_seed(0)
    inputs = torch.randn(4, 3, 5, 5)
    for norm_over, parts in (("both_views", [inputs]), ("each_view", [inputs[:2], inputs[2:]])):
        network = Normalised()
        found = view_features(network, inputs, OursImages.model_validate({"norm_over": norm_over}), True)
        expected = [
            (p - p.mean((0, 2, 3), True)) / (p.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
            for p in parts
        ]
        assert torch.allclose(found, torch.cat(expected), atol=1e-5)
        assert int(network.norm.num_batches_tracked) == len(parts)


class Normalised(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor, train_encoder: bool) -> torch.Tensor:
        return self.norm(x)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("negatives", ["within_pair", "batch"])
def test_pixel_loss_takes_the_negatives_of_its_recipe(negatives: str, reduction: str) -> None:
    """J-3 and J-4 against a loop over pixels; the third pair has no matches, contributes zero and counts in the mean."""
    torch.manual_seed(0)
    rows = [(torch.randn(n, 4, dtype=torch.float64), torch.randn(n, 4, dtype=torch.float64)) for n in (3, 5, 0)]
    recipe = OursImages.model_validate({"negatives": negatives, "reduction": reduction})
    total = 0.0
    for queries, keys in rows[:2]:
        own = unit_rows(keys)
        others = torch.cat([unit_rows(k) for _, k in rows]) if negatives == "batch" else own
        losses = [
            torch.logsumexp(others @ q / 0.4, 0) - k @ q / 0.4 for q, k in zip(unit_rows(queries), own, strict=True)
        ]
        total += float(torch.stack(losses).mean())
    assert math.isclose(float(pixel_loss(rows, recipe)), total / (3 if reduction == "mean" else 1), rel_tol=1e-9)


def test_point_loss_takes_the_negatives_of_its_recipe() -> None:
    """J-10 in closed form: all points equal, all pixels equal, points orthogonal to pixels; two frames with two pairs each."""
    points, pixels = (torch.eye(2, dtype=torch.float64)[i].expand(4, 2) for i in (0, 1))
    closed = {"batch": math.log(4), "per_frame": math.log(2), "batch_points": math.log(1 + 3 * math.exp(1 / 0.4))}
    for negatives, expected in closed.items():
        recipe = OursPoints.model_validate({"negatives": negatives, "pairs_per_frame": 2})
        assert math.isclose(float(point_loss(points, pixels, recipe)), expected, rel_tol=1e-9), negatives


def a_frame(width: int = 120, height: int = 90, seed: int = 0) -> Frame:
    rng = np.random.default_rng(seed)
    depth = rng.uniform(1, 4, (height, width)).astype(np.float32)
    depth[rng.random(depth.shape) < 0.1] = 0
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn * np.sign(np.linalg.det(turn)), rng.normal(size=3)
    intrinsic = np.array([[100.0, 0, 59.5], [0, 105.0, 44.5], [0, 0, 1]])
    return depth_frame(rng.integers(0, 256, (height, width, 3)).astype(np.uint8), depth, pose, intrinsic)


def test_a_point_projects_back_into_its_own_pixel() -> None:
    frame = a_frame()
    points = upright_points(frame)
    assert len(points.xyz) > 0.8 * 120 * 90
    assert np.abs(projection.project(points.xyz, frame) - points.uv).max() < 1e-6
    assert (points.rgb == frame.colour[points.uv[:, 1], points.uv[:, 0]]).all()


def test_lookup_is_exact_on_a_linear_image() -> None:
    crop = projection.centre_crop(120, 90, 37, 32)
    y, x = np.meshgrid(crop.grid_y, crop.grid_x, indexing="ij")
    features = torch.from_numpy(np.stack([x, y, x + 2 * y]))
    uv = np.stack([np.arange(20, 100), np.arange(10, 90) % 60 + 15], 1)
    uv = uv[projection.inside_crop(uv, crop)]
    assert len(uv) > 20
    found = projection.lookup(features, torch.from_numpy(uv), crop)
    assert np.abs(found.numpy() - np.stack([uv[:, 0], uv[:, 1], uv[:, 0] + 2 * uv[:, 1]], 1)).max() < 1e-9


def test_crop_of_the_headline_profile() -> None:
    crop = projection.centre_crop(640, 480, 256, 224)
    assert (crop.size, crop.left, crop.top) == ((341, 256), 58, 16)
    uv = np.array([[110, 100], [111, 100], [525, 100], [526, 100], [300, 31], [300, 32], [300, 446], [300, 447]])
    assert projection.inside_crop(uv, crop).tolist() == [False, True, True, False, False, True, True, False]
    with pytest.raises(ValueError, match="resize_side"):
        projection.centre_crop(640, 480, 200, 224)


def test_a_sample_pairs_each_voxel_with_the_pixel_it_came_from() -> None:
    frame = a_frame()
    recipe = OursPoints(
        pairs_per_frame=200, voxel_metres=0.05, image_side=32, resize_side=37, scale=(1.0, 1.0),
        rotation_degrees=(0, 0, 0), contrast_probability=0,
    )  # fmt: skip
    sample = frame_sample(frame, recipe, np.random.default_rng(3))
    assert sample is not None and len(sample.rows) == 200 and int(sample.rows.max()) < len(sample.coordinates)
    # Without rotation and scaling, only mirroring and a shift remain, which preserve distances between paired points.
    points = upright_points(frame)
    index = {tuple(uv): i for i, uv in enumerate(points.uv.tolist())}
    xyz = np.array([points.xyz[index[tuple(uv)]] for uv in sample.uv.tolist()])
    voxel = sample.coordinates[sample.rows].numpy() * 0.05
    distances = [np.linalg.norm(a[:, None] - a[None], axis=-1) for a in (xyz, voxel)]
    assert np.abs(distances[0] - distances[1]).max() < 2 * 0.05 * np.sqrt(3)


def test_an_image_is_smoothed_before_it_shrinks_unless_the_recipe_says_otherwise() -> None:
    """Black and white columns at a ninth of the size become grey with antialiasing; without, single columns stay black or white."""
    frame = a_frame(width=360, height=270)
    frame.colour[:] = np.where(np.arange(360) % 2, 255, 0)[None, :, None]
    size = {"pairs_per_frame": 20, "image_side": 24, "resize_side": 30}
    contrast = {}
    for antialias in (True, False):
        sample = frame_sample(
            frame, OursPoints.model_validate({**size, "antialias": antialias}), np.random.default_rng(0)
        )
        assert sample is not None
        contrast[antialias] = float((sample.image - 0.5).abs().mean())
    assert contrast[True] < 0.1 and contrast[False] > 0.45


def test_a_capped_sample_keeps_its_pairs_inside() -> None:
    recipe = OursPoints(pairs_per_frame=20, voxel_metres=0.1, image_side=32, resize_side=37, max_voxels_per_frame=150)
    sample = frame_sample(a_frame(), recipe, np.random.default_rng(0))
    assert sample is not None and len(sample.coordinates) == 150
    assert len(torch.unique(sample.coordinates, dim=0)) == 150 and int(sample.rows.max()) < 150
    assert float(sample.colours.abs().max()) <= 0.5


def test_a_frame_with_too_few_points_gives_no_sample() -> None:
    frame = a_frame()
    frame = frame._replace(camera=frame.camera[:5], uv=frame.uv[:5])
    recipe = OursPoints(pairs_per_frame=10, image_side=32, resize_side=37)
    assert frame_sample(frame, recipe, np.random.default_rng(0)) is None


def test_projection_on_a_real_frame(golden_shared: Path) -> None:
    with np.load(golden_shared / "data.npz") as archive:
        golden = case(dict(archive), "proj")
    depth = golden["frame_depth_mm"].astype(np.float32) / np.float32(1000)
    frame = depth_frame(np.zeros((*depth.shape, 3), np.uint8), depth, golden["pose_f64"], golden["intrinsics_f64"])
    points = upright_points(frame)
    rows = golden["sample_point_rows"]
    assert len(points.xyz) == golden["num_points"]
    assert np.array_equal(points.uv[rows], golden["sample_pixel_uv"])
    assert np.abs(points.xyz[rows] - golden["sample_xyz_world"]).max() < 1e-5
    crop = projection.centre_crop(640, 480, 256, 224)
    assert (
        np.abs(crop.grid_x - golden["grid_x_f64"]).max() < 1e-9
        and np.abs(crop.grid_y - golden["grid_y_f64"]).max() < 1e-9
    )
    kept = projection.inside_crop(points.uv, crop)
    assert np.array_equal(kept, np.unpackbits(golden["kept_mask_packed"])[: len(kept)].astype(bool))
    features = torch.from_numpy(formula(2000, 16 * 224 * 224).astype(np.float32).reshape(16, 224, 224))
    uv = torch.from_numpy(golden["chosen_uv"])
    for mode, name in (("bilinear", "features_exact_bilinear"), ("author_code", "features_author_code")):
        assert np.abs(projection.lookup(features, uv, crop, mode).numpy() - golden[name]).max() < 1e-5
