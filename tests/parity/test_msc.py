"""Masked Scene Contrast: views, masks, pairs, losses and schedule against results of the original code."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pretrain_bench.benchmarks.input.voxelise import quantise, to_cells
from pretrain_bench.methods.msc import passes, scans, schedule, views
from pretrain_bench.methods.msc.passes import Pass, ViewBatch
from pretrain_bench.methods.msc.recipe import MaskedSceneContrast
from pretrain_bench.methods.training.contrast import info_nce, unit_rows
from tests.parity.vectors import case, load

GOLDEN = load("msc")
PIPE = case(GOLDEN, "pipe")
RECIPE = MaskedSceneContrast(colour_target_scale=1.0)
SCANS, VIEWS = (0, 1), (1, 2)
VOXEL, CELL, RADIUS, CAP = 0.02, 0.1, 0.03, 150


def near(actual: Any, expected: Any, tolerance: float) -> None:
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape and np.abs(actual - expected).max() <= tolerance


def view_of(scan: int, view: int, name: str) -> NDArray:
    return PIPE[f"scene{scan}_view{view}_{name}"]


def joined(view: int, name: str) -> NDArray:
    return np.concatenate([view_of(scan, view, name) for scan in SCANS])


def origins() -> list[tuple[NDArray, NDArray]]:
    """The positions of the voxels of both views of each scan."""
    origin = [PIPE[f"scene{scan}_origin_coord"] for scan in SCANS]
    return [(o[view_of(s, 1, "raw")], o[view_of(s, 2, "raw")]) for s, o in zip(SCANS, origin, strict=True)]


@pytest.mark.parametrize("scan", SCANS)
def test_a_scan_is_settled_and_scaled(scan: int) -> None:
    scale = float(PIPE[f"scene{scan}_draw_scale_f64"][0])
    near(views.settled(PIPE[f"scene{scan}_coord"], scale), PIPE[f"scene{scan}_origin_coord"], 1e-6)


def moved(scan: int, view: int) -> NDArray[np.float64]:
    """The points of a view, rotated and mirrored."""
    about_z, about_x, about_y = np.pi * view_of(scan, view, "draw_angles_f64")
    origin = PIPE[f"scene{scan}_origin_coord"].astype(np.float64)
    return views.mirrored(
        views.turned(origin, (about_x, about_y, about_z)),
        view_of(scan, view, "draw_flip_f64") < RECIPE.flip_probability,
    )


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("scan", SCANS)
def test_views_are_turned_mirrored_voxelised_and_cropped(scan: int, view: int) -> None:
    xyz = moved(scan, view)
    near(xyz, view_of(scan, view, "coord_after_flip_f64"), 1e-6)
    noise = RECIPE.jitter_voxels * VOXEL * view_of(scan, view, "draw_jitter_f32").astype(np.float64)
    bound = RECIPE.jitter_clip_voxels * VOXEL
    xyz = xyz + np.clip(noise, -bound, bound)
    cells = to_cells(xyz, VOXEL)
    cells -= cells.min(axis=0)
    rows = view_of(scan, view, "raw_after_grid")
    near(cells[rows], view_of(scan, view, "grid_after_grid"), 0)
    near(quantise(cells).coordinates, quantise(cells[rows]).coordinates, 0)
    kept = views.sphere(xyz[rows], int(view_of(scan, view, "draw_crop")), views.view_size(len(rows), RECIPE))
    assert set(rows[kept]) == set(view_of(scan, view, "raw"))


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("scan", SCANS)
def test_views_are_recoloured(scan: int, view: int) -> None:
    rgb = PIPE[f"scene{scan}_color_u8"].astype(np.float64)
    applied = view_of(scan, view, "draw_colour_apply_f64") < RECIPE.colour_jitter_probability
    order, factors = view_of(scan, view, "draw_colour_order"), view_of(scan, view, "draw_colour_factors_f64")
    near(views.recoloured(rgb, order, factors, applied), view_of(scan, view, "color_after_colorjitter"), 2e-3)


def test_cross_masks_on_clean_cells() -> None:
    golden = case(GOLDEN, "maskclean")
    patches, count = passes.patches_of(origins(), CELL)
    assert count == len(golden["permutation"])
    one, two = passes.cross_masks(patches, golden["permutation"], RECIPE.mask_rate)
    near(one, golden["view1"], 0)
    near(two, golden["view2"], 0)


def candidates() -> NDArray[np.int64]:
    parts, first, second = [], 0, 0
    for one, two in origins():
        rows = views.match_candidates(one, two, RADIUS, RECIPE.match_neighbours)
        parts.append(rows + np.array([first, second]))
        first, second = first + len(one), second + len(two)
    return np.concatenate(parts)


def test_candidates_and_the_pairs_that_upstream_draws_of_them() -> None:
    golden, rows_of_both = case(GOLDEN, "pair"), candidates()
    near(rows_of_both, golden["candidates"], 0)
    _, first, count = np.unique(rows_of_both[:, 0], return_index=True, return_counts=True)
    chosen = rows_of_both[first + count - 1 - golden["randint"] % count][golden["permutation"][:CAP]]
    near(chosen, golden["selected"], 0)
    rows = np.sort(golden["selected"][:, 0])
    drawn = passes.draw_pairs(rows_of_both, rows, np.random.default_rng(0)).numpy()
    near(drawn[:, 0], rows, 0)
    assert {tuple(pair) for pair in drawn} <= {tuple(pair) for pair in golden["candidates"]}


def test_the_contrast_and_its_gradients() -> None:
    one, two = (torch.from_numpy(GOLDEN[f"loss__features{v}"]).double().requires_grad_() for v in VIEWS)
    pairs = torch.from_numpy(GOLDEN["pair__selected"]).long()
    loss = info_nce(unit_rows(one[pairs[:, 0]]), unit_rows(two[pairs[:, 1]]), RECIPE.temperature)
    loss.backward()
    golden = case(GOLDEN, "contrast")
    near(float(loss.detach()), golden["loss_pos_neg_f64"][0], 1e-6)
    assert one.grad is not None and two.grad is not None
    near(one.grad, golden["grad1_f64"], 1e-7)
    near(two.grad, golden["grad2_f64"], 1e-7)


class Toy(nn.Module):
    """Replaces the backbone: tanh(colour A + position c) + (mean colour of the batch item) B."""

    def __init__(self, places: list[Tensor]) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.from_numpy(GOLDEN["toy__A_c_B_f64"]))
        self.token = nn.Parameter(torch.from_numpy(GOLDEN["toy__mask_token_f64"]))
        self.colour = linear("color")
        self.places, self.inputs, self.outputs = list(places), [], []  # type: ignore[var-annotated]

    def forward(self, view: ViewBatch) -> Tensor:
        colours, place = torch.where(view.masked[:, None], self.token, view.colours), self.places[len(self.outputs)]
        index = view.coordinates[:, 0].long()
        means = torch.stack([colours[index == i].mean(0) for i in range(int(index.max()) + 1)])
        a, c, b = self.weights
        self.inputs.append(colours)
        self.outputs.append(torch.tanh(colours @ a + place @ c) + (means @ b)[index])
        return self.outputs[-1]


class Linear64(nn.Linear):
    """A linear layer in float64 that accepts float32."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.double())


def linear(name: str) -> nn.Linear:
    weight_bias = torch.from_numpy(GOLDEN[f"head__{name}_weight_bias_f64"])
    layer = Linear64(12, 3, dtype=torch.float64)
    layer.weight.data, layer.bias.data = weight_bias[:, :-1].clone(), weight_bias[:, -1].clone()
    return layer


def normal_loss(toy: Toy, part: Pass) -> Tensor:
    """An optional term of upstream that this project omits; the golden totals include it."""
    features = torch.cat([toy.outputs[0][part.one.masked], toy.outputs[1][part.two.masked]])
    masked = (part.one.masked.numpy(), part.two.masked.numpy())
    targets = torch.from_numpy(np.concatenate([joined(v, "normal")[m] for v, m in zip(VIEWS, masked, strict=True)]))
    predicted = linear("normal")(features)
    predicted = predicted / (predicted.norm(dim=1, keepdim=True) + 1e-10)
    return (predicted * targets).sum() / len(features)


@pytest.mark.parametrize("mixed", [False, True])
def test_a_whole_step(mixed: bool) -> None:
    """Token, mixing, both losses and their gradients, with the golden masks and pairs."""
    batches = []
    for view in VIEWS:
        shown = [
            views.View(view_of(s, view, "grid_coord"), view_of(s, view, "coord_f64"), view_of(s, view, "color"))
            for s in SCANS
        ]
        batch = passes.view_batch(shown, GOLDEN[f"mask__view{view}"], mixed and view == 1)
        batches.append(batch._replace(colours=batch.colours.double()))
    part = Pass(*batches, torch.from_numpy(GOLDEN["pair__selected"]).long(), 0, 0.0)
    toy = Toy([torch.from_numpy(joined(v, "coord_f64").astype(np.float32)).double() for v in VIEWS])
    context: Any = SimpleNamespace(device=torch.device("cpu"), autocast=nullcontext)
    terms = scans.pass_terms(toy, part, RECIPE, context)  # type: ignore[arg-type]
    golden = case(GOLDEN, "forward_mixed" if mixed else "forward_plain")
    near(torch.stack([terms.contrast, terms.colour]).detach(), golden["terms_f64"][:2], 2e-6)
    if not mixed:
        near(toy.inputs[0].detach(), GOLDEN["forward__input1"], 1e-6)
        near(toy.outputs[0].detach(), golden["out1_f64"], 1e-6)
        colour = torch.autograd.grad(terms.colour, [*toy.outputs, toy.colour.weight], retain_graph=True)
        for name, gradient in zip(("out1", "out2"), colour[:2], strict=True):
            near(gradient, GOLDEN[f"color__grad_{name}_f64"], 1e-6)
        near(colour[2], GOLDEN["color__grad_weight_bias_f64"][:, :-1], 1e-5)
    (terms.contrast + terms.colour + normal_loss(toy, part)).backward()
    assert toy.token.grad is not None and toy.weights.grad is not None
    near(toy.token.grad, golden["grad_token_f64"], 1e-5)
    near(toy.weights.grad, golden["grad_A_c_B_f64"], 1e-5)


@pytest.mark.parametrize("count", range(1, 8))
def test_which_scans_are_mixed(count: int) -> None:
    """With `count` scans of ten voxels each, the scans of one batch index end at the offsets that upstream keeps."""
    ten = views.View(np.zeros((10, 3), np.int32), np.zeros((10, 3), np.float32), np.zeros((10, 3), np.float32))
    index = passes.view_batch([ten] * count, np.zeros(10 * count, bool), True).coordinates[:, 0].numpy()
    near(np.flatnonzero(np.append(np.diff(index), 1)) + 1, GOLDEN[f"mix__offsets{count}"], 0)


@pytest.mark.parametrize("places", [300, 600])
def test_the_schedule(places: int) -> None:
    golden, warmup = GOLDEN[f"schedule__T{places}_lr_momentum_f64"], places // 100
    rate, momentum = (
        schedule.one_cycle_rate(0.1, warmup, places),
        schedule.one_cycle_momentum(0.85, 0.95, warmup, places),
    )
    near([(rate(t), momentum(t)) for t in range(places)], golden, 1e-12)
