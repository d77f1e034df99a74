"""PointNet++ in plain torch: sampling, grouping, and the point trunk of DepthContrast (spec D.1), which is VoteNet's backbone.

Points are (B, N, 3) float32 metres, features (B, N, C). Indices are deterministic: ties go to the lowest index.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

ORIGIN_SQUARED = 1e-3
PAIRS_AT_ONCE = {"cpu": 1 << 17, "cuda": 1 << 24}
"""The most distances between centres and points in memory at once; on a CPU they fit its cache."""


class PointLevel(NamedTuple):
    """One set abstraction: `points` centres, up to `neighbours` points within `radius_metres` of each, and the shared layers'
    output channels."""

    points: int
    radius_metres: float
    neighbours: int
    channels: tuple[int, ...]


@torch.no_grad()
def furthest_point_sample(points: Tensor, count: int, skip_origin: bool = False) -> Tensor:
    """(B, count) int64 indices of points (B, N, 3): point 0, then repeatedly the point furthest from all chosen ones; ties go to
    the lowest index.

    With `skip_origin`, points within about 3 cm of the origin are never chosen, except point 0, as in the original (spec 0.2,
    item 9). Raises ValueError if count > N.
    """
    batch, number, _ = points.shape
    if count > number:
        raise ValueError(f"{count} samples of {number} points")
    chosen = torch.zeros((batch, count), dtype=torch.int64, device=points.device)
    distance = torch.full((batch, number), torch.inf, dtype=points.dtype, device=points.device)
    if skip_origin:
        distance[points.pow(2).sum(2) <= ORIGIN_SQUARED] = -1.0
    last = chosen[:, 0]
    axes, lines = points.permute(2, 0, 1).contiguous(), torch.arange(batch, device=points.device)
    for place in range(1, count):
        distance = torch.minimum(distance, _squared(axes.unbind(), axes[:, lines, last, None].unbind()))
        last = _first_largest(distance)
        chosen[:, place] = last
    return chosen


def _first_largest(values: Tensor) -> Tensor:
    """(B,) index of the largest value of each row of (B, N). Ties go to the first, which `argmax` does not guarantee."""
    return (values == values.amax(1, keepdim=True)).to(torch.uint8).argmax(1)


def _squared(one: Sequence[Tensor], two: Sequence[Tensor]) -> Tensor:
    """Squared distances of points given as x, y and z, which are broadcast against each other; summed axis by axis, so that the
    distance of equal points is exactly zero."""
    total, *others = ((a - b).pow_(2) for a, b in zip(one, two, strict=True))
    for square in others:
        total += square
    return total


@torch.no_grad()
def ball_query(centres: Tensor, points: Tensor, radius: float, count: int) -> Tensor:
    """(B, M, count) int64: for each centre (B, M, 3) the first `count` points (B, N, 3), by index, closer than `radius` metres.

    Unused places repeat the first index; they are 0 for a centre without such points.
    """
    batch, centre_count, _ = centres.shape
    neighbours = torch.zeros((batch, centre_count, count), dtype=torch.int64, device=points.device)
    at_once = max(1, PAIRS_AT_ONCE[points.device.type] // max(1, points.shape[1]))
    # Squared in the points' dtype, float32, as in the CUDA kernels of the original.
    limit = torch.tensor(radius, dtype=points.dtype).pow(2).item()
    axes = points.permute(2, 0, 1).contiguous()
    for item in range(batch):
        for start in range(0, centre_count, at_once):
            part = centres[item, start : start + at_once]
            near = (_squared(part[:, None].unbind(2), axes[:, item, None].unbind()) < limit).nonzero()
            neighbours[item, start : start + len(part)] = _first_of_each(near, len(part), count)
    return neighbours


def _first_of_each(near: Tensor, rows: int, count: int) -> Tensor:
    """(rows, count) table of sorted (row, value) pairs: the first `count` values of each row, padded with its first value."""
    sizes = torch.bincount(near[:, 0], minlength=rows)
    starts = sizes.cumsum(0) - sizes
    place = torch.arange(len(near), device=near.device) - starts[near[:, 0]]
    table = torch.zeros((rows, count), dtype=torch.int64, device=near.device)
    early = place < count
    table[near[early, 0], place[early]] = near[early, 1]
    used = torch.arange(count, device=near.device) < sizes[:, None]
    return torch.where(used, table, table[:, :1])


def gather_rows(features: Tensor, index: Tensor) -> Tensor:
    """Select features (B, N, C) at indices (B, ...): (B, ..., C). The gradient is summed in a fixed order."""
    batch, number, channels = features.shape
    offset = torch.arange(batch, device=index.device).view(-1, *([1] * (index.dim() - 1))) * number
    return features.reshape(-1, channels).index_select(0, (index + offset).reshape(-1)).view(*index.shape, channels)


class SharedLayers(nn.Sequential):
    """Linear-norm-ReLU layers applied to every row (N, C)."""

    def __init__(self, channels: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for i, o in itertools.pairwise(channels):
            layers += [nn.Linear(i, o, bias=False), nn.BatchNorm1d(o), nn.ReLU()]
        super().__init__(*layers)


class SetAbstraction(nn.Module):
    """Sample centres, group their neighbours, apply shared layers, and take the maximum of each channel over a group.

    `skip_origin` as in `furthest_point_sample`.
    """

    def __init__(self, level: PointLevel, in_channels: int, skip_origin: bool = False) -> None:
        super().__init__()
        self.level = level
        self.skip_origin = skip_origin
        self.layers = SharedLayers((3 + in_channels, *level.channels))

    def forward(self, points: Tensor, features: Tensor | None) -> tuple[Tensor, Tensor]:
        """Points (B, N, 3) and features (B, N, C) to centres (B, M, 3) and features (B, M, C')."""
        level = self.level
        centres = gather_rows(points, furthest_point_sample(points, level.points, self.skip_origin))
        group = ball_query(centres, points, level.radius_metres, level.neighbours)
        rows = (gather_rows(points, group) - centres[:, :, None]) / level.radius_metres
        if features is not None:
            rows = torch.cat([rows, gather_rows(features, group)], dim=-1)
        out = self.layers(rows.flatten(0, 2))
        return centres, out.view(*group.shape, -1).amax(2)


class FeaturePropagation(nn.Module):
    """Interpolate coarse features at finer points (three nearest, weighted by inverse distance), concatenate the finer features,
    and apply shared layers."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.layers = SharedLayers(channels)

    def forward(self, fine: Tensor, coarse: Tensor, fine_features: Tensor, coarse_features: Tensor) -> Tensor:
        """Fine and coarse points (B, N, 3), (B, M, 3) and their features (B, N, C), (B, M, D) to features (B, N, C'); M >= 3."""
        squared = _squared(coarse[:, :, None].unbind(3), fine[:, None].unbind(3))
        distance, nearest = squared.transpose(1, 2).topk(3, dim=2, largest=False)
        weight = 1 / (distance.clamp_min(0).sqrt() + 1e-8)
        weight = weight / weight.sum(2, keepdim=True)
        carried = (gather_rows(coarse_features, nearest) * weight[..., None]).sum(2)
        rows = torch.cat([carried, fine_features], dim=2)
        return self.layers(rows.flatten(0, 1)).view(*rows.shape[:2], -1)


class PointNet2(nn.Module):
    """Four set abstractions and two feature propagations on coordinates alone; the output is at the points of level 2."""

    def __init__(self, levels: Sequence[PointLevel], out_channels: int) -> None:
        super().__init__()
        inputs = [0, *(level.channels[-1] for level in levels)]
        self.down = nn.ModuleList(SetAbstraction(level, i) for level, i in zip(levels, inputs, strict=False))
        second, third, fourth = (level.channels[-1] for level in levels[1:4])
        self.up1 = FeaturePropagation((fourth + third, out_channels, out_channels))
        self.up2 = FeaturePropagation((out_channels + second, out_channels, out_channels))

    def forward(self, points: Tensor) -> Tensor:
        """(B, N, 3) points in metres to features (B, points of level 2, out_channels)."""
        places: list[Tensor] = [points]
        features: list[Tensor | None] = [None]
        for layer in self.down:
            place, feature = layer(places[-1], features[-1])
            places.append(place)
            features.append(feature)
        up = self.up1(places[3], places[4], features[3], features[4])
        return self.up2(places[2], places[3], features[2], up)


def votenet_levels(
    counts: Sequence[int], neighbours: Sequence[int], width: float, radius_factor: float = 1.0
) -> list[PointLevel]:
    """VoteNet's four levels with `counts` centres. `width` scales the channels, as in the sparse network, and `radius_factor` the
    radii, which are made for rooms."""
    radii = tuple(radius_factor * r for r in (0.2, 0.4, 0.8, 1.2))
    channels = ((64, 64, 128), (128, 128, 256), (128, 128, 256), (128, 128, 256))
    return [
        PointLevel(count, radius, near, tuple(max(1, round(c * width)) for c in widths))
        for count, radius, near, widths in zip(counts, radii, neighbours, channels, strict=True)
    ]
