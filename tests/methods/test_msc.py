"""Masked Scene Contrast: properties of views, masks, mixing and pairs; sources; clipping and the momentum cycle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pretrain_bench.benchmarks.input.voxelise import quantise, to_cells
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.harness.planning.applicable import NotApplicable, check_needs
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.planning.prepared_data import PreparedDataset
from pretrain_bench.methods.msc.passes import cross_masks, joined_candidates, kept_when_mixed, make_pass, patches_of
from pretrain_bench.methods.msc.recipe import MaskedSceneContrast
from pretrain_bench.methods.msc.scans import MaskedNetwork, clip_gradients, source_of
from pretrain_bench.methods.msc.schedule import one_cycle_rate, warmup_of
from pretrain_bench.methods.msc.views import ScanViews, hue_turned, recoloured, scan_views, settled
from pretrain_bench.methods.training.loop import Training
from tests.methods.stages import (
    nano_stages,
    open_stage,
    recipe_in,
    small_recordings,
    small_scans,
    training_of,
)

RECIPE = MaskedSceneContrast(
    voxel_metres=0.1, max_voxels_per_view=300, least_voxels_per_view=100, pairs=200, scans_per_pass=3, scans_per_step=3,
    mix_probability=1.0,
)  # fmt: skip
RADIUS = 0.15


def corner(seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A floor of 5 by 4 m and two walls, 400 points per square metre, away from the origin."""
    rng = np.random.default_rng(seed)
    sides = [(5, 4, 0), (5, 0, 2.5), (0, 4, 2.5)]
    parts = [rng.uniform(0, 1, (int(400 * a * b), 3)) for a, b in ((5, 4), (5, 2.5), (4, 2.5))]
    xyz = np.concatenate([part * side for part, side in zip(parts, sides, strict=True)])
    xyz += np.array([30, -20, 1])
    return xyz.astype(np.float32), rng.integers(0, 256, xyz.shape, dtype=np.uint8)


def drawn(seed: int, recipe: MaskedSceneContrast = RECIPE) -> ScanViews:
    views = scan_views(*corner(), recipe, np.random.default_rng(seed))
    assert views is not None
    return views


@pytest.fixture(scope="module")
def source(cache: Path) -> PreparedDataset:
    return small_recordings(cache)


@pytest.mark.parametrize("seed", range(4))
def test_views_come_from_one_region_and_overlap(seed: int) -> None:
    views = drawn(seed)
    for view in (views.one, views.two):
        assert 100 <= len(view.coordinates) <= 300
        assert len(np.unique(view.coordinates, axis=0)) == len(view.coordinates), "one point of each voxel"
        assert view.coordinates.min() >= 0 and np.abs(view.colours).max() <= 0.5
    reach = [np.ptp(view.origin, axis=0).max() for view in (views.one, views.two)]
    assert max(reach) <= np.ptp(np.concatenate([views.one.origin, views.two.origin]), axis=0).max() < 3.5, "of 5 m"
    one, two = (v.origin[views.candidates[:, i]] for i, v in enumerate((views.one, views.two)))
    assert np.linalg.norm(one - two, axis=1).max() < RADIUS
    _, matches = np.unique(views.candidates[:, 0], return_counts=True)
    assert matches.max() <= RECIPE.match_neighbours
    assert len(matches) > 0.2 * len(views.one.coordinates), "crops of 0.6 of one region share a fifth of it at least"


def test_views_are_of_the_whole_scan_unless_they_are_bounded() -> None:
    views = drawn(0, RECIPE.model_copy(update={"max_voxels_per_view": None}))
    whole = len(quantise(to_cells(settled(corner()[0], 1.0), 0.1)).coordinates)
    assert len(views.one.coordinates) > 0.5 * whole > 5 * 300


def test_a_scan_that_is_too_small_or_overlaps_too_little_is_not_used() -> None:
    xyz, rgb = corner()
    for few in ({"least_voxels_per_view": 301}, {"least_pairs": 301}):
        assert scan_views(xyz, rgb, RECIPE.model_copy(update=few), np.random.default_rng(0)) is None
    assert scan_views(xyz[:0], rgb[:0], RECIPE, np.random.default_rng(0)) is None


def test_masks_take_whole_cells_and_never_one_in_both_views() -> None:
    origins = [(v.one.origin, v.two.origin) for v in map(drawn, range(3))]
    patches, count = patches_of(origins, 0.5)
    one, two = cross_masks(patches, np.random.default_rng(0).permutation(count), 0.4)
    first, second = (np.unique(p[m]) for p, m in zip(patches, (one, two), strict=True))
    assert not set(first) & set(second)
    assert 0 < len(first) <= int(0.4 * count) and 0 < len(second) <= int(0.4 * count)
    for patch, masked in zip(patches, (one, two), strict=True):
        assert all(len(set(masked[patch == p])) == 1 for p in np.unique(patch)), "a cell is masked as a whole"
    scans = np.repeat(np.arange(3), [len(a) for a, _ in origins])
    assert len({tuple(x) for x in zip(patches[0], scans, strict=True)}) == len(np.unique(patches[0])), (
        "of one scan each"
    )


def test_mixed_scans_share_a_batch_item_without_sharing_a_voxel() -> None:
    scans = [drawn(seed) for seed in range(3)]
    part = make_pass(scans, RECIPE, np.random.default_rng(0))
    assert part.one.coordinates[:, 0].unique().tolist() == [0, 1], "the first two are one item, the last is alone"
    assert part.two.coordinates[:, 0].unique().tolist() == [0, 1, 2], "the second view is not mixed"
    assert len(part.one.coordinates.unique(dim=0)) == len(part.one.coordinates)
    kept = kept_when_mixed([scan.one.coordinates for scan in scans])
    assert kept[0].all() and kept[2].all() and 0 < (~kept[1]).sum() < len(kept[1])
    assert part.left_out == pytest.approx((~kept[1]).sum() / sum(map(len, kept)))
    apart = make_pass(scans, RECIPE.model_copy(update={"mix_probability": 0.0}), np.random.default_rng(0))
    assert apart.left_out == 0 and apart.one.coordinates[:, 0].unique().tolist() == [0, 1, 2]


@pytest.mark.parametrize("mixed", [0.0, 1.0])
def test_pairs_are_voxels_of_one_scan_that_lie_close(mixed: float) -> None:
    scans = [drawn(seed) for seed in range(3)]
    part = make_pass(scans, RECIPE.model_copy(update={"mix_probability": mixed}), np.random.default_rng(1))
    kept = (
        kept_when_mixed([s.one.coordinates for s in scans])
        if mixed
        else [np.ones(len(s.one.origin), bool) for s in scans]
    )
    shift = 100.0 * np.arange(3)  # so that voxels of different scans are far apart
    one = np.concatenate([s.one.origin[k] + x for s, k, x in zip(scans, kept, shift, strict=True)])
    two = np.concatenate([s.two.origin + x for s, x in zip(scans, shift, strict=True)])
    first, second = part.pairs.numpy().T
    assert np.linalg.norm(one[first] - two[second], axis=1).max() < RADIUS + 1e-4
    assert len(part.pairs) == min(RECIPE.pairs, part.matched) == len(np.unique(first))
    assert part.matched == len(np.unique(joined_candidates(scans, kept)[:, 0]))


def test_colours_that_are_grey_or_turned_all_around_stay() -> None:
    rng = np.random.default_rng(0)
    rgb = rng.uniform(0, 255, (500, 3))
    assert np.allclose(hue_turned(rgb, 1.0), rgb) and not np.allclose(hue_turned(rgb, 0.1), rgb, atol=5)
    grey = np.repeat(rng.uniform(0, 255, (20, 1)), 3, axis=1)
    assert np.allclose(hue_turned(grey, 0.3), grey)
    red = np.array([[255.0, 0, 0]])
    assert np.allclose(hue_turned(red, 1 / 3), [[0, 255, 0]]) and np.allclose(hue_turned(red, -1 / 3), [[0, 0, 255]])
    untouched = recoloured(rgb, [3, 1, 0, 2], np.array([0.6, 1.4, 0.8, 0.02]), np.zeros(4, bool))
    assert np.array_equal(untouched, rgb)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mask_rate": 0.6}, "less than or equal to 0.5"),
        ({"mask_rate": 0.0}, "greater than 0"),
        ({"scans_per_pass": 1}, "scans_per_pass must be 2 or more, or mix_probability 0"),
        ({"scans_per_step": 6}, r"scans_per_step \(6\) must be a multiple of scans_per_pass \(4\)"),
        ({"optimiser": {"learning_rate": 0.1, "dampening": 0.1}}, "nesterov needs a momentum above 0"),
    ],
)
def test_recipes_that_cannot_be_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MaskedSceneContrast.model_validate(fields)


def test_clipping_is_a_deviation_that_upstream_profiles_leave_out() -> None:
    bounds = {
        p: recipe_in(p, "msc", "scans").clip_gradient_norm
        for p in ("headline", "tiny", "smoke", "official", "paper-literal")
    }
    assert bounds == {"headline": 1.0, "tiny": 1.0, "smoke": 1.0, "official": None, "paper-literal": None}
    official = recipe_in("official", "msc", "scans")
    assert (official.steps, official.scans_per_step, official.scans_per_pass) == (30_200, 32, 4)


def test_the_warm_up_is_short_in_short_runs_and_never_divides_by_zero() -> None:
    assert [warmup_of(places, 302) for places in (30_200, 6040, 6000, 600, 8, 1)] == [302, 302, 300, 30, 2, 2]
    for places in (1, 2, 3, 8):
        rates = [one_cycle_rate(0.1, warmup_of(places, 302), places)(t) for t in range(places)]
        assert rates[0] == pytest.approx(0.01) and max(rates) <= 0.1 and all(np.isfinite(rates))


@pytest.fixture(scope="module")
def training(source: PreparedDataset, tmp_path_factory: pytest.TempPathFactory) -> Training:
    return training_of(open_stage(nano_stages("msc", source)[0], tmp_path_factory.mktemp("msc"), {}))


def test_masked_colours_do_not_reach_the_network_and_its_token_learns(training: Training) -> None:
    network: Any = training.modules["network"]
    assert isinstance(network, MaskedNetwork)
    view = training.make_batch(0)[0].one
    assert 0 < int(view.masked.sum()) < len(view.masked)
    with torch.no_grad():
        other = view._replace(colours=torch.where(view.masked[:, None], 0.5, view.colours))
        assert torch.equal(network(view), network(other))
        seen = view._replace(colours=torch.where(view.masked[:, None], view.colours, 0.5))
        assert not torch.equal(network(view), network(seen))
    training.optimiser.zero_grad()
    training.run_step(0, training.make_batch(0))
    assert network.token.grad.abs().sum() > 0 and network.colour.weight.grad.abs().sum() > 0


def test_a_step_clips_its_gradients_and_cycles_momentum(training: Training) -> None:
    training.optimiser.zero_grad()
    result = training.run_step(0, training.make_batch(0))
    health = result.health
    norm = clip_gradients(training.modules["network"].parameters(), None)[0]
    assert health["clipped"] == 1.0 and health["unclipped_gradient_norm"] > 1 and norm == pytest.approx(1.0, abs=1e-4)
    (group,) = training.optimiser.param_groups
    assert group["nesterov"] and group["momentum"] == pytest.approx(0.95)
    assert 0 < health["masked_one"] < 0.7 and 0 < health["masked_two"] < 0.7 and health["colour_loss"] > 0
    assert health["contrast_loss"] + health["colour_loss"] == pytest.approx(result.loss)


def test_gradients_that_are_no_numbers_are_left_to_the_loop() -> None:
    for value in (float("inf"), float("nan")):
        parameter = torch.nn.Parameter(torch.zeros(2))
        parameter.grad = torch.tensor([1.0, value])
        norm, clipped = clip_gradients([parameter], 1.0)
        assert not np.isfinite(norm) and not clipped and parameter.grad[0] == 1.0


def test_scans_that_can_never_be_used_end_the_run(source: PreparedDataset, tmp_path: Path) -> None:
    planned = nano_stages("msc", source, least_voxels_per_view=10_000)[0]
    with pytest.raises(
        DataError, match=r"20 scans in a row have views of fewer than 10,000 voxels .*check voxel_metres"
    ):
        training_of(open_stage(planned, tmp_path, {})).make_batch(0)


def test_sources(source: PreparedDataset, cache: Path, tmp_path: Path) -> None:
    """Clouds if they have colours, else frames, whose images give laser scans their colours."""
    laser = small_scans("synth-kitti", cache)
    expected = {
        ("rooms", "auto"): (3, False), ("rooms", "frames"): (12, True),
        ("laser", "auto"): (3, True), ("laser", "frames"): (3, True),
    }  # fmt: skip
    for (name, kind), (size, frames) in expected.items():
        planned = nano_stages("msc", source if name == "rooms" else laser, source=kind)[0]
        context = open_stage(planned, tmp_path / name / kind, {})
        scans = source_of(context, context.recipe(MaskedSceneContrast))
        xyz, rgb = scans.read(0)
        assert (scans.size, scans.frames) == (size, frames) and xyz.shape == rgb.shape and len(xyz) > 100
        assert ("z_up" in context.notes) == frames
    context = open_stage(nano_stages("msc", laser, source="clouds")[0], tmp_path / "refused", {})
    with pytest.raises(
        DataError, match="none of the 3 scenes of 'synth-kitti' has a cloud with colours; if they have images"
    ):
        training_of(context)


def test_a_run_on_frames_says_so(source: PreparedDataset, tmp_path: Path) -> None:
    context = open_stage(nano_stages("msc", source, source="frames")[0], tmp_path, {})
    training = training_of(context)
    result = training.run_step(0, training.make_batch(0))
    assert result.seen["frames"] == result.seen["images"] == result.seen["samples"] == 2
    assert context.notes["source"].startswith("single frames") and context.notes["clipping"].startswith(
        "gradient norms above 1"
    )


def test_it_is_refused_by_name_without_clouds() -> None:
    with pytest.raises(NotApplicable, match="method 'msc' needs clouds, which dataset 'rgbd-folder' does not have"):
        check_needs(find(Method, "msc"), find(Dataset, "rgbd-folder"))
