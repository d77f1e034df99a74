"""Optimiser steps on labelled clouds: of fine-tuning, and of the supervised pre-training (spec C.3 to C.5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from benchmarks.datasets.views import load_cloud
from benchmarks.specs import SemanticRecipe
from benchmarks.transforms import VoxelSample, training_sample
from benchmarks.voxelize import IGNORE
from methods.context import StageContext
from methods.networks.res16unet import Res16UNet34C
from methods.sparse.backend import sparse_backend
from methods.sparse.tensor import batched_coordinates
from methods.training.loop import StepResult, Training, batch_indices
from methods.training.optim import polynomial, sgd

MicroBatch = tuple[Tensor, Tensor, Tensor]
LabelsOf = Callable[[str], NDArray[np.uint8]]
"""The labels of a scene that may be used, (N,) training ids."""


def labelled_training(
    context: StageContext,
    network: Res16UNet34C,
    recipe: SemanticRecipe,
    scenes: tuple[str, ...],
    labels_of: LabelsOf,
) -> Training:
    """Steps over `scenes`, in micro-batches that add up to the recipe's batch, under the poly schedule.

    Scenes are read anew for every sample: tens of thousands of scans fit neither into memory nor into the mappings that a
    process may have.
    """
    spec = context.spec
    _warn_of_missing_classes(context, map(labels_of, scenes))
    optimiser = sgd(network.parameters(), recipe.optimiser)
    steps = context.allowed_steps(recipe.steps, recipe.batch)
    rate = recipe.optimiser.learning_rate
    schedule = polynomial(rate, recipe.poly_power, recipe.steps, steps, spec.limits)
    engine = sparse_backend(spec.sparse_backend)
    few_labels = spec.label_ratio is not None and spec.label_ratio.points is not None

    def make_batch(number: int) -> list[MicroBatch]:
        chosen = [scenes[i] for i in batch_indices(context, "order", number, recipe.batch, len(scenes))]
        samples = [
            training_sample(
                load_cloud(context.view, s), labels_of(s), recipe, context.rng("augmentation", number, i), few_labels
            )
            for i, s in enumerate(chosen)
        ]
        return [collate(samples[i : i + recipe.micro_batch]) for i in range(0, len(samples), recipe.micro_batch)]

    def step(number: int, batch: list[MicroBatch]) -> StepResult:
        network.train()
        losses, right, counted = [], 0, 0
        for part in batch:
            coordinates, colours, labels = (t.to(context.device, non_blocking=True) for t in part)
            with context.autocast():
                logits = network(engine.SparseTensor(colours, coordinates)).F.float()
            loss = voxel_loss(logits, labels) / len(batch)
            loss.backward()
            losses.append(float(loss.detach()))
            valid = labels != IGNORE
            right += int((logits.detach().argmax(1) == labels)[valid].sum())
            counted += int(valid.sum())
        voxels = sum(len(part[0]) for part in batch)
        seen = {"samples": recipe.batch, "scenes": recipe.batch, "points": voxels, "labels": counted}
        health = {"accuracy": right / max(1, counted), "voxels": float(voxels)}
        return StepResult(sum(losses), seen, health)

    return Training({"network": network}, optimiser, schedule, steps, make_batch, step)


def _warn_of_missing_classes(context: StageContext, labels: Iterable[NDArray[np.uint8]]) -> None:
    data = context.spec.data
    assert data is not None
    seen = np.zeros(256, np.int64)
    for one in labels:
        seen += np.bincount(one, minlength=256)
    missing = [name for number, name in enumerate(data.classes) if not seen[number]]
    if missing:
        context.warn(f"no training label of {', '.join(missing)} at this label ratio; they cannot be learnt")


def collate(samples: list[VoxelSample]) -> MicroBatch:
    """Coordinates (N, 4), colours (N, 3) in -0.5..0.5 and labels (N,) of several scenes."""
    coordinates = batched_coordinates([torch.from_numpy(s.coordinates) for s in samples])
    colours = torch.from_numpy(np.concatenate([s.rgb for s in samples]) / np.float32(255) - np.float32(0.5))
    labels = torch.from_numpy(np.concatenate([s.labels for s in samples]).astype(np.int64))
    return coordinates, colours, labels


def voxel_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over labelled voxels; zero (with a gradient of zero) where none is labelled."""
    if not bool((labels != IGNORE).any()):
        return logits.sum() * 0.0
    return functional.cross_entropy(logits, labels, ignore_index=IGNORE)
