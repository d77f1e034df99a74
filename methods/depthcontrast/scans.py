"""DepthContrast's one stage: a scan is told from all others, as points and as voxels (spec D)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.datasets.views import list_frames, load_frame
from benchmarks.errors import DataError
from benchmarks.specs import DepthContrast
from benchmarks.voxelize import quantise, to_cells
from methods.context import StageContext
from methods.contrast import embedding_health, unit_rows
from methods.depthcontrast.augment import augmented, frame_scan
from methods.depthcontrast.moco import Queue, follow, joint_loss, queue_loss
from methods.networks.pointnet2 import PointNet2, votenet_levels
from methods.networks.res16unet import HEAD, Res16UNet34C, seeded_backbone
from methods.sparse.backend import sparse_backend
from methods.sparse.tensor import batched_coordinates
from methods.training.checkpoint import BACKBONE_FILE, save_weights
from methods.training.loop import StepResult, Training, batch_indices, train_and_save
from methods.training.optim import cosine, sgd

POINT_CHANNELS = 512
TRIES = 20


class VoxelView(NamedTuple):
    """coordinates (V, 3) int32; colours (V, 3) float32 in -0.5..0.5."""

    coordinates: Tensor
    colours: Tensor


class ScanViews(NamedTuple):
    """Copies of one scan, each augmented on its own: for the query and for the key encoder of either format.

    points (2, N, 3) float32, or None in the voxel format; voxels, two of them.
    """

    points: Tensor | None
    voxels: tuple[VoxelView, VoxelView]


class PointEncoder(nn.Module):
    """Points to one unit row for each scan."""

    def __init__(self, recipe: DepthContrast, width: float) -> None:
        super().__init__()
        channels = max(1, round(POINT_CHANNELS * width))
        levels = votenet_levels(recipe.abstraction_points, recipe.abstraction_neighbours, width)
        self.trunk = PointNet2(levels, channels)
        self.head = nn.Sequential(
            nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, recipe.embedding_channels)
        )

    def forward(self, points: Tensor) -> Tensor:
        """(B, N, 3) to (B, embedding)."""
        return self.head(self.trunk(points).amax(1))


class VoxelEncoder(nn.Module):
    """A sparse tensor to one row for each scan. The head has no activation between its layers (spec D.1)."""

    def __init__(self, backbone: Res16UNet34C, embedding_channels: int, engine: Any) -> None:
        super().__init__()
        channels = backbone.feature_channels
        self.backbone = backbone
        self.pool = engine.MinkowskiGlobalMaxPooling()
        self.head = nn.Sequential(nn.Linear(channels, channels), nn.Linear(channels, embedding_channels))

    def forward(self, x: Any) -> Tensor:
        """One row for each scan of the batch, in order."""
        return self.head(self.pool(self.backbone.features(x)).F)


def run(context: StageContext) -> dict[str, float | None]:
    """Train and write `artifacts/backbone.safetensors`, the voxel query encoder without its head."""
    return train_and_save(context, prepare(context))


def prepare(context: StageContext) -> Training:
    """The encoders with their queues, and the steps that train them."""
    recipe, spec = context.spec.recipe, context.spec
    assert isinstance(recipe, DepthContrast) and spec.data is not None
    frames = list_frames(context.view, spec.data.scenes)
    if not frames:
        raise DataError(f"dataset {spec.data.dataset!r} has no frames in the scenes to pre-train on")
    joint, engine = recipe.format == "joint", sparse_backend(spec.sparse_backend)
    keys = queue_keys(recipe, len(frames))
    if keys < recipe.queue_keys:
        context.warn(
            f"the queues hold {keys:,} keys, not {recipe.queue_keys:,}: at most half of the {len(frames):,} frames"
        )
    modules: dict[str, nn.Module] = {}
    for name in ("query", "key"):  # the same seed, so the same initial weights
        modules[f"voxel_{name}"] = build_voxel_encoder(context, recipe)
        if joint:
            torch.manual_seed(context.seed("point_weights"))
            modules[f"point_{name}"] = PointEncoder(recipe, spec.network.width)
    for name in ("voxel", "point") if joint else ("voxel",):
        modules[f"{name}_queue"] = Queue(keys, recipe.embedding_channels, context.seed(f"{name}_queue"))
    for module in modules.values():
        module.to(context.device).train()
    slow = [(modules["voxel_key"], modules["voxel_query"])]
    if joint:
        slow.append((modules["point_key"], modules["point_query"]))
    for key, _ in slow:
        key.requires_grad_(False)
    learning = [p for name, m in modules.items() if name.endswith("_query") for p in m.parameters()]
    optimiser = sgd(learning, recipe.optimiser)
    wanted = recipe.steps or -(-recipe.epochs * len(frames) // recipe.scans_per_step)
    steps = context.allowed_steps(wanted, recipe.scans_per_step)
    rate = recipe.optimiser.learning_rate
    schedule = cosine(rate, recipe.final_learning_rate, recipe.epochs, wanted, steps, spec.limits)

    def make_batch(number: int) -> list[ScanViews]:
        chosen = batch_indices(context, "order", number, recipe.scans_per_step, len(frames))
        return [draw_views(context, recipe, frames, i, number, p) for p, i in enumerate(chosen)]

    def embed(views: list[ScanViews], which: int, name: str) -> tuple[Tensor, Tensor | None]:
        """Unit rows of the voxel and of the point encoder `name`."""
        voxels = [v.voxels[which] for v in views]
        coordinates = batched_coordinates([v.coordinates for v in voxels]).to(context.device)
        colours = torch.cat([v.colours for v in voxels]).to(context.device)
        with context.autocast():
            voxel = modules[f"voxel_{name}"](engine.SparseTensor(colours, coordinates))
            point = None
            if joint:
                clouds = torch.stack([v.points[which] for v in views if v.points is not None]).to(context.device)
                point = modules[f"point_{name}"](clouds)
        return unit_rows(voxel.float()), None if point is None else unit_rows(point.float())

    def step(number: int, batch: list[ScanViews]) -> StepResult:
        for key, query in slow:
            follow(key, query, recipe.key_momentum)
        voxel_queue, point_queue = modules["voxel_queue"], modules.get("point_queue")
        assert isinstance(voxel_queue, Queue)
        total, found, terms = 0.0, [], []
        parts = [batch[i : i + recipe.scans_per_pass] for i in range(0, len(batch), recipe.scans_per_pass)]
        for part in parts:
            queries, point_queries = embed(part, 0, "query")
            with torch.no_grad():
                keys_, point_keys = embed(part, 1, "key")
            if isinstance(point_queue, Queue) and point_queries is not None and point_keys is not None:
                points, voxels = (point_queries, point_keys, point_queue.rows), (queries, keys_, voxel_queue.rows)
                loss, each = joint_loss(points, voxels, recipe.temperature)
                terms.append([float(term.detach()) for term in each])
            else:
                loss = queue_loss(queries, keys_, voxel_queue.rows, recipe.temperature)
            share = len(part) / len(batch)
            (loss * share).backward()
            total += float(loss.detach()) * share
            found.append((queries.detach(), keys_, point_queries, point_keys))
        embedded, positives = torch.cat([f[0] for f in found]), torch.cat([f[1] for f in found])
        health = {**embedding_health(embedded, positives), **ranked_in_queue(embedded, positives, voxel_queue.rows)}
        # Keys enter the queues after the loss.
        voxel_queue.push(positives)
        if isinstance(point_queue, Queue):
            asked = torch.cat([f[2].detach() for f in found if f[2] is not None])
            point_keys_ = torch.cat([f[3] for f in found if f[3] is not None])
            own = {**embedding_health(asked, point_keys_), **ranked_in_queue(asked, point_keys_, point_queue.rows)}
            health |= {f"point_{name}": value for name, value in own.items()}
            names = ("point_point", "voxel_voxel", "point_voxel", "voxel_point")
            health |= {f"loss_{name}": float(v) for name, v in zip(names, np.mean(terms, axis=0), strict=True)}
            point_queue.push(point_keys_)
        voxels_seen = sum(len(v.coordinates) for views in batch for v in views.voxels)
        seen = {"samples": len(batch), "frames": len(batch), "images": len(batch), "points": voxels_seen}
        return StepResult(total, seen, {**health, "voxels": float(voxels_seen)})

    def save() -> None:
        backbone = modules["voxel_query"].backbone
        assert isinstance(backbone, Res16UNet34C)
        state = {k: v for k, v in backbone.state_dict().items() if not k.startswith(HEAD)}
        save_weights(state, context.artifacts / BACKBONE_FILE)

    return Training(modules, optimiser, schedule, steps, make_batch, step, save=save)


def build_voxel_encoder(context: StageContext, recipe: DepthContrast) -> VoxelEncoder:
    """The sparse network with its head, seeded initial weights."""
    spec = context.spec
    momentum = spec.network.pretrain_bn_momentum
    backbone = seeded_backbone(1, spec.network, momentum, spec.sparse_backend, context.seed("weights"))
    torch.manual_seed(context.seed("head"))
    return VoxelEncoder(backbone, recipe.embedding_channels, sparse_backend(spec.sparse_backend))


def queue_keys(recipe: DepthContrast, frames: int) -> int:
    """Keys that a queue holds: at most half of the frames, or a queue would hold the scan that is asked for (J-15); a multiple
    of the batch, at least one batch."""
    return max(1, min(recipe.queue_keys, frames // 2) // recipe.scans_per_step) * recipe.scans_per_step


@torch.no_grad()
def ranked_in_queue(queries: Tensor, keys: Tensor, queue: Tensor) -> dict[str, float]:
    """Share of queries that are nearer to their key than to every key of the queue, and how many keys that are."""
    positive = (queries * keys).sum(1)
    return {
        "top1": float((positive > (queries @ queue.t()).amax(1)).float().mean()),
        "candidates": float(len(queue) + 1),
    }


def draw_views(
    context: StageContext, recipe: DepthContrast, frames: list[tuple[str, int]], index: int, step: int, position: int
) -> ScanViews:
    """The copies of one frame, or of the next drawn one where it has no depth."""
    rng = context.rng("augmentation", step, position)
    for _ in range(TRIES):
        scene, number = frames[index]
        scan = frame_scan(load_frame(context.view, scene, number), recipe.scan_points, rng)
        if scan is not None:
            break
        index = int(rng.integers(len(frames)))
    else:
        raise DataError(f"{TRIES} frames in a row have no depth at all")
    points = None
    if recipe.format == "joint":
        copies = [augmented(scan, recipe, rng)[:, :3].astype(np.float32) for _ in range(2)]
        points = torch.from_numpy(np.stack(copies))
    one, two = (voxel_view(augmented(scan, recipe, rng), recipe, rng) for _ in range(2))
    return ScanViews(points, (one, two))


def voxel_view(scan: np.ndarray, recipe: DepthContrast, rng: np.random.Generator) -> VoxelView:
    """Voxels of one copy, moved by a random whole number of voxels."""
    voxels = quantise(to_cells(scan[:, :3], recipe.voxel_metres))
    coordinates = voxels.coordinates + rng.integers(0, recipe.offset_voxels + 1, 3)
    colours = scan[voxels.representative, 3:] / 255 - 0.5
    return VoxelView(torch.from_numpy(coordinates.astype(np.int32)), torch.from_numpy(colours.astype(np.float32)))
