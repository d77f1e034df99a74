"""The only stage of Masked Scene Contrast: contrast two masked views of a scan, and predict the masked colours (spec 1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pretrain_bench.benchmarks.datasets.layout import UNLABELLED
from pretrain_bench.benchmarks.datasets.views import load_cloud, load_frame, up_rules, up_rules_text, upright_points
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.methods.context import StageContext
from pretrain_bench.methods.msc.passes import Pass, ViewBatch, make_pass
from pretrain_bench.methods.msc.recipe import MaskedSceneContrast
from pretrain_bench.methods.msc.schedule import one_cycle_momentum, one_cycle_rate, warmup_of
from pretrain_bench.methods.msc.views import ScanViews, scan_views
from pretrain_bench.methods.networks.res16unet import HEAD, Res16UNet34C, seeded_backbone
from pretrain_bench.methods.sparse.backend import sparse_backend
from pretrain_bench.methods.training.checkpoint import save_backbone
from pretrain_bench.methods.training.contrast import embedding_health, info_nce, unit_rows
from pretrain_bench.methods.training.frames import frames_of
from pretrain_bench.methods.training.loop import StepResult, Training, batch_indices, first_usable, train_and_save
from pretrain_bench.methods.training.optim import sgd

TOKEN_STD = 0.02
Scan = tuple[NDArray, NDArray]
"""Points (N, 3) in metres, z up, and their colours (N, 3) in 0..255."""


class Source(NamedTuple):
    """The scans that a stage learns from: their number, a reader by index, and whether they are single frames."""

    size: int
    read: Callable[[int], Scan]
    frames: bool


class MaskedNetwork(nn.Module):
    """The backbone, the token that replaces masked colours, and the layer that predicts colours from features."""

    def __init__(self, backbone: Res16UNet34C, token: Tensor, backend: str) -> None:
        super().__init__()
        self.backbone, self.token = backbone, nn.Parameter(token)
        self.colour = nn.Linear(backbone.feature_channels, 3)
        self.engine = sparse_backend(backend)

    def forward(self, view: ViewBatch) -> Tensor:
        """(N, channels) features of all voxels of a view, in the order of its rows."""
        colours = torch.where(view.masked[:, None], self.token, view.colours)
        return self.backbone.features(self.engine.SparseTensor(colours, view.coordinates)).F


class Terms(NamedTuple):
    """Both losses of a pass (scalars); unit features (P, C) of its pairs; and the colour loss of the best constant prediction."""

    contrast: Tensor
    colour: Tensor
    queries: Tensor
    keys: Tensor
    constant: float


def run(context: StageContext) -> dict[str, float | None]:
    """Train and write `artifacts/backbone.safetensors`, without the token and the colour layer."""
    return train_and_save(context, prepare(context))


def prepare(context: StageContext) -> Training:
    """Build the network and its training. Raises DataError if the data have neither clouds with colours nor frames."""
    recipe = context.recipe(MaskedSceneContrast)
    source = source_of(context, recipe)
    network = build_network(context).to(context.device).train()
    optimiser = sgd(network.parameters(), recipe.optimiser)
    length = context.run_length(recipe.steps, recipe.scans_per_step)
    warmup = warmup_of(length.scheduled, recipe.warmup_steps)
    schedule = one_cycle_rate(recipe.optimiser.learning_rate, warmup, length.scheduled)
    momentum = one_cycle_momentum(*recipe.momentum_cycle, warmup, length.scheduled) if recipe.momentum_cycle else None
    for group in optimiser.param_groups:
        group["nesterov"] = recipe.nesterov
    write_notes(context, recipe, source)

    def make_batch(number: int) -> list[Pass]:
        chosen = batch_indices(context, "order", number, recipe.scans_per_step, source.size)
        scans = [draw_scan(context, recipe, source, i, (number, p)) for p, i in enumerate(chosen)]
        size = recipe.scans_per_pass
        return [
            make_pass(scans[start : start + size], recipe, context.rng("selection", number, start // size))
            for start in range(0, len(scans), size)
        ]

    def step(number: int, passes: list[Pass]) -> StepResult:
        if momentum is not None:
            for group in optimiser.param_groups:
                group["momentum"] = momentum(context.place)
        loss, health = learn_from(network, passes, recipe, context)
        norm, health["clipped"] = clip_gradients(network.parameters(), recipe.clip_gradient_norm)
        health["unclipped_gradient_norm"] = norm
        pictures = recipe.scans_per_step if source.frames else 0
        seen = {"samples": recipe.scans_per_step, "frames": pictures, "images": pictures, "points": voxels_of(passes)}
        return StepResult(loss, seen, health)

    def save() -> None:
        save_backbone(network.backbone, context.artifacts, drop=HEAD)

    return Training({"network": network}, optimiser, schedule, length, make_batch, step, save=save)


def source_of(context: StageContext, recipe: MaskedSceneContrast) -> Source:
    """The clouds with colours or the single frames that the recipe asks for. Raises DataError if the data have none."""
    assert context.spec.data is not None
    scenes, view = context.spec.data.scenes, context.view
    coloured = [s for s in scenes if (view / UNLABELLED / s / "rgb.npy").is_file()]
    if recipe.source == "frames" or (recipe.source == "auto" and not coloured):
        frames = frames_of(context)

        def read_frame(number: int) -> Scan:
            points = upright_points(load_frame(view, *frames[number]))
            return points.xyz, points.rgb

        context.notes["z_up"] = up_rules_text(up_rules(view, frames))
        return Source(len(frames), read_frame, True)
    if not coloured:
        raise DataError(
            f"none of the {len(scenes)} scenes of {context.spec.data.dataset!r} has a cloud with colours; if they have images, "
            "set methods.msc.scans.source: frames in a profile"
        )

    def read_cloud(number: int) -> Scan:
        cloud = load_cloud(view, coloured[number])
        return np.asarray(cloud.xyz), np.asarray(cloud.rgb)

    if len(coloured) < len(scenes):
        context.warn(f"{len(scenes) - len(coloured):,} of the {len(scenes):,} scenes have no cloud with colours")
    return Source(len(coloured), read_cloud, False)


def write_notes(context: StageContext, recipe: MaskedSceneContrast, source: Source) -> None:
    """What the record says of this run where it does not follow the published recipe."""
    context.notes["source"] = "single frames (published: whole scans)" if source.frames else "clouds of whole scenes"
    context.notes["input"] = (
        f"colour (published: colour and normals); the colour target is the input times {recipe.colour_target_scale:g}"
    )
    if recipe.clip_gradient_norm is not None:
        context.notes["clipping"] = f"gradient norms above {recipe.clip_gradient_norm:g} are clipped (published: none)"


def build_network(context: StageContext) -> MaskedNetwork:
    """The network with seeded initial weights, head and token."""
    spec = context.spec
    momentum = spec.network.pretrain_bn_momentum
    backbone = seeded_backbone(1, spec.network, momentum, spec.sparse_backend, context.seed("weights"))
    torch.manual_seed(context.seed("head"))
    return MaskedNetwork(backbone, TOKEN_STD * torch.randn(spec.network.input_channels), spec.sparse_backend)


def draw_scan(
    context: StageContext, recipe: MaskedSceneContrast, source: Source, index: int, place: tuple[int, int]
) -> ScanViews:
    """Two views of scan `index`, or of another drawn at random if they are too small or overlap too little. `place` is (step,
    position in the step). Raises DataError if many in a row are unusable."""
    rng = context.rng("augmentation", *place)
    problem = (
        f"scans in a row have views of fewer than {recipe.least_voxels_per_view:,} voxels (least_voxels_per_view) or fewer than "
        f"{recipe.least_pairs} matching pairs (least_pairs); check voxel_metres ({recipe.voxel_metres:g})"
    )
    return first_usable(lambda i: scan_views(*source.read(i), recipe, rng), index, source.size, rng, problem)


def learn_from(
    network: MaskedNetwork, passes: list[Pass], recipe: MaskedSceneContrast, context: StageContext
) -> tuple[float, dict[str, float]]:
    """Accumulate the mean of the gradients of all passes; returns the mean loss and the health values."""
    terms: list[Terms] = []
    for part in passes:
        own = pass_terms(network, part, recipe, context)
        loss = recipe.contrast_weight * own.contrast + recipe.colour_weight * own.colour
        (loss / len(passes)).backward()
        terms.append(own._replace(contrast=own.contrast.detach(), colour=own.colour.detach()))
    contrast = float(np.mean([float(t.contrast) for t in terms]))
    colour = float(np.mean([float(t.colour) for t in terms]))
    health = embedding_health(torch.cat([t.queries for t in terms]), torch.cat([t.keys for t in terms]))
    health |= {
        "contrast_loss": contrast,
        "colour_loss": colour,
        "constant_colour_loss": float(np.mean([t.constant for t in terms])),
        "masked_one": _mean([p.one.masked for p in passes]),
        "masked_two": _mean([p.two.masked for p in passes]),
        "masked_pairs": _mean([p.one.masked[p.pairs[:, 0]] for p in passes]),
        "matched": float(np.mean([p.matched for p in passes])),
        "left_out_by_mixing": float(np.mean([p.left_out for p in passes])),
    }
    return recipe.contrast_weight * contrast + recipe.colour_weight * colour, health


def pass_terms(network: MaskedNetwork, part: Pass, recipe: MaskedSceneContrast, context: StageContext) -> Terms:
    """The losses of one pass. The views pass through the network separately, so batch norm sees one view at a time."""
    views = [ViewBatch(*(t.to(context.device) for t in view)) for view in (part.one, part.two)]
    with context.autocast():
        one, two = (network(view) for view in views)
    one, two, pairs = one.float(), two.float(), part.pairs.to(context.device)
    queries, keys = unit_rows(one[pairs[:, 0]]), unit_rows(two[pairs[:, 1]])
    features = torch.cat([one[views[0].masked], two[views[1].masked]])
    targets = recipe.colour_target_scale * torch.cat([view.colours[view.masked] for view in views])
    colour = colour_loss(network.colour(features), targets)
    constant = float(colour_loss(targets.mean(0, keepdim=True), targets))
    contrast = info_nce(queries, keys, recipe.temperature)
    return Terms(contrast, colour, queries.detach(), keys.detach(), constant)


def colour_loss(predicted: Tensor, targets: Tensor) -> Tensor:
    """Squared error of colours (N, 3), summed over channels and averaged over rows; 0 without rows."""
    return (predicted - targets).pow(2).sum() / max(1, len(targets))


def clip_gradients(parameters: Iterable[nn.Parameter], bound: float | None) -> tuple[float, float]:
    """Scale all gradients so that their joint norm is at most `bound`. Returns the norm before, and 1.0 if clipped, else 0.0.

    A non-finite norm is left unchanged: the training loop then aborts the run.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = float(torch.stack([g.norm() for g in gradients]).norm())
    if bound is None or not bound < norm < float("inf"):
        return norm, 0.0
    for gradient in gradients:
        gradient.mul_(bound / norm)
    return norm, 1.0


def voxels_of(passes: list[Pass]) -> int:
    """The number of voxels in both views of all passes."""
    return sum(len(view.coordinates) for part in passes for view in (part.one, part.two))


def _mean(flags: list[Tensor]) -> float:
    return float(torch.cat(flags).float().mean())
