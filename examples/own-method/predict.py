"""The one stage of the example: the 3D network sees geometry alone and predicts the colour of every voxel."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pretrain_bench.benchmarks.datasets.views import load_frame, upright_points
from pretrain_bench.benchmarks.input.transforms import nearest_rows
from pretrain_bench.benchmarks.input.voxelise import quantise, to_cells
from pretrain_bench.methods.context import StageContext
from pretrain_bench.methods.networks.res16unet import HEAD, seeded_backbone
from pretrain_bench.methods.sparse.backend import sparse_backend
from pretrain_bench.methods.sparse.tensor import batched_coordinates
from pretrain_bench.methods.training.checkpoint import save_backbone
from pretrain_bench.methods.training.frames import frames_of
from pretrain_bench.methods.training.loop import StepResult, Training, batch_indices, train_and_save
from pretrain_bench.methods.training.optim import polynomial, sgd

from .recipe import ColourRecipe

Sample = tuple[Tensor, Tensor]


def run(context: StageContext) -> dict[str, float | None]:
    """Train and write `artifacts/backbone.safetensors`; the layer that predicts colours stays behind."""
    recipe, spec = context.recipe(ColourRecipe), context.spec
    frames = frames_of(context)
    momentum, seed = spec.network.pretrain_bn_momentum, context.seed("weights")
    network = seeded_backbone(3, spec.network, momentum, spec.sparse_backend, seed).to(context.device).train()
    optimiser = sgd(network.parameters(), recipe.optimiser)
    length = context.run_length(recipe.steps, recipe.frames_per_step)
    schedule = polynomial(recipe.optimiser.learning_rate, 0.9, length.scheduled)
    engine = sparse_backend(spec.sparse_backend)

    def make_batch(number: int) -> list[Sample]:
        chosen = batch_indices(context, "order", number, recipe.frames_per_step, len(frames))
        return [
            sample(context, frames[i], recipe, context.rng("augmentation", number, position))
            for position, i in enumerate(chosen)
        ]

    def step(number: int, samples: list[Sample]) -> StepResult:
        coordinates = batched_coordinates([cells for cells, _ in samples]).to(context.device)
        colours = torch.cat([rgb for _, rgb in samples]).to(context.device)
        with context.autocast():
            predicted = network(engine.SparseTensor(torch.ones_like(colours), coordinates)).F
        loss = torch.nn.functional.mse_loss(predicted.float(), colours)
        loss.backward()
        seen = {"samples": len(samples), "frames": len(samples), "images": len(samples), "points": len(colours)}
        return StepResult(float(loss.detach()), seen, {"error": float(loss.detach().sqrt())})

    def save() -> None:
        save_backbone(network, context.artifacts, drop=HEAD)

    return train_and_save(
        context, Training({"network": network}, optimiser, schedule, length, make_batch, step, save=save)
    )


def sample(context: StageContext, frame: tuple[str, int], recipe: ColourRecipe, rng: np.random.Generator) -> Sample:
    """Voxels (V, 3) int32 of a frame turned about z, and their colours (V, 3) float32 in -0.5..0.5."""
    xyz, colours, _ = upright_points(load_frame(context.view, *frame))
    angle = rng.uniform(-np.pi, np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    voxels = quantise(to_cells((xyz - xyz.mean(axis=0)) @ turn.T, recipe.voxel_metres))
    kept = np.arange(len(voxels.coordinates))
    if recipe.max_voxels_per_frame is not None and len(kept) > recipe.max_voxels_per_frame:
        centre = voxels.coordinates[rng.integers(len(kept))]
        kept = nearest_rows(voxels.coordinates.astype(np.int64), centre, recipe.max_voxels_per_frame)
    rgb = colours[voxels.representative[kept]].astype(np.float32) / 255 - 0.5
    return torch.from_numpy(voxels.coordinates[kept]), torch.from_numpy(rgb)
