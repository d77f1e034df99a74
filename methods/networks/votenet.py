"""VoteNet on a sparse backbone: seeds vote for object centres, and clusters of votes propose boxes (spec F.3).

Positions are float32 metres in the scene's frame. B scenes, S seeds, P proposals, NH heading bins, NS size classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from pretrain_bench.benchmarks.metrics.detection_ap import RawBoxes
from pretrain_bench.benchmarks.specs.recipes import DetectionRecipe
from pretrain_bench.methods.networks.pointnet2 import PointLevel, SetAbstraction, SharedLayers, furthest_point_sample

LEAST_NORM = 1e-12
"""Least norm by which the feature of a vote is divided; the original divides by zero."""


class Proposals(NamedTuple):
    """The output of VoteNet. `seeds` (B, S, 3) and `seed_rows` (B, S), their rows among the points of each scene; `votes`
    (B, S, 3); `clusters` (B, P, 3), the sampled votes around which proposals are grouped; box `centres` (B, P, 3); logits
    (B, P, ...); and residuals of heading (B, P, NH), in half bins, and of size (B, P, NS, 3), relative to the mean size."""

    seeds: Tensor
    seed_rows: Tensor
    votes: Tensor
    clusters: Tensor
    centres: Tensor
    objectness: Tensor
    heading_scores: Tensor
    heading_residuals: Tensor
    size_scores: Tensor
    size_residuals: Tensor
    class_scores: Tensor


class Voting(nn.Module):
    """Each seed casts a vote: a predicted object centre, with a unit-length feature."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(SharedLayers((channels,) * 3), nn.Linear(channels, 3 + channels))

    def forward(self, seeds: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Seeds (B, S, 3) and features (B, S, C) to votes (B, S, 3) and unit features (B, S, C)."""
        out = self.layers(features.flatten(0, 1)).view(*features.shape[:2], -1).to(seeds.dtype)
        return seeds + out[..., :3], functional.normalize(features + out[..., 3:], dim=2, eps=LEAST_NORM)


class VoteNet(nn.Module):
    """Backbone, voting, grouping and proposals. `backbone` gives `recipe.vote_channels` channels per voxel; `mean_sizes` (NS, 3)
    is in metres."""

    mean_sizes: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        recipe: DetectionRecipe,
        classes: int,
        heading_bins: int,
        mean_sizes: NDArray[np.floating] | Tensor,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.seeds, self.skip_origin = recipe.seeds, recipe.sampling_skips_origin
        sizes = torch.as_tensor(mean_sizes, dtype=torch.float32)
        self.register_buffer("mean_sizes", sizes, persistent=False)
        self.parts = (2, 3, heading_bins, heading_bins, len(sizes), 3 * len(sizes), classes)
        width = recipe.proposal_channels
        level = PointLevel(recipe.proposals, recipe.group_radius_metres, recipe.group_points, (width,) * 3)
        self.voting = Voting(recipe.vote_channels)
        self.grouping = SetAbstraction(level, recipe.vote_channels, self.skip_origin)
        self.proposing = nn.Sequential(SharedLayers((width,) * 3), nn.Linear(width, sum(self.parts)))

    def forward(self, tensor: Any, points: Sequence[Tensor]) -> Proposals:
        """Propose boxes. `tensor` holds the voxels of all scenes, scene after scene; `points[b]` (V_b, 3) has the point of each
        voxel of scene b, in metres.

        Raises ValueError if a scene has no points, or if the numbers of voxels and points per scene differ.
        """
        _check_rows(tensor, points)
        features = self.backbone(tensor).F.to(points[0].dtype)
        rows = seed_rows(points, self.seeds, self.skip_origin)
        starts = torch.tensor([0, *map(len, points[:-1])], device=rows.device).cumsum(0)
        flat = (rows + starts[:, None]).reshape(-1)
        seeds = torch.cat(list(points)).index_select(0, flat).view(*rows.shape, 3)
        votes, brought = self.voting(seeds, features.index_select(0, flat).view(*rows.shape, -1))
        clusters, grouped = self.grouping(votes, brought)
        out = self.proposing(grouped.flatten(0, 1)).view(*clusters.shape[:2], -1).to(seeds.dtype)
        objectness, moves, headings, turns, sizes, stretches, classes = out.split(self.parts, dim=2)
        stretches = stretches.unflatten(2, (-1, 3))
        return Proposals(
            seeds, rows, votes, clusters, clusters + moves, objectness, headings, turns, sizes, stretches, classes
        )


def _check_rows(tensor: Any, points: Sequence[Tensor]) -> None:
    """Raise ValueError unless the tensor has as many rows per scene as `points`, scene after scene."""
    counts = torch.tensor([len(p) for p in points])
    expected = torch.arange(len(points)).repeat_interleave(counts)
    if bool((counts == 0).any()) or not torch.equal(tensor.C[:, 0].cpu().long(), expected):
        raise ValueError(
            f"expected the voxels of {len(points)} scenes with {counts.tolist()} points each, at least one, in this order"
        )


@torch.no_grad()
def seed_rows(points: Sequence[Tensor], count: int, skip_origin: bool = False) -> Tensor:
    """(B, count) int64 rows by furthest point sampling in each scene; a scene with at most `count` points gives all, repeated."""
    device = points[0].device
    rows = torch.stack([torch.arange(count, device=device) % len(p) for p in points])
    large = [b for b, p in enumerate(points) if len(p) > count]
    if large:
        most = max(len(points[b]) for b in large)
        # Padding repeats the first point: its distance to the chosen points is 0, so it is never chosen.
        filled = [torch.cat([points[b], points[b][:1].expand(most - len(points[b]), 3)]) for b in large]
        rows[large] = furthest_point_sample(torch.stack(filled), count, skip_origin)
    return rows


def raw_boxes(proposals: Proposals, mean_sizes: NDArray[np.floating] | Tensor, scene: int) -> RawBoxes:
    """The proposals of scene number `scene` as float64 arrays for the box decoder, with residuals in radians and metres."""

    def array(values: Tensor) -> NDArray[np.float64]:
        return values[scene].detach().cpu().double().numpy()

    sizes = torch.as_tensor(mean_sizes).cpu().double().numpy()
    bins = proposals.heading_scores.shape[2]
    return RawBoxes(
        centres=array(proposals.centres),
        heading_scores=array(proposals.heading_scores),
        heading_residuals=array(proposals.heading_residuals) * (math.pi / bins),
        size_scores=array(proposals.size_scores),
        size_residuals=array(proposals.size_residuals) * sizes,
        class_scores=array(proposals.class_scores),
        objectness_scores=array(proposals.objectness),
    )


def set_norm_momentum(module: nn.Module, momentum: float) -> None:
    """Set the momentum of every batch norm in `module`, including those inside the backbone's blocks."""
    for layer in module.modules():
        if isinstance(layer, _BatchNorm):
            layer.momentum = momentum


def norm_momentum(recipe: DetectionRecipe, progress: float) -> float:
    """Momentum of batch norms at `progress`, the share of the run in 0..1 that is over."""
    # 1e-9 absorbs rounding when `progress` is a multiple of the interval.
    halvings = math.floor(progress / recipe.norm_halved_every + 1e-9)
    return max(recipe.norm_momentum * 0.5**halvings, recipe.norm_least)
