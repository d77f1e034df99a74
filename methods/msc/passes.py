"""Combines the scans of one pass: mixing, cross masks and pairs (spec 1.3, 1.4, 1.6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from pretrain_bench.benchmarks.input.voxelise import quantise, to_cells
from pretrain_bench.methods.msc.recipe import MaskedSceneContrast
from pretrain_bench.methods.msc.views import ScanViews, View
from pretrain_bench.methods.training.frame_pairs import one_match_each, subset

Origins = Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]]
"""For each scan, the positions (V, 3) in metres of the voxels of both views."""


class ViewBatch(NamedTuple):
    """One view of all scans of a pass: coordinates (N, 4) int32, batch index first; colours (N, 3) float32 in -0.5..0.5;
    masked (N,) bool."""

    coordinates: Tensor
    colours: Tensor
    masked: Tensor


class Pass(NamedTuple):
    """Both views of all scans of a pass; pairs (P, 2) int64 of matching rows; the number of rows of the first view with a match;
    and the share of its voxels dropped by mixing."""

    one: ViewBatch
    two: ViewBatch
    pairs: Tensor
    matched: int
    left_out: float


def make_pass(scans: Sequence[ScanViews], recipe: MaskedSceneContrast, rng: Generator) -> Pass:
    """Mix, mask and pair the scans of one pass."""
    before = [scan.one.coordinates for scan in scans]
    is_mixed = rng.random() < recipe.mix_probability
    kept = kept_when_mixed(before) if is_mixed else [np.ones(len(c), dtype=bool) for c in before]
    ones = [View(*(field[rows] for field in scan.one)) for scan, rows in zip(scans, kept, strict=True)]
    twos = [scan.two for scan in scans]
    cell = recipe.mask_cell_voxels * recipe.voxel_metres
    patches, count = patches_of([(a.origin, b.origin) for a, b in zip(ones, twos, strict=True)], cell)
    masked = cross_masks(patches, rng.permutation(count), recipe.mask_rate)
    candidates = joined_candidates(scans, kept)
    matched = np.unique(candidates[:, 0])
    pairs = draw_pairs(candidates, matched[subset(len(matched), recipe.pairs, rng).numpy()], rng)
    left_out = 1 - sum(map(len, (v.coordinates for v in ones))) / sum(map(len, before))
    batches = view_batch(ones, masked[0], is_mixed), view_batch(twos, masked[1], False)
    return Pass(*batches, pairs, len(matched), left_out)


def kept_when_mixed(coordinates: Sequence[NDArray[np.int32]]) -> list[NDArray[np.bool_]]:
    """(V,) masks of the voxels that each scan keeps if scans (0, 1), (2, 3), ... are overlaid: a voxel that both have is kept by
    the first (J-32)."""
    kept = [np.ones(len(c), dtype=bool) for c in coordinates]
    for second in range(1, len(coordinates), 2):
        overlaid = quantise(np.concatenate([coordinates[second - 1], coordinates[second]]))
        stays = np.zeros(len(overlaid.inverse), dtype=bool)
        stays[overlaid.representative] = True
        kept[second] = stays[len(coordinates[second - 1]) :]
    return kept


def patches_of(origins: Origins, cell_metres: float) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64]], int]:
    """The mask cell (N1,), (N2,) int64 of each row of view 1 and view 2, numbered by (scan, x, y, z) over both views, and the
    number of cells. `origins` and `cell_metres` are in metres."""
    patches: tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]] = ([], [])
    count = 0
    for one, two in origins:
        cells = quantise(to_cells(np.concatenate([one, two]), cell_metres))
        patches[0].append(cells.inverse[: len(one)] + count)
        patches[1].append(cells.inverse[len(one) :] + count)
        count += len(cells.coordinates)
    return (np.concatenate(patches[0]), np.concatenate(patches[1])), count


def cross_masks(
    patches: tuple[NDArray[np.int64], NDArray[np.int64]], permutation: NDArray[np.int64], rate: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(N,) masked rows of each view: a share `rate` of the cells, the first of `permutation`, is masked in view 1, the next as
    many in view 2."""
    view = np.zeros(len(permutation), dtype=np.int8)
    count = int(len(permutation) * rate)
    view[permutation[:count]], view[permutation[count : 2 * count]] = 1, 2
    return view[patches[0]] == 1, view[patches[1]] == 2


def joined_candidates(scans: Sequence[ScanViews], kept: Sequence[NDArray[np.bool_]]) -> NDArray[np.int64]:
    """(M, 2) candidate matches as rows of both views of the pass, without those of dropped voxels."""
    parts, first, second = [], 0, 0
    for scan, rows in zip(scans, kept, strict=True):
        place = np.cumsum(rows) - 1
        own = scan.candidates[rows[scan.candidates[:, 0]]]
        parts.append(np.stack([place[own[:, 0]] + first, own[:, 1] + second], axis=1))
        first, second = first + int(rows.sum()), second + len(scan.two.coordinates)
    return np.concatenate(parts)


def draw_pairs(candidates: NDArray[np.int64], rows: NDArray[np.int64], rng: Generator) -> Tensor:
    """(P, 2) pairs: for each row of view 1 in `rows` one of its candidates (M, 2), drawn uniformly."""
    chosen = np.zeros(candidates[:, 0].max(initial=-1) + 1, dtype=bool)
    chosen[rows] = True
    return one_match_each(torch.from_numpy(candidates[chosen[candidates[:, 0]]]), rng)


def view_batch(views: Sequence[View], masked: NDArray[np.bool_], mixed: bool) -> ViewBatch:
    """Join one view of all scans; `masked` (N,) marks rows of the joined view. With `mixed`, scans (0, 1), (2, 3), ... share a
    batch index."""
    scans = np.repeat(np.arange(len(views)), [len(v.coordinates) for v in views])
    index = (scans // 2 if mixed else scans).astype(np.int32)
    coordinates = np.concatenate([index[:, None], np.concatenate([v.coordinates for v in views])], axis=1)
    colours = np.concatenate([v.colours for v in views])
    return ViewBatch(torch.from_numpy(coordinates), torch.from_numpy(colours), torch.from_numpy(masked))
