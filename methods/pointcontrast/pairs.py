"""The only stage of PointContrast: geometry as the only input, arbitrary rotations (spec B.2 to B.5)."""

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


def run(context: StageContext) -> dict[str, float | None]:
    """Train and write `artifacts/backbone.safetensors`."""
    return train_and_save(context, prepare(context))


def prepare(context: StageContext) -> Training:
    """Build the backbone and its training. Raises DataError if no two frames overlap enough."""
    recipe = context.recipe(PointContrast)
    return prepare_pairs(context, recipe, any_rotation, False, partial(pair_loss, recipe))


def pair_loss(
    recipe: PointContrast, batch: Batch, embeddings: Embeddings, rng: Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, queries, keys): PointInfoNCE over one match per point, or the hardest-contrastive loss over all matches; and the
    embeddings (P, C) of the positives."""
    one, two = embeddings
    if recipe.loss == "hardest":
        # Positives are drawn from all matches, and all matches are excluded as negatives (spec B.4).
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
    """(M, 2) matches of all pairs, pair after pair, as rows of the collated clouds."""
    pairs = [rows_of(batch, i, m) for i, m in enumerate(matches)]
    return torch.stack([torch.cat([p[0] for p in pairs]), torch.cat([p[1] for p in pairs])], dim=1)


def any_rotation(rng: Generator) -> NDArray[np.float64]:
    """(3, 3) rotation about a random axis (three uniform numbers, normalised) by a uniform angle in -180..180 degrees."""
    axis = rng.uniform(-0.5, 0.5, 3)
    x, y, z = axis / np.linalg.norm(axis)
    angle = rng.uniform(-np.pi, np.pi)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
