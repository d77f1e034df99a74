"""Stage 2 of `ours`: the 3D network learns to reproduce the pixel features of the frozen 2D network (spec E.5)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn

from pretrain_bench.benchmarks.datasets.views import Frame, load_frame, up_rules, up_rules_text, upright_points
from pretrain_bench.benchmarks.input import transforms
from pretrain_bench.benchmarks.input.voxelise import quantise, to_cells
from pretrain_bench.methods.context import StageContext
from pretrain_bench.methods.networks.res16unet import seeded_backbone
from pretrain_bench.methods.networks.resunet2d import PixelFeatureNet, network_input
from pretrain_bench.methods.ours.augment import to_tensor
from pretrain_bench.methods.ours.images import ARTIFACT as IMAGE_NETWORK
from pretrain_bench.methods.ours.images import SETTINGS as IMAGE_SETTINGS
from pretrain_bench.methods.ours.pixel_features import pixel_features as pixel_features  # for `bench features`
from pretrain_bench.methods.ours.projection import CentreCrop, centre_crop, crop_image, inside_crop, lookup
from pretrain_bench.methods.ours.recipe import OursImages, OursPoints
from pretrain_bench.methods.sparse.backend import sparse_backend
from pretrain_bench.methods.sparse.tensor import batched_coordinates
from pretrain_bench.methods.training.checkpoint import load_into, load_weights, save_backbone
from pretrain_bench.methods.training.contrast import embedding_health, info_nce, info_nce_among_queries, unit_rows
from pretrain_bench.methods.training.frames import frames_of
from pretrain_bench.methods.training.loop import StepResult, Training, batch_indices, first_usable, train_and_save
from pretrain_bench.methods.training.optim import exponential, sgd

MLP_WIDTH = 32


class FrameSample(NamedTuple):
    """One frame as input of both networks, with P point-pixel pairs.

    coordinates (V, 3) int32 voxels; colours (V, 3) float32 in -0.5..0.5; rows (P,) int64, the voxel of each pair; uv (P, 2)
    int64, the source pixel of each pair; image (3, S, S) float32 in [0, 1].
    """

    coordinates: Tensor
    colours: Tensor
    rows: Tensor
    uv: Tensor
    image: Tensor
    crop: CentreCrop


def run(context: StageContext) -> dict[str, float | None]:
    """Train the 3D network and write it to `artifacts/backbone.safetensors`."""
    return train_and_save(context, prepare(context))


def prepare(context: StageContext) -> Training:
    """Build the student, the frozen network of stage 1 and the training. Raises DataError if no scene has a frame, or the weights
    of stage 1 do not load."""
    recipe, spec = context.recipe(OursPoints), context.spec
    assert spec.data is not None
    frames = frames_of(context)
    context.notes["z_up"] = up_rules_text(up_rules(context.view, frames))
    teacher = load_teacher(context, recipe)
    channels = next(p for p in teacher.decoder[-1].conv2.parameters()).shape[0]  # type: ignore[union-attr]
    student = build_student(context, recipe, channels).to(context.device)
    optimiser = sgd(student.parameters(), recipe.optimiser)
    length = context.run_length(recipe.steps, recipe.frames_per_step)
    schedule = exponential(recipe.optimiser.learning_rate, recipe.decay, recipe.steps, length.scheduled)
    engine = sparse_backend(spec.sparse_backend)
    student.train()

    def make_batch(number: int) -> list[FrameSample]:
        chosen = list(batch_indices(context, "order", number, recipe.frames_per_step, len(frames)))
        return [draw_sample(context, recipe, frames, i, number, p) for p, i in enumerate(chosen)]

    def step(number: int, samples: list[FrameSample]) -> StepResult:
        with context.autocast():
            targets = teacher_features(teacher, samples, recipe, context.device)
        coordinates = batched_coordinates([s.coordinates for s in samples]).to(context.device)
        colours = torch.cat([s.colours for s in samples]).to(context.device)
        with context.autocast():
            output = student(engine.SparseTensor(colours, coordinates)).float()
        starts = np.cumsum([0, *(len(s.coordinates) for s in samples)])
        rows = torch.cat([s.rows + int(start) for s, start in zip(samples, starts, strict=False)]).to(context.device)
        queries, keys = unit_rows(output[rows]), unit_rows(targets)
        loss = point_loss(queries, keys, recipe)
        loss.backward()
        health = embedding_health(queries.detach(), keys)
        health["duplicate_rows"] = 1 - len(torch.unique(rows)) / len(rows)
        health["voxels"] = float(len(coordinates))
        seen = {"samples": len(samples), "frames": len(samples), "images": len(samples), "points": len(coordinates)}
        return StepResult(float(loss.detach()), seen, health)

    def save() -> None:
        save_backbone(student.backbone, context.artifacts)

    return Training({"student": student}, optimiser, schedule, length, make_batch, step, save=save)


def point_loss(queries: Tensor, keys: Tensor, recipe: OursPoints) -> Tensor:
    """InfoNCE of unit point features (P, C) with the unit pixel features (P, C) of their pairs, frame after frame; a scalar. The
    recipe's `negatives` are those of J-10."""
    if recipe.negatives == "batch":
        return info_nce(queries, keys, recipe.temperature)
    if recipe.negatives == "batch_points":
        return info_nce_among_queries(queries, keys, recipe.temperature)
    parts = zip(queries.split(recipe.pairs_per_frame), keys.split(recipe.pairs_per_frame), strict=True)
    return torch.stack([info_nce(q, k, recipe.temperature) for q, k in parts]).mean()


class Student(nn.Module):
    """The backbone, and with `head: final32_mlp` (J-8) an MLP after it, which is discarded after pre-training."""

    def __init__(self, backbone: nn.Module, channels: int, with_mlp: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.mlp: nn.Module | None = None
        if with_mlp:
            self.mlp = nn.Sequential(
                nn.Linear(MLP_WIDTH, MLP_WIDTH), nn.BatchNorm1d(MLP_WIDTH), nn.ReLU(), nn.Linear(MLP_WIDTH, channels)
            )

    def forward(self, x: object) -> Tensor:
        """(voxels, channels) features, in the order of the sparse tensor."""
        out = self.backbone(x).F
        return out if self.mlp is None else self.mlp(out)


def build_student(context: StageContext, recipe: OursPoints, channels: int) -> Student:
    """The 3D network, with `channels` output channels and seeded initial weights."""
    spec = context.spec
    with_mlp = recipe.head == "final32_mlp"
    seed = context.seed("weights")
    momentum = spec.network.pretrain_bn_momentum
    outputs = MLP_WIDTH if with_mlp else channels
    backbone = seeded_backbone(outputs, spec.network, momentum, spec.sparse_backend, seed)
    torch.manual_seed(context.seed("head"))
    return Student(backbone, channels, with_mlp)


def load_teacher(context: StageContext, recipe: OursPoints) -> PixelFeatureNet:
    """The frozen 2D network of stage 1, built from the settings stored with its weights."""
    weights = load_weights(context.parent("images") / IMAGE_NETWORK)
    settings = OursImages.model_validate_json((context.parent("images") / IMAGE_SETTINGS).read_bytes())
    teacher = PixelFeatureNet(settings)
    load_into(teacher, weights, (), "image network of stage 1")
    teacher.requires_grad_(False)
    return teacher.to(context.device).train(recipe.frozen_norm == "train")


@torch.no_grad()
def teacher_features(
    teacher: PixelFeatureNet, samples: list[FrameSample], recipe: OursPoints, device: torch.device
) -> Tensor:
    """(sum P, C) float32 target features of all pairs of a step, not normalised."""
    images = torch.stack([s.image for s in samples]).to(device)
    maps = teacher(network_input(images, recipe.normalise, recipe.channel_order)).float()
    return torch.cat([lookup(maps[i], s.uv.to(device), s.crop, recipe.lookup) for i, s in enumerate(samples)])


def draw_sample(
    context: StageContext, recipe: OursPoints, frames: list[tuple[str, int]], index: int, step: int, position: int
) -> FrameSample:
    """The sample of one frame, or of another drawn at random if it has too few pairs (spec 0.2, item 6). Raises DataError if many
    in a row have too few."""
    rng = context.rng("augmentation", step, position)
    problem = f"frames in a row have fewer than {recipe.pairs_per_frame} points inside the image crop"
    return first_usable(
        lambda i: frame_sample(load_frame(context.view, *frames[i]), recipe, rng), index, len(frames), rng, problem
    )


def frame_sample(frame: Frame, recipe: OursPoints, rng: Generator) -> FrameSample | None:
    """Augment and voxelise one frame and draw its point-pixel pairs; None if there are too few."""
    height, width = frame.colour.shape[:2]
    crop = centre_crop(width, height, recipe.resize_side, recipe.image_side)
    points = upright_points(frame)
    if len(points.xyz) < recipe.pairs_per_frame:
        return None
    xyz = points.xyz * rng.uniform(*recipe.scale)
    xyz = transforms.flip_horizontal(xyz - xyz.mean(axis=0), 0.95, rng)
    rgb = transforms.auto_contrast(points.rgb, recipe.contrast_probability, rng)
    rgb = transforms.translate_colour(rgb, recipe.translation_ratio, rng)
    rgb = transforms.jitter_colour(rgb, recipe.jitter_std, rng)
    xyz = xyz @ transforms.random_rotation(recipe.rotation_degrees, rng).T
    voxels = quantise(to_cells(xyz - xyz.mean(axis=0), recipe.voxel_metres))
    usable = inside_crop(points.uv, crop)
    kept = np.arange(len(voxels.coordinates))
    if recipe.max_voxels_per_frame is not None:
        kept = crop_around_pairs(voxels.coordinates, voxels.inverse[usable], recipe.max_voxels_per_frame, rng)
    row_of_voxel = np.full(len(voxels.coordinates), -1)
    row_of_voxel[kept] = np.arange(len(kept))
    candidates = np.flatnonzero(usable & (row_of_voxel[voxels.inverse] >= 0))
    if len(candidates) < recipe.pairs_per_frame:
        return None
    chosen = rng.permutation(candidates)[: recipe.pairs_per_frame]
    return FrameSample(
        coordinates=torch.from_numpy(voxels.coordinates[kept]),
        colours=torch.from_numpy((rgb[voxels.representative[kept]] / 255 - 0.5).astype(np.float32)),
        rows=torch.from_numpy(row_of_voxel[voxels.inverse[chosen]]),
        uv=torch.from_numpy(points.uv[chosen]),
        image=crop_image(to_tensor(frame.colour), crop, recipe.antialias),
        crop=crop,
    )


def crop_around_pairs(coordinates: np.ndarray, usable_rows: np.ndarray, limit: int, rng: Generator) -> np.ndarray:
    """Sorted rows of the `limit` voxels nearest to a random one of `usable_rows`; all rows if they fit or none is usable."""
    if len(coordinates) <= limit or not len(usable_rows):
        return np.arange(len(coordinates))
    centre = usable_rows[rng.integers(len(usable_rows))]
    return transforms.nearest_rows(coordinates.astype(np.int64), coordinates[centre], limit)
