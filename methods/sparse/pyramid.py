"""Coordinates and kernel maps of all levels of a U-Net in one pass, with two host synchronisations.

`CoordinateManager` builds each map on request, one offset at a time: 1,074 operations and 76 synchronisations per step
(docs/sparse.md), which dominate a small step on a GPU. Here each voxel of each level gets one integer, with the level in the
highest bits, and the neighbours of all voxels are looked up in one sorted list.
"""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import torch
from torch import Tensor

from pretrain_bench.methods.sparse.kernel_map import kernel_offsets
from pretrain_bench.methods.sparse.partner_map import PartnerMap, offset_masks
from pretrain_bench.methods.sparse.tensor import CoordinateManager, SparseTensor

LEVELS = 5
"""Tensor strides 1, 2, 4, 8 and 16: those of Res16UNet34C (spec A.1)."""
AXIS_BITS, BATCH_BITS = 16, 12
BIAS = 1 << (AXIS_BITS - 1)
LARGEST = BIAS - 2
"""Largest coordinate, in absolute value, on any axis; the numbers of neighbours then do not overflow into the next axis."""
LEVEL_SHIFT = 3 * AXIS_BITS + BATCH_BITS
"""Position of the level in a number, whose bits are, from the highest: level, batch index, x, y, z."""


class PyramidManager(CoordinateManager):
    """A coordinate manager that builds all levels and their maps (3x3x3 within a level, 2x2x2 between neighbouring levels) when
    coordinates of tensor stride 1 are inserted. `CoordinateManager` handles other strides, kernel sizes and dilations."""

    def insert(self, stride: int, coordinates: Tensor) -> None:
        """Register coordinates (N, 4), batch index first. Raises ValueError for duplicates, a second set at one stride, a batch
        index outside 0..4,095, and coordinates outside -32,766..32,766."""
        if stride != 1 or not len(coordinates):
            super().insert(stride, coordinates)
            return
        if self.knows(stride):
            raise ValueError(f"this manager already has coordinates at tensor stride {stride}")
        levels = _levels(coordinates)
        scaled = (levels.units << _constants(coordinates.device).halvings[levels.level]).to(coordinates.dtype)
        coordinates_of = [coordinates, *scaled.split(levels.sizes)[1:]]
        within, between = _neighbours(levels), _children(levels)
        for level in range(LEVELS):
            self._coordinates[1 << level] = coordinates_of[level]
            self._maps[1 << level, 1 << level, 3, 1] = within[level]
        for level, (parents, children) in enumerate(between):
            self._parents[1 << level, 2 << level] = parents
            self._maps[1 << level, 2 << level, 2, 1] = children


class PyramidTensor(SparseTensor):
    """A sparse tensor whose manager builds all levels at once."""

    new_manager = PyramidManager


class _Levels(NamedTuple):
    """The R rows of all levels, stacked with level 0 first.

    units: (R, 4) int64, batch index, and coordinates divided by the level's tensor stride. numbers: (R,) int64, one per row.
    level: (R,) int64. listed: (R,) int64, the sorted numbers. row_of: (R,) int64, for each entry of `listed` the row within
    its level. sizes: rows of each level, on the host; starts: rows before each level, on the device.
    """

    units: Tensor
    numbers: Tensor
    level: Tensor
    listed: Tensor
    row_of: Tensor
    sizes: list[int]
    starts: Tensor


class _Constants(NamedTuple):
    """Small int64 tensors on one device, created once: each creation synchronises with the device."""

    levels: Tensor
    """(LEVELS,)"""
    halvings: Tensor
    """(LEVELS, 4): how often each column is halved to reach a level."""
    shifts: Tensor
    fields: Tensor
    bias: Tensor
    """(4,) each: bit position, mask and bias of batch index, x, y and z in a number."""
    odd: Tensor
    """(4,): the mask of the bits that give a voxel's octant in its parent; none of the batch index."""
    octants: Tensor
    """(4,): the positions of those bits in the offset of a 2x2x2 kernel, x fastest."""
    neighbours: Tensor
    """(27, 1): the difference between the numbers of a neighbour and the voxel, by offset of a 3x3x3 kernel."""


@functools.cache
def _constants(device: torch.device) -> _Constants:
    shifts = [3 * AXIS_BITS, 2 * AXIS_BITS, AXIS_BITS, 0]
    rows = {
        "levels": list(range(LEVELS)),
        "halvings": [[0, level, level, level] for level in range(LEVELS)],
        "shifts": shifts,
        "fields": [(1 << BATCH_BITS) - 1, *3 * [(1 << AXIS_BITS) - 1]],
        "bias": [0, BIAS, BIAS, BIAS],
        "odd": [0, 1, 1, 1],
        "octants": [0, 0, 1, 2],
        "neighbours": (kernel_offsets(3) << torch.tensor(shifts[1:])).sum(1, keepdim=True).tolist(),
    }
    return _Constants(**{name: torch.tensor(values, device=device) for name, values in rows.items()})


def _numbers(level: Tensor, units: Tensor, constants: _Constants) -> Tensor:
    """(...) int64: one number per row of units (..., 4), which sort by level, batch index, x, y and z."""
    return ((units + constants.bias) << constants.shifts).sum(-1).add_(level << LEVEL_SHIFT)


def _levels(coordinates: Tensor) -> _Levels:
    constants, count = _constants(coordinates.device), len(coordinates)
    base = coordinates.to(torch.int64)
    # A right shift rounds down for negative numbers too.
    numbers = _numbers(constants.levels[:, None], base >> constants.halvings[:, None], constants)
    in_order, places = numbers.sort(dim=1)
    is_first = torch.ones_like(in_order, dtype=torch.bool)
    torch.ne(in_order[:, 1:], in_order[:, :-1], out=is_first[:, 1:])
    ranks = is_first.cumsum(1)
    on_device = ranks[:, -1].clone()
    sizes = _checked_sizes(torch.cat([on_device, *torch.aminmax(base, dim=0)]).tolist(), count)
    total = sum(sizes)
    starts = on_device.cumsum(0).sub_(on_device)
    # Voxels with equal numbers write to the same place.
    listed = in_order.new_empty(total)
    listed.scatter_(0, ranks.add_((starts - 1)[:, None]).view(-1), in_order.view(-1))
    level = torch.repeat_interleave(constants.levels, on_device, output_size=total)
    row_of = torch.arange(total, device=base.device).sub_(starts[level])
    row_of[:count] = places[0]
    coarse = listed[count:]
    units = ((coarse[:, None] >> constants.shifts) & constants.fields).sub_(constants.bias)
    return _Levels(torch.cat([base, units]), torch.cat([numbers[0], coarse]), level, listed, row_of, sizes, starts)


def _checked_sizes(values: list[int], count: int) -> list[int]:
    """The number of rows of each level. `values` holds these numbers, then the minimum and the maximum of each column of the
    coordinates, which are checked."""
    sizes, low, high = values[:LEVELS], values[LEVELS : LEVELS + 4], values[LEVELS + 4 :]
    if low[0] < 0 or high[0] >> BATCH_BITS:
        raise ValueError(f"batch indices {low[0]} to {high[0]}: this backend supports 0 to {(1 << BATCH_BITS) - 1}")
    if min(low[1:]) < -LARGEST or max(high[1:]) > LARGEST:
        raise ValueError(
            f"coordinates {low[1:]} to {high[1:]}: this backend supports {-LARGEST} to {LARGEST} on each axis"
        )
    if sizes[0] != count:
        raise ValueError(f"{count - sizes[0]} of {count} coordinates are duplicates; quantise first")
    return sizes


def _neighbours(levels: _Levels) -> list[PartnerMap]:
    """For each level, the map of a 3x3x3 kernel of stride 1."""
    wanted = levels.numbers + _constants(levels.numbers.device).neighbours
    places = torch.searchsorted(levels.listed, wanted).clamp_(max=len(levels.listed) - 1)
    has_partner = levels.listed[places] == wanted
    table = torch.where(has_partner, levels.row_of[places], -1).to(torch.int32)
    counts = has_partner.sum(0)
    pairs = counts.new_zeros(LEVELS).index_add_(0, levels.level, counts).tolist()
    parts = zip(_split(table, has_partner, levels.level, levels.sizes), levels.sizes, pairs, strict=True)
    return [PartnerMap(*part, rows, count, is_symmetric=True) for part, rows, count in parts]


def _children(levels: _Levels) -> list[tuple[Tensor, PartnerMap]]:
    """For each level but the coarsest, the parents (N,) int64 in the next level, and the map of a 2x2x2 kernel of stride 2."""
    constants = _constants(levels.numbers.device)
    fine_sizes, coarse_sizes, count = levels.sizes[:-1], levels.sizes[1:], sum(levels.sizes[:-1])
    units, level = levels.units[:count], levels.level[:count]
    places = torch.searchsorted(levels.listed, _numbers(level + 1, units >> constants.odd, constants))
    parents = levels.row_of[places]
    offsets = ((units & constants.odd) << constants.octants).sum(1)
    rows = torch.arange(count, device=units.device)
    down = torch.full((8, sum(coarse_sizes)), -1, dtype=torch.int32, device=units.device)
    down[offsets, places - levels.sizes[0]] = (rows - levels.starts[level]).to(torch.int32)
    up = torch.full((8, count), -1, dtype=torch.int32, device=units.device)
    up[offsets, rows] = parents.to(torch.int32)
    to_coarse = _split(down, down >= 0, levels.level[levels.sizes[0] :], coarse_sizes)
    to_fine = _split(up, up >= 0, level, fine_sizes)
    children = []
    for part, back, fine, coarse in zip(to_coarse, to_fine, fine_sizes, coarse_sizes, strict=True):
        # Each voxel has one parent, so the number of pairs is that of the finer voxels.
        children.append(PartnerMap(*part, fine, fine, is_symmetric=False))
        children[-1].mirror_of(PartnerMap(*back, coarse, fine, is_symmetric=False))
    return list(zip(parents.split(fine_sizes), children, strict=True))


def _split(table: Tensor, has_partner: Tensor, level: Tensor, sizes: list[int]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Table, order and masks of each level, from tables (K, R) side by side. One sort, by level and then mask, serves all."""
    masks = offset_masks(has_partner)
    order = torch.argsort((level << 32).add_(masks), stable=True)
    starts = itertools.accumulate(sizes[:-1], initial=0)
    parts = zip(table.split(sizes, 1), order.split(sizes), masks.split(sizes), starts, strict=True)
    return [(part, rows - start, mask) for part, rows, mask, start in parts]
