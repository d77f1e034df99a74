"""Pairs of overlapping frames: samples, matches and training, shared by PointContrast and CSC (spec B.2, B.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from pretrain_bench.benchmarks.datasets.layout import UNLABELLED
from pretrain_bench.benchmarks.datasets.views import Frame, load_frame, upright_points
from pretrain_bench.benchmarks.input.transforms import nearest_rows
from pretrain_bench.benchmarks.input.voxelise import quantise, to_cells
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.methods.context import StageContext
from pretrain_bench.methods.networks.res16unet import seeded_backbone
from pretrain_bench.methods.sparse.backend import sparse_backend
from pretrain_bench.methods.sparse.tensor import batched_coordinates
from pretrain_bench.methods.training.checkpoint import save_backbone
from pretrain_bench.methods.training.contrast import embedding_health, unit_rows
from pretrain_bench.methods.training.frame_pairs_recipe import FramePairs
from pretrain_bench.methods.training.frames import frames_of
from pretrain_bench.methods.training.loop import StepResult, Training, batch_indices, first_usable
from pretrain_bench.methods.training.optim import exponential, sgd

Pair = tuple[str, int, int]
Rotation = Callable[[Generator], NDArray[np.float64]]


class TurnedCloud(NamedTuple):
    """One rotated frame of a pair: coordinates (V, 3) int32 voxels, features (V, 3) float32, and the (4, 4) float32 transform, in
    metres, from the upright world to the rotated cloud."""

    coordinates: Tensor
    features: Tensor
    transform: Tensor


class PairSample(NamedTuple):
    """Two clouds, and all matches between them as rows of both, (M, 2) int64, many to many."""

    one: TurnedCloud
    two: TurnedCloud
    matches: Tensor


class Batch(NamedTuple):
    """The pairs of one step; `starts` (pairs, 2) are their first rows in both collated clouds."""

    samples: list[PairSample]
    starts: NDArray[np.int64]


Embeddings = tuple[Tensor, Tensor]
LossOf = Callable[[Batch, Embeddings, Generator], tuple[Tensor, Tensor, Tensor]]
"""Maps a batch and unit features of both clouds to the loss, and to the queries and keys whose health is recorded."""


def list_pairs(context: StageContext, recipe: FramePairs) -> list[Pair]:
    """(scene, frame, frame) of each pair with an overlap of at least `min_overlap`; with `views: same_frame`, each frame twice.

    Raises DataError if there are no pairs, or no frames.
    """
    assert context.spec.data is not None
    if recipe.views == "same_frame":
        return [(scene, i, i) for scene, i in frames_of(context)]
    pairs: list[Pair] = []
    least = recipe.min_overlap
    for scene in context.spec.data.scenes:
        path = context.view / UNLABELLED / scene / "pairs.npy"
        if path.is_file():
            pairs += [(scene, int(i), int(j)) for i, j, share in np.load(path, allow_pickle=False) if share >= least]
    if not pairs:
        raise DataError(
            f"no two frames of {context.spec.data.dataset!r} overlap by {100 * least:g} % or more (min_overlap of the recipe); "
            "check the poses"
        )
    return pairs


def turn(points: NDArray[np.float64], rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """(4, 4) transform that moves the mean of the points (N, 3) to the origin and applies `rotation` (3, 3)."""
    transform = np.eye(4)
    transform[:3, :3] = rotation
    transform[:3, 3] = -rotation @ points.mean(axis=0)
    return transform


def pair_sample(
    frames: tuple[Frame, Frame], recipe: FramePairs, rotation: Rotation, colour: bool, rng: Generator
) -> PairSample | None:
    """Two rotated and voxelised clouds and their matches; None if there are none (spec 0.2, item 8). Features are colours in
    -0.5..0.5 with `colour`, else ones; both with noise."""
    worlds: list[NDArray[np.float64]] = []
    clouds: list[tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float64]]] = []
    for frame in frames:
        world, rgb, _ = upright_points(frame)
        if not len(world):
            return None
        transform = turn(world, rotation(rng))
        turned = world @ transform[:3, :3].T + transform[:3, 3]
        voxels = quantise(to_cells(turned, recipe.voxel_metres))
        worlds.append(world[voxels.representative])
        features = np.ones((len(voxels.coordinates), 3))
        if colour:
            features = rgb[voxels.representative]
        if rng.random() < recipe.jitter_probability:
            features = features + rng.normal(0, recipe.jitter_std, features.shape)
        if colour:
            features = features / 255 - 0.5
        clouds.append((voxels.coordinates, features.astype(np.float32), transform))
    matches = all_matches(worlds[0], worlds[1], recipe.match_voxels * recipe.voxel_metres)
    if len(matches) and recipe.max_voxels_per_frame is not None:
        centre = worlds[0][matches[rng.integers(len(matches)), 0]]
        for side, world in enumerate(worlds):
            kept = nearest_rows(world, centre, recipe.max_voxels_per_frame)
            place = np.full(len(world), -1)
            place[kept] = np.arange(len(kept))
            matches[:, side] = place[matches[:, side]]
            cells, colours, transform = clouds[side]
            clouds[side] = (cells[kept], colours[kept], transform)
        matches = matches[(matches >= 0).all(axis=1)]
    if not len(matches):
        return None
    one, two = (
        TurnedCloud(torch.from_numpy(c), torch.from_numpy(f), torch.from_numpy(t).float()) for c, f, t in clouds
    )
    return PairSample(one, two, torch.from_numpy(matches))


def all_matches(one: NDArray[np.float64], two: NDArray[np.float64], radius: float) -> NDArray[np.int64]:
    """(M, 2) all pairs of rows of `one` (N, 3) and `two` (K, 3) within `radius` metres, sorted."""
    near = cKDTree(one).sparse_distance_matrix(cKDTree(two), radius, output_type="ndarray")
    rows = np.stack([near["i"], near["j"]], axis=1).astype(np.int64)
    return rows[np.lexsort(rows.T[::-1])]


def one_match_each(matches: Tensor, rng: Generator) -> Tensor:
    """One of the matches (M, 2) per row of the first cloud, drawn uniformly (spec B.3); sorted by that row."""
    shuffled = matches.numpy()[rng.permutation(len(matches))]
    _, first = np.unique(shuffled[:, 0], return_index=True)
    return torch.from_numpy(shuffled[first])


def subset(count: int, most: int, rng: Generator) -> Tensor:
    """Sorted int64 rows: a random `most` out of `count`, or all if there are fewer."""
    return torch.from_numpy(np.sort(rng.permutation(count)[:most]))


def load_pair(context: StageContext, pair: tuple[str, int, int], rng: Generator) -> tuple[Frame, Frame]:
    """Both frames of a pair, in random order."""
    scene, i, j = pair
    if rng.random() < 0.5:
        i, j = j, i
    return load_frame(context.view, scene, i), load_frame(context.view, scene, j)


def prepare_pairs(
    context: StageContext,
    recipe: FramePairs,
    rotation: Rotation,
    colour: bool,
    loss_of: LossOf,
) -> Training:
    """Build the backbone and its training on pairs of frames. Raises DataError as `list_pairs`."""
    pairs, spec = list_pairs(context, recipe), context.spec
    network = seeded_backbone(
        recipe.output_channels,
        spec.network,
        recipe.bn_momentum,
        spec.sparse_backend,
        context.seed("weights"),
    )
    network = network.to(context.device).train()
    optimiser = sgd(network.parameters(), recipe.optimiser)
    length = context.run_length(recipe.steps, recipe.pairs_per_step)
    engine = sparse_backend(spec.sparse_backend)

    def draw(step: int, position: int, index: int) -> PairSample:
        rng = context.rng("augmentation", step, position)
        problem = "pairs of frames in a row have no matching points; check depth and poses"

        def make(item: int) -> PairSample | None:
            return pair_sample(load_pair(context, pairs[item], rng), recipe, rotation, colour, rng)

        return first_usable(make, index, len(pairs), rng, problem)

    def make_batch(number: int) -> Batch:
        chosen = batch_indices(context, "order", number, recipe.pairs_per_step, len(pairs))
        samples = [draw(number, p, i) for p, i in enumerate(chosen)]
        sizes = [[len(s.one.coordinates), len(s.two.coordinates)] for s in samples]
        return Batch(samples, np.concatenate([[[0, 0]], np.cumsum(sizes, axis=0)])[:-1])

    def embed(clouds: list[TurnedCloud]) -> Tensor:
        coordinates = batched_coordinates([c.coordinates for c in clouds]).to(context.device)
        features = torch.cat([c.features for c in clouds]).to(context.device)
        with context.autocast():
            output = network(engine.SparseTensor(features, coordinates)).F
        return unit_rows(output.float())

    def step(number: int, batch: Batch) -> StepResult:
        embeddings = embed([s.one for s in batch.samples]), embed([s.two for s in batch.samples])
        loss, queries, keys = loss_of(batch, embeddings, context.rng("selection", number))
        loss.backward()
        health = embedding_health(queries.detach(), keys.detach())
        health["matches"] = float(np.mean([len(s.matches) for s in batch.samples]))
        points = sum(len(c.coordinates) for s in batch.samples for c in (s.one, s.two))
        frames = 2 * len(batch.samples)
        seen = {"samples": len(batch.samples), "frames": frames, "images": frames if colour else 0, "points": points}
        return StepResult(float(loss.detach()), seen, health)

    def save() -> None:
        save_backbone(network, context.artifacts)

    schedule = exponential(recipe.optimiser.learning_rate, recipe.decay, recipe.steps, length.scheduled)
    return Training({"network": network}, optimiser, schedule, length, make_batch, step, save=save)


def rows_of(batch: Batch, pair: int, matches: Tensor) -> tuple[Tensor, Tensor]:
    """The matches (M, 2) of pair number `pair`, as rows (M,) of both collated clouds."""
    starts = batch.starts[pair]
    return matches[:, 0] + int(starts[0]), matches[:, 1] + int(starts[1])
