"""The only stage of DepthContrast: each scan is distinguished from all others, as points and as voxels (spec D)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pretrain_bench.benchmarks.datasets.views import load_frame, up_rules
from pretrain_bench.benchmarks.input.voxelise import quantise, to_cells
from pretrain_bench.methods.context import StageContext
from pretrain_bench.methods.depthcontrast.augment import augmented, frame_scan
from pretrain_bench.methods.depthcontrast.moco import Queue, follow, joint_loss, queue_loss
from pretrain_bench.methods.depthcontrast.recipe import DepthContrast
from pretrain_bench.methods.networks.pointnet2 import PointNet2, votenet_levels
from pretrain_bench.methods.networks.res16unet import HEAD, Res16UNet34C, seeded_backbone
from pretrain_bench.methods.sparse.backend import sparse_backend
from pretrain_bench.methods.sparse.tensor import batched_coordinates
from pretrain_bench.methods.training.checkpoint import save_backbone
from pretrain_bench.methods.training.contrast import embedding_health, unit_rows
from pretrain_bench.methods.training.frames import frames_of
from pretrain_bench.methods.training.loop import StepResult, Training, batch_indices, first_usable, train_and_save
from pretrain_bench.methods.training.optim import cosine, sgd

POINT_CHANNELS = 512
TERMS = ("loss_point_point", "loss_voxel_voxel", "loss_point_voxel", "loss_voxel_point")


class VoxelView(NamedTuple):
    """coordinates (V, 3) int32; colours (V, 3) float32 in -0.5..0.5."""

    coordinates: Tensor
    colours: Tensor


class ScanViews(NamedTuple):
    """Independently augmented copies of one scan: per format one for the query and one for the key encoder.

    points (2, N, 3) float32 metres in the camera frame, or None with `format: voxel`; voxels: two views.
    """

    points: Tensor | None
    voxels: tuple[VoxelView, VoxelView]


class PointEncoder(nn.Module):
    """PointNet++, max pooling and an MLP: one row for each scan."""

    def __init__(self, recipe: DepthContrast, width: float, radius_factor: float) -> None:
        super().__init__()
        channels = max(1, round(POINT_CHANNELS * width))
        levels = votenet_levels(recipe.abstraction_points, recipe.abstraction_neighbours, width, radius_factor)
        self.trunk = PointNet2(levels, channels)
        self.head = nn.Sequential(
            nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, recipe.embedding_channels)
        )

    def forward(self, points: Tensor) -> Tensor:
        """(B, N, 3) points in metres to (B, embedding), not normalised."""
        return self.head(self.trunk(points).amax(1))


class VoxelEncoder(nn.Module):
    """The backbone, max pooling and two linear layers without an activation between them (spec D.1): one row for each scan."""

    def __init__(self, backbone: Res16UNet34C, embedding_channels: int, engine: Any) -> None:
        super().__init__()
        channels = backbone.feature_channels
        self.backbone = backbone
        self.pool = engine.MinkowskiGlobalMaxPooling()
        self.head = nn.Sequential(nn.Linear(channels, channels), nn.Linear(channels, embedding_channels))

    def forward(self, x: Any) -> Tensor:
        """(B, embedding), not normalised: one row for each scan of the batch, by batch index."""
        pooled = self.pool(self.backbone.features(x))
        return self.head(pooled.F[pooled.C[:, 0].argsort()])  # MinkowskiEngine pools scans in the order of its hash map


def run(context: StageContext) -> dict[str, float | None]:
    """Train and write `artifacts/backbone.safetensors`, the voxel query encoder without its head."""
    return train_and_save(context, prepare(context))


def prepare(context: StageContext) -> Training:
    """Build the encoders, their queues and their training. Raises DataError if no scene has a frame."""
    recipe, spec = context.recipe(DepthContrast), context.spec
    assert spec.data is not None
    frames = frames_of(context)
    context.notes["axes"] = "camera frame (x right, y down, z forward), as upstream; poses and z-up rules are not used"
    encoders = Encoders(context, recipe, frames)
    optimiser = sgd(encoders.learning_parameters(), recipe.optimiser)
    wanted = recipe.steps or -(-recipe.epochs * len(frames) // recipe.scans_per_step)
    length = context.run_length(wanted, recipe.scans_per_step)
    rate = recipe.optimiser.learning_rate
    schedule = cosine(rate, recipe.final_learning_rate, recipe.epochs, length.scheduled)

    def make_batch(number: int) -> list[ScanViews]:
        chosen = batch_indices(context, "order", number, recipe.scans_per_step, len(frames))
        return [draw_views(context, recipe, frames, i, number, p) for p, i in enumerate(chosen)]

    def step(number: int, batch: list[ScanViews]) -> StepResult:
        return contrast_step(encoders, batch)

    def save() -> None:
        backbone = encoders.modules["voxel_query"].backbone
        assert isinstance(backbone, Res16UNet34C)
        save_backbone(backbone, context.artifacts, drop=HEAD)

    return Training(encoders.modules, optimiser, schedule, length, make_batch, step, save=save)


class Encoders:
    """For each format the query encoder, the key encoder and the queue of keys, on the stage's device."""

    def __init__(self, context: StageContext, recipe: DepthContrast, frames: list[tuple[str, int]]) -> None:
        self.context, self.recipe = context, recipe
        radius_factor = recipe.laser_radius_factor if "laser" in up_rules(context.view, frames) else 1.0
        self.joint = recipe.format == "joint"
        self.formats = ("voxel", "point") if self.joint else ("voxel",)
        self.engine = sparse_backend(context.spec.sparse_backend)
        keys = queue_keys(recipe, len(frames))
        if keys < recipe.queue_keys:
            context.warn(
                f"the queues hold {keys:,} keys instead of {recipe.queue_keys:,}: at most half of the {len(frames):,} frames"
            )
        self.modules: dict[str, nn.Module] = {}
        for name in ("query", "key"):  # one seed, so equal initial weights
            self.modules[f"voxel_{name}"] = build_voxel_encoder(context, recipe)
            if self.joint:
                torch.manual_seed(context.seed("point_weights"))
                self.modules[f"point_{name}"] = PointEncoder(recipe, context.spec.network.width, radius_factor)
        self.queues = {f: Queue(keys, recipe.embedding_channels, context.seed(f"{f}_queue")) for f in self.formats}
        self.modules |= {f"{kind}_queue": queue for kind, queue in self.queues.items()}
        for name, module in self.modules.items():
            module.to(context.device).train()
            if name.endswith("_key"):
                module.requires_grad_(False)

    def learning_parameters(self) -> list[nn.Parameter]:
        """The parameters of the query encoders; the key encoders follow by momentum."""
        return [p for name, m in self.modules.items() if name.endswith("_query") for p in m.parameters()]

    def embed(self, views: list[ScanViews], which: int, name: str) -> dict[str, Tensor]:
        """Unit rows (B, embedding) float32 by format: the encoder `name` (query or key) applied to copy `which` of each scan."""
        device = self.context.device
        voxels = [v.voxels[which] for v in views]
        coordinates = batched_coordinates([v.coordinates for v in voxels]).to(device)
        colours = torch.cat([v.colours for v in voxels]).to(device)
        with self.context.autocast():
            rows = {"voxel": self.modules[f"voxel_{name}"](self.engine.SparseTensor(colours, coordinates))}
            if self.joint:
                clouds = torch.stack([v.points[which] for v in views if v.points is not None]).to(device)
                rows["point"] = self.modules[f"point_{name}"](clouds)
        return {kind: unit_rows(embedded.float()) for kind, embedded in rows.items()}


def contrast_step(encoders: Encoders, batch: list[ScanViews]) -> StepResult:
    """One step over a batch, in passes of `scans_per_pass` whose gradients accumulate; keys enter the queues after the loss."""
    recipe, formats = encoders.recipe, encoders.formats
    for kind in formats:
        follow(encoders.modules[f"{kind}_key"], encoders.modules[f"{kind}_query"], recipe.key_momentum)
    total, terms = 0.0, []
    queries: dict[str, list[Tensor]] = {kind: [] for kind in formats}
    positives: dict[str, list[Tensor]] = {kind: [] for kind in formats}
    for start in range(0, len(batch), recipe.scans_per_pass):
        part = batch[start : start + recipe.scans_per_pass]
        own = encoders.embed(part, 0, "query")
        with torch.no_grad():
            keys = encoders.embed(part, 1, "key")
        sides = {kind: (own[kind], keys[kind], encoders.queues[kind].rows) for kind in formats}
        if encoders.joint:
            loss, each = joint_loss(sides["point"], sides["voxel"], recipe.temperature)
            terms.append([float(term.detach()) for term in each])
        else:
            loss = queue_loss(*sides["voxel"], recipe.temperature)
        share = len(part) / len(batch)
        (loss * share).backward()
        total += float(loss.detach()) * share
        for kind in formats:
            queries[kind].append(own[kind].detach())
            positives[kind].append(keys[kind])
    health = dict(zip(TERMS, map(float, np.mean(terms, axis=0)), strict=True)) if encoders.joint else {}
    for kind in formats:
        one, two = torch.cat(queries[kind]), torch.cat(positives[kind])
        measured = {**embedding_health(one, two), **ranked_in_queue(one, two, encoders.queues[kind].rows)}
        health |= {name if kind == "voxel" else f"{kind}_{name}": value for name, value in measured.items()}
        encoders.queues[kind].push(two)
    voxels_seen = sum(len(v.coordinates) for views in batch for v in views.voxels)
    seen = {"samples": len(batch), "frames": len(batch), "images": len(batch), "points": voxels_seen}
    return StepResult(total, seen, {**health, "voxels": float(voxels_seen)})


def build_voxel_encoder(context: StageContext, recipe: DepthContrast) -> VoxelEncoder:
    """The voxel encoder with seeded initial weights."""
    spec = context.spec
    momentum = spec.network.pretrain_bn_momentum
    backbone = seeded_backbone(1, spec.network, momentum, spec.sparse_backend, context.seed("weights"))
    torch.manual_seed(context.seed("head"))
    return VoxelEncoder(backbone, recipe.embedding_channels, sparse_backend(spec.sparse_backend))


def queue_keys(recipe: DepthContrast, frames: int) -> int:
    """The number of keys in a queue: at most half of the frames, so that it rarely holds an older key of the query's own scan
    (J-15); a multiple of the batch, at least one batch."""
    return max(1, min(recipe.queue_keys, frames // 2) // recipe.scans_per_step) * recipe.scans_per_step


@torch.no_grad()
def ranked_in_queue(queries: Tensor, keys: Tensor, queue: Tensor) -> dict[str, float]:
    """`top1`, the share of queries whose key ranks above all keys of the queue, and `candidates`, the number of keys ranked.

    queries, keys (B, C) and queue (K, C) are unit rows.
    """
    positive = (queries * keys).sum(1)
    return {
        "top1": float((positive > (queries @ queue.t()).amax(1)).float().mean()),
        "candidates": float(len(queue) + 1),
    }


def draw_views(
    context: StageContext, recipe: DepthContrast, frames: list[tuple[str, int]], index: int, step: int, position: int
) -> ScanViews:
    """The copies of one frame, or of another drawn at random if it has no depth. Raises DataError if many in a row have none."""
    rng = context.rng("augmentation", step, position)
    scan = first_usable(
        lambda i: frame_scan(load_frame(context.view, *frames[i]), recipe.scan_points, rng),
        index, len(frames), rng, "frames in a row have no points; check the depth images",
    )  # fmt: skip
    points = None
    if recipe.format == "joint":
        copies = [augmented(scan, recipe, rng)[:, :3].astype(np.float32) for _ in range(2)]
        points = torch.from_numpy(np.stack(copies))
    one, two = (voxel_view(augmented(scan, recipe, rng), recipe, rng) for _ in range(2))
    return ScanViews(points, (one, two))


def voxel_view(scan: np.ndarray, recipe: DepthContrast, rng: np.random.Generator) -> VoxelView:
    """The voxels of one copy, shifted by 0 to `offset_voxels` voxels along each axis."""
    voxels = quantise(to_cells(scan[:, :3], recipe.voxel_metres))
    coordinates = voxels.coordinates + rng.integers(0, recipe.offset_voxels + 1, 3)
    colours = scan[voxels.representative, 3:] / 255 - 0.5
    return VoxelView(torch.from_numpy(coordinates.astype(np.int32)), torch.from_numpy(colours.astype(np.float32)))
