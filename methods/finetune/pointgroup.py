"""PointGroup on the voxels of the sparse backbone (spec F.1, J-20): clusters of the original and of the shifted voxels, a score
for each cluster, and non-maximum suppression.

Unlike the original it clusters voxels instead of points, and components are exact, without a maximum number of neighbours. Radius
and least sizes are those of CSC's variant, in voxels: 1.5 voxels of 2 cm are the original's 3 cm. The radius scales with the
voxel size, since 3 cm would connect nothing at larger voxels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor
from torch.nn import functional

from pretrain_bench.benchmarks.input.boxes import strongest_first
from pretrain_bench.benchmarks.specs.recipes import InstanceRecipe, PointGroupSettings
from pretrain_bench.methods.finetune.clustering import Clusters, clusters
from pretrain_bench.methods.networks.instance_net import InstanceNet, InstanceOutput


def proposals(
    coordinates: NDArray[np.integer], out: InstanceOutput, recipe: InstanceRecipe, things: Sequence[int], above: int
) -> Clusters:
    """The clusters of one scene's voxels (V, 3) at their own positions, followed by those of the voxels shifted by their offsets.

    Each has at least `component_least_voxels` and more than `above` voxels.
    """
    logits = out.logits.detach().float().cpu().numpy()
    moved = out.offsets.detach().float().cpu().numpy() / np.float32(recipe.voxel_metres)
    places = coordinates.astype(np.float32)
    radius, least = recipe.cluster_radius_voxels, recipe.component_least_voxels
    return joined(
        [clusters(p, logits, things, radius, least, above) for p in (places, (places + moved).astype(np.float32))]
    )


def joined(parts: Sequence[Clusters], shifts: Sequence[int] | None = None) -> Clusters:
    """Concatenate lists of clusters; `shifts[i]` is added to the voxel rows of list i."""
    shifts = shifts or [0] * len(parts)
    sizes = np.concatenate([np.zeros(0, np.int64), *(np.diff(p.starts) for p in parts)])
    voxels = [np.zeros(0, np.int32), *(p.voxels + np.int32(s) for p, s in zip(parts, shifts, strict=True))]
    return Clusters(
        np.concatenate(voxels),
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32),
        np.concatenate([np.zeros(0, np.uint8), *(p.classes for p in parts)]),
        np.concatenate([np.zeros(0, np.float32), *(p.confidences for p in parts)]),
    )


def chosen(clusters: Clusters, rows: NDArray[np.integer]) -> Clusters:
    """The clusters with numbers `rows`, in that order."""
    parts = [clusters.voxels[clusters.starts[r] : clusters.starts[r + 1]] for r in rows]
    starts = np.cumsum([0, *map(len, parts)]).astype(np.int32)
    voxels = np.concatenate([np.zeros(0, np.int32), *parts])
    return Clusters(voxels, starts, clusters.classes[rows], clusters.confidences[rows])


def largest(clusters: Clusters, most: int) -> Clusters:
    """The `most` largest clusters in their original order; of equally large ones the first."""
    order = np.argsort(-np.diff(clusters.starts), kind="stable")[:most]
    return chosen(clusters, np.sort(order))


def cluster_logits(
    network: InstanceNet, features: Tensor, coordinates: NDArray[np.integer], clusters: Clusters, recipe: InstanceRecipe
) -> Tensor:
    """(P,) logits of the score network for clusters of voxels (V, 3) with features (V, C), differentiable in the features."""
    assert network.scores is not None
    cells = [torch.from_numpy(cluster_cells(c, recipe)) for c in _each(clusters, coordinates)]
    rows = torch.from_numpy(clusters.voxels.astype(np.int64)).to(features.device)
    return network.scores(features.float().index_select(0, rows), cells)


def cluster_cells(coordinates: NDArray[np.integer], recipe: InstanceRecipe) -> NDArray[np.int64]:
    """(n, 3) int64 cells, from 0, of a cluster's voxels (n, 3): `grid_cells` along its longest side, but at most
    `cells_per_metre`, and never smaller than a voxel, since cells with gaps between them would have no neighbours."""
    settings = recipe.pointgroup
    low = coordinates.min(axis=0)
    side = int((coordinates.max(axis=0) - low).max()) + 1
    scale = min(settings.grid_cells / side, settings.cells_per_metre * recipe.voxel_metres, 1.0)
    return np.floor((coordinates - low) * scale).astype(np.int64)


def _each(clusters: Clusters, values: NDArray) -> list[NDArray]:
    return [values[clusters.voxels[a:b]] for a, b in zip(clusters.starts[:-1], clusters.starts[1:], strict=True)]


def score_loss(
    network: InstanceNet,
    out: InstanceOutput,
    coordinates: NDArray[np.integer],
    instances: NDArray[np.integer],
    recipe: InstanceRecipe,
    things: Sequence[int],
) -> Tensor:
    """Mean binary cross-entropy of the scores of a micro-batch's clusters; zero, with a zero gradient, if there are none.

    `coordinates` (N, 4), batch index first, scene after scene; `instances` (N,) unique across scenes, -1 for none.
    """
    parts, shifts = [], []
    for scene in np.unique(coordinates[:, 0]):
        rows = np.flatnonzero(coordinates[:, 0] == scene)  # the rows of a scene are contiguous
        own = InstanceOutput(*(t[int(rows[0]) : int(rows[-1]) + 1] for t in out))
        parts.append(largest(proposals(coordinates[rows, 1:], own, recipe, things, 0), recipe.pointgroup.most_clusters))
        shifts.append(int(rows[0]))
    clusters = joined(parts, shifts)
    # Batch norm needs two rows; a single cluster of one voxel gives only one.
    if len(clusters.voxels) < 2 or not len(clusters.classes):
        return out.features.sum() * 0.0
    logits = cluster_logits(network, out.features, coordinates[:, 1:], clusters, recipe)
    targets = torch.from_numpy(score_targets(best_overlaps(clusters, instances), recipe.pointgroup)).to(logits.device)
    return functional.binary_cross_entropy_with_logits(logits, targets)


def best_overlaps(clusters: Clusters, instances: NDArray[np.integer]) -> NDArray[np.float64]:
    """(P,) the largest IoU of each cluster with an instance. `instances` (V,) numbers them by voxel, -1 for none."""
    numbers, sizes = np.unique(instances[instances >= 0], return_counts=True)
    if not len(numbers):
        return np.zeros(len(clusters.classes))
    counts = np.diff(clusters.starts)
    of = instances[clusters.voxels]
    column = np.where(of >= 0, np.searchsorted(numbers, of), 0)
    who = np.repeat(np.arange(len(counts)), counts)
    common = np.zeros((len(counts), len(numbers)))
    np.add.at(common, (who, column), of >= 0)
    return (common / (counts[:, None] + sizes[None] - common)).max(axis=1)


def score_targets(overlaps: NDArray[np.floating], settings: PointGroupSettings) -> NDArray[np.float32]:
    """(P,) targets: 0 up to an IoU of `target_low`, 1 from `target_high`, linear in between."""
    span = settings.target_high - settings.target_low
    return np.clip((overlaps - settings.target_low) / span, 0, 1).astype(np.float32)


def scored_and_suppressed(
    clusters: Clusters, scores: NDArray[np.floating], voxels: int, settings: PointGroupSettings
) -> Clusters:
    """The clusters that score above `least_score` and survive non-maximum suppression, by decreasing score, which becomes their
    confidence. `voxels` is the number of voxels of the scene."""
    rows = np.flatnonzero(scores > settings.least_score)
    left = chosen(clusters, rows)
    kept = strongest_first(overlaps(left, voxels), scores[rows], settings.suppression_overlap)
    best = chosen(left, kept)
    return best._replace(confidences=scores[rows][kept].astype(np.float32))


def overlaps(clusters: Clusters, voxels: int) -> NDArray[np.float64]:
    """(P, P) pairwise IoU of clusters, as sets of voxels; the scene has `voxels` voxels."""
    counts = np.diff(clusters.starts)
    members = csr_matrix((np.ones(len(clusters.voxels)), clusters.voxels, clusters.starts), shape=(len(counts), voxels))
    common = (members @ members.T).toarray()
    return common / np.maximum(counts[:, None] + counts[None] - common, 1)
