"""PointContrast's one stage: geometry alone, turned by any rotation (spec B.2 to B.5)."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from pretrain_bench.methods.context import StageContext
from pretrain_bench.methods.pointcontrast.hardest import hardest_contrastive
from pretrain_bench.methods.pointcontrast.recipe import PointContrast
from pretrain_bench.methods.training.contrast import info_nce
from pretrain_bench.methods.training.frame_pairs import (
    Batch,
    Embeddings,
    one_match_each,
    prepare_pairs,
    rows_of,
    subset,
)
from pretrain_bench.methods.training.loop import Training, train_and_save

INPUT = "geometry"
"""The network sees ones in place of colours, also when `bench features` draws its output."""


def run(context: StageContext) -> dict[str, float | None]:
    """Train and write `artifacts/backbone.safetensors`."""
    return train_and_save(context, prepare(context))


def prepare(context: StageContext) -> Training:
    """The backbone, and the steps that train it."""
    recipe = context.recipe(PointContrast)
    return prepare_pairs(context, recipe, any_rotation, False, partial(pair_loss, recipe))


def pair_loss(
    recipe: PointContrast, batch: Batch, embeddings: Embeddings, rng: Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """PointInfoNCE over one match of each point, or the hardest-contrastive loss over all of them; then queries and keys."""
    one, two = embeddings
    if recipe.loss == "hardest":
        # Positives come from all matches, and every match counts as one where negatives are dropped (spec B.4).
        rows = _rows(batch, [s.matches for s in batch.samples])
        count = len(batch.samples)
        chosen = rows[subset(len(rows), recipe.hardest_positives_per_pair * count, rng)].to(one.device)
        candidates = [
            subset(len(f), recipe.hardest_candidates_per_pair * count, rng).to(one.device) for f in embeddings
        ]
        parts = hardest_contrastive(one, two, chosen, candidates[0], candidates[1], rows.to(one.device))
        return parts.positive + parts.negative, one[chosen[:, 0]], two[chosen[:, 1]]
    rows = _rows(batch, [one_match_each(s.matches, rng) for s in batch.samples])
    chosen = rows[subset(len(rows), recipe.positives, rng)].to(one.device)
    queries, keys = one[chosen[:, 0]], two[chosen[:, 1]]
    return info_nce(queries, keys, recipe.temperature), queries, keys


def _rows(batch: Batch, matches: list[Tensor]) -> Tensor:
    """(M, 2) rows of the collated clouds of the matches of each pair, one pair after the other."""
    pairs = [rows_of(batch, i, m) for i, m in enumerate(matches)]
    return torch.stack([torch.cat([p[0] for p in pairs]), torch.cat([p[1] for p in pairs])], dim=1)


def any_rotation(rng: Generator) -> NDArray[np.float64]:
    """(3, 3): about a random axis (three uniform numbers, normalised) by an angle within 180 degrees either way."""
    axis = rng.uniform(-0.5, 0.5, 3)
    x, y, z = axis / np.linalg.norm(axis)
    angle = rng.uniform(-np.pi, np.pi)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
