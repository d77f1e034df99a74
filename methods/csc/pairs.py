"""The only stage of CSC: colour as input, rotation mostly about z, one loss per bin of the scene context (spec C.1)."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from pretrain_bench.benchmarks.input.transforms import random_rotation
from pretrain_bench.methods.context import StageContext
from pretrain_bench.methods.csc.partition import fast_partition, general_partition, partitioned_nce, to_world
from pretrain_bench.methods.csc.recipe import SceneContexts
from pretrain_bench.methods.training.frame_pairs import (
    Batch,
    Embeddings,
    one_match_each,
    prepare_pairs,
    rows_of,
    subset,
)
from pretrain_bench.methods.training.loop import Training, train_and_save

SECTORS = 2


def run(context: StageContext) -> dict[str, float | None]:
    """Train and write `artifacts/backbone.safetensors`."""
    return train_and_save(context, prepare(context))


def prepare(context: StageContext) -> Training:
    """Build the backbone and its training. Raises DataError if no two frames overlap enough."""
    recipe = context.recipe(SceneContexts)

    def rotation(rng: Generator) -> NDArray[np.float64]:
        return random_rotation(recipe.rotation_degrees, rng)

    return prepare_pairs(context, recipe, rotation, True, partial(scene_loss, recipe))


def scene_loss(
    recipe: SceneContexts, batch: Batch, embeddings: Embeddings, rng: Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, queries, keys): the mean loss over the pairs of frames, and the embeddings (M, C) that entered it.

    Each pair contributes up to `recipe.positives` of its matches, one per point of the first frame.
    """
    fast = recipe.partition == "fast4"
    inner, outer = recipe.inner_voxels, recipe.outer_voxels
    bins = fast_partition(inner, outer) if fast else general_partition(inner, outer, SECTORS, SECTORS)
    count = 4 if fast else 2 * SECTORS * SECTORS
    one, two = embeddings
    losses, queries, keys = [], [], []
    for i, sample in enumerate(batch.samples):
        single = one_match_each(sample.matches, rng)
        matches = single[subset(len(single), recipe.positives, rng)]
        first, second = rows_of(batch, i, matches)
        q, k = one[first.to(one.device)], two[second.to(two.device)]
        cells = sample.one.coordinates[matches[:, 0]].float()
        places = to_world(cells, recipe.voxel_metres, sample.one.transform).to(one.device)
        losses.append(partitioned_nce(q, k, places, bins, count, recipe.temperature, recipe.weight_inner))
        queries.append(q)
        keys.append(k)
    return torch.stack(losses).mean(), torch.cat(queries), torch.cat(keys)
