"""Scene-context partitions and the loss over them (spec C.1)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pretrain_bench.methods.flops import count_similarities

ROW_BLOCK = 1024
NO_BIN = -1
Partition = Callable[[Tensor, Tensor], Tensor]
"""Maps anchors (B, 3) and points (N, 3), in voxels, to bins (B, N) int8: that of each point seen from each anchor, or NO_BIN."""


def fast_partition(inner: float, outer: float) -> Partition:
    """Four bins at distance d, in voxels: 0 above and 1 below with inner < d <= outer; 2 above and 3 below with d > outer.

    Points at the anchor's height, or with d <= inner, have no bin.
    """

    def bins(anchors: Tensor, points: Tensor) -> Tensor:
        distance, up = _distance(anchors, points), points[:, 2] - anchors[:, 2:3]
        ring = torch.where(distance > outer, 2, 0)
        inside = (distance > inner) & (up != 0)
        return torch.where(inside, ring + (up < 0), NO_BIN).to(torch.int8)

    return bins


def general_partition(inner: float, outer: float, sectors_xy: int, sectors_zy: int) -> Partition:
    """2 * sectors_xy * sectors_zy bins: ring (inner <= d < outer, then d >= outer), sector of the azimuth atan2(y, x) in 0..2 pi,
    and sector of atan2(y, z) modulo pi. Distances are in voxels; points with d < inner have no bin."""

    def bins(anchors: Tensor, points: Tensor) -> Tensor:
        distance = _distance(anchors, points)
        x, y, z = (points[:, a] - anchors[:, a : a + 1] for a in range(3))
        azimuth = torch.remainder(torch.atan2(y, x), 2 * math.pi)
        second = torch.remainder(torch.atan2(y, z), math.pi)
        sector = (azimuth / (2 * math.pi / sectors_xy)).long().clamp_(max=sectors_xy - 1)
        height = (second / (math.pi / sectors_zy)).long().clamp_(max=sectors_zy - 1)
        ring = (distance >= outer).long()
        numbers = ring * (sectors_xy * sectors_zy) + sector * sectors_zy + height
        return torch.where(distance >= inner, numbers, NO_BIN).to(torch.int8)

    return bins


def _distance(anchors: Tensor, points: Tensor) -> Tensor:
    """(B, N) sqrt(d^2 + 1e-7), summed axis by axis to avoid a (B, N, 3) tensor."""
    squares = torch.zeros((len(anchors), len(points)), dtype=points.dtype, device=points.device)
    for axis in range(3):
        squares += (points[:, axis] - anchors[:, axis : axis + 1]).pow_(2)
    return (squares + 1e-7).sqrt_()


def to_world(coordinates: Tensor, voxel_metres: float, transform: Tensor) -> Tensor:
    """Rotate voxel coordinates (N, 3) of a cloud back into the world's axes: (N, 3) in voxels, centred on their mean.

    `transform` (4, 4), in metres, is the transform that was applied to the cloud.
    """
    moved = coordinates * voxel_metres - transform[:3, 3]
    world = moved @ torch.linalg.inv(transform[:3, :3]).t()
    return (world - world.mean(0)) / voxel_metres


class _PartitionedNce(torch.autograd.Function):
    """Mean over anchors and bins of weight * InfoNCE against the keys of the bin, with one block of anchors in memory."""

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, keys: Tensor, points: Tensor, bins: Partition, weights: Tensor, temperature: float
    ) -> Tensor:
        ctx.save_for_backward(queries, keys, points, weights)
        ctx.bins, ctx.temperature = bins, temperature
        total = queries.new_zeros(())
        for rows, logits, diagonal, masks in _blocks(_Scene(queries, keys, points, bins, len(weights)), temperature):
            for weight, mask in zip(weights, masks, strict=True):
                normaliser = torch.logsumexp(logits.masked_fill(~mask, -torch.inf), 1)
                total += weight * (normaliser - diagonal).sum()
            del rows
        return total / (len(queries) * len(weights))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, points, weights = ctx.saved_tensors
        scale = gradients[0] / (ctx.temperature * len(queries) * len(weights))
        grad_queries, grad_keys = torch.empty_like(queries), torch.zeros_like(keys)
        scene = _Scene(queries, keys, points, ctx.bins, len(weights))
        for rows, logits, _, masks in _blocks(scene, ctx.temperature):
            chances = torch.zeros_like(logits)
            for weight, mask in zip(weights, masks, strict=True):
                chances += weight * torch.softmax(logits.masked_fill(~mask, -torch.inf), 1)
            grad_queries[rows] = (chances @ keys - weights.sum() * keys[rows]) * scale
            grad_keys += chances.t() @ queries[rows] * scale
        grad_keys -= weights.sum() * queries * scale
        return grad_queries, grad_keys, None, None, None, None


class _Scene(NamedTuple):
    """Queries and keys (N, C), the anchors' places (N, 3) in voxels, and their partition into `bin_count` bins."""

    queries: Tensor
    keys: Tensor
    points: Tensor
    bins: Partition
    bin_count: int


def _blocks(scene: _Scene, temperature: float) -> Any:
    """Yield per block of anchors: its rows, logits (B, N), logits of the positives (B,), and per bin a mask (B, N) of the keys
    in the bin and the positive."""
    queries, keys, points, bins, bin_count = scene
    for start in range(0, len(queries), ROW_BLOCK):
        rows = slice(start, min(start + ROW_BLOCK, len(queries)))
        logits = queries[rows] @ keys.t() / temperature
        bin_of_pair = bins(points[rows], points)
        own = torch.zeros_like(bin_of_pair, dtype=torch.bool)
        own[torch.arange(len(own)), torch.arange(rows.start, rows.stop)] = True
        yield rows, logits, logits[own], [(bin_of_pair == b) | own for b in range(bin_count)]


def partitioned_nce(
    queries: Tensor,
    keys: Tensor,
    points: Tensor,
    bins: Partition,
    bin_count: int,
    temperature: float,
    weight_inner: bool = False,
) -> Tensor:
    """The loss of one scene, a scalar: InfoNCE of (N, C) queries and keys, once per bin with the keys of the bin as negatives.

    `points` (N, 3) are the positions of the anchors in voxels. An anchor without a negative in a bin contributes zero there but
    counts in the mean. With `weight_inner` the inner half of the bins counts twice. Source: spec C.1.
    """
    weights = torch.ones(bin_count, dtype=queries.dtype, device=queries.device)
    if weight_inner:
        weights[: bin_count // 2] = 2
    count_similarities(queries, keys)
    return _PartitionedNce.apply(queries, keys, points, bins, weights, temperature)
