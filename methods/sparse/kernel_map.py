"""Kernel maps: the pairs of input and output voxels for each kernel offset.

Offsets follow MinkowskiEngine's hypercube order (spec A.6): x fastest, then y, then z; odd kernels are centred, even kernels
start at 0. All arithmetic is on integers and exact, on any device.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor

TABLE_CELLS = 1 << 24
"""Up to this number of cells a dense table maps coordinates to rows fastest (int32, so at most 64 MiB)."""

BLOCK_NUMBERS = 4096 * 96
"""Numbers in a block of rows that is processed at once: 1.5 MB of float32, to stay in the cache."""


class Run(NamedTuple):
    """The pairs of one offset within a block: input and output rows (int64), and their range start..stop among all pairs of the
    offset. For the identity offset this is the range of rows."""

    offset: int
    ins: Tensor
    outs: Tensor
    start: int
    stop: int


Block = list[Run]


class KernelMap:
    """Pairs of rows for each kernel offset, grouped by offset.

    in_rows, out_rows: (P,) int64; offset k has the pairs starts[k]:starts[k + 1]. `identity` is the offset that maps every row to
    itself (the centre of an odd kernel of stride 1), or -1.
    """

    is_table = False
    """Whether the map is stored as a table of partners, from which pairs must be computed."""

    def __init__(self, in_rows: Tensor, out_rows: Tensor, starts: tuple[int, ...], identity: int) -> None:
        self.in_rows, self.out_rows, self.starts, self.identity = in_rows, out_rows, starts, identity
        self._transposed: KernelMap | None = None
        self._blocks: dict[tuple[int, int], list[Block]] = {}
        self._partners: dict[tuple[int, int], Tensor] = {}

    @property
    def pairs(self) -> int:
        """Number of (input, output, offset) triples."""
        return self.starts[-1]

    def transposed(self) -> KernelMap:
        """The map of the transposed convolution: input and output swapped, offset indices unchanged."""
        if self._transposed is None:
            self._transposed = KernelMap(self.out_rows, self.in_rows, self.starts, self.identity)
            self._transposed._transposed = self
        return self._transposed

    def partners(self, out_rows: int, in_rows: int) -> Tensor:
        """(out_rows * K,) int64: the input row for each output row and offset, or `in_rows` if there is none."""
        size = (out_rows, in_rows)
        if size not in self._partners:
            count = len(self.starts) - 1
            table = torch.full((out_rows * count,), in_rows, dtype=torch.int64, device=self.out_rows.device)
            sizes = torch.tensor([b - a for a, b in itertools.pairwise(self.starts)], device=table.device)
            offset_of = torch.repeat_interleave(torch.arange(count, device=table.device), sizes)
            table[self.out_rows * count + offset_of] = self.in_rows
            self._partners[size] = table
        return self._partners[size]

    def blocks(self, channels: int, shares: int = 1) -> list[Block]:
        """All pairs in blocks of consecutive output rows, with offsets in order within each. A block spans at most a `shares`-th
        of the rows, rounded up, and at most BLOCK_NUMBERS / `channels` rows.

        If the output rows of an offset are not in ascending order, there is only one block.
        """
        key = (channels, shares)
        if key not in self._blocks:
            cuts = self._cuts(channels, shares)
            lengths = [b - a for places in cuts for a, b in itertools.pairwise(places)]
            ins, outs = iter(self.in_rows.split(lengths)), iter(self.out_rows.split(lengths))
            blocks: list[Block] = [[] for _ in range(len(cuts[0]) - 1)]
            for k, places in enumerate(cuts):
                for block, (a, b) in zip(blocks, itertools.pairwise(places), strict=True):
                    run = Run(k, next(ins), next(outs), a - self.starts[k], b - self.starts[k])
                    if b > a:
                        block.append(run)
            self._blocks[key] = blocks
        return self._blocks[key]

    def _cuts(self, channels: int, shares: int) -> list[list[int]]:
        """For each offset, the first pair of every block, and the end of the last."""
        rows = self.out_rows
        whole = [[a, b] for a, b in itertools.pairwise(self.starts)]
        if not len(rows):
            return whole
        starts = torch.tensor(self.starts)
        offset_of = torch.repeat_interleave(torch.arange(len(whole)), starts[1:] - starts[:-1])
        span = int(rows.max()) + 1
        keys = offset_of * span + rows
        if not bool((keys[1:] > keys[:-1]).all()):
            return whole
        block_rows = max(1, min(BLOCK_NUMBERS // channels, -(-span // shares)))
        bounds = torch.arange(0, span + block_rows, block_rows).clamp_(max=span)
        wanted = torch.arange(len(whole))[:, None] * span + bounds
        return torch.searchsorted(keys, wanted).tolist()


def kernel_offsets(kernel_size: int, device: torch.device | str = "cpu") -> Tensor:
    """(K, 3) int64 offsets (x, y, z) of a cubic kernel, x fastest."""
    low = -(kernel_size // 2) if kernel_size % 2 else 0
    axis = torch.arange(low, low + kernel_size, dtype=torch.int64, device=device)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return torch.stack([x.reshape(-1), y.reshape(-1), z.reshape(-1)], dim=1)


class CoordinateIndex:
    """Maps coordinates (N, 4), batch index first, any sign, to their rows; neighbours up to `reach` away can be queried.

    Raises ValueError for duplicates, and if the bounding box has too many cells to number.
    """

    def __init__(self, coordinates: Tensor, reach: int) -> None:
        wide = coordinates.to(torch.int64)
        self.reach = reach
        if len(wide):
            self.low = wide.min(dim=0).values
            high = wide.max(dim=0).values
        else:
            self.low = high = torch.zeros(4, dtype=torch.int64, device=wide.device)
        # A query is at most `reach` outside of the coordinates, and its neighbours at most `reach` further: a margin of twice
        # that on both sides of each spatial axis keeps a neighbour's key from wrapping around.
        margin = 2 * torch.tensor([0, reach, reach, reach], device=wide.device)
        self.low = self.low - margin
        self.extent = [int(v) for v in (high + margin - self.low + 1).tolist()]
        cells = 1
        for size in self.extent:
            cells *= size
        if cells >= 2**62:
            raise ValueError(f"coordinates span {self.extent} cells (batch, x, y, z), too many to number")
        keys = self._keys(wide)
        if cells <= TABLE_CELLS:
            self.table: Tensor | None = torch.full((cells,), -1, dtype=torch.int32, device=wide.device)
            rows = torch.arange(len(keys), dtype=torch.int32, device=wide.device)
            self.table[keys] = rows
            duplicates = len(keys) - int((self.table[keys] == rows).sum())
        else:
            self.table = None
            self.sorted_keys, self.sorted_rows = torch.sort(keys, stable=True)
            duplicates = int((self.sorted_keys[1:] == self.sorted_keys[:-1]).sum())
        if duplicates:
            raise ValueError(f"{duplicates} of {len(keys)} coordinates are duplicates; quantise first")

    def _keys(self, coordinates: Tensor) -> Tensor:
        shifted = coordinates - self.low
        _, ex, ey, ez = self.extent
        return ((shifted[:, 0] * ex + shifted[:, 1]) * ey + shifted[:, 2]) * ez + shifted[:, 3]

    def query(self, coordinates: Tensor) -> Query:
        """Prepare coordinates (M, 4) for neighbour queries; those out of range have no neighbours."""
        shifted = coordinates.to(torch.int64)
        top = self.low + torch.tensor(self.extent, device=shifted.device) - 1
        inner = torch.tensor([0, self.reach, self.reach, self.reach], device=shifted.device)
        inside = ((shifted >= self.low + inner) & (shifted <= top - inner)).all(dim=1)
        rows = None if bool(inside.all()) else inside.nonzero().reshape(-1)
        return Query(self, self._keys(shifted if rows is None else shifted[rows]), rows)

    def find(self, keys: Tensor) -> Tensor:
        """(M,) int64 rows of keys, -1 for unknown ones."""
        if self.table is not None:
            return self.table[keys].to(torch.int64)
        if not len(self.sorted_keys):
            return torch.full_like(keys, -1)
        position = torch.searchsorted(self.sorted_keys, keys).clamp_(max=len(self.sorted_keys) - 1)
        return torch.where(self.sorted_keys[position] == keys, self.sorted_rows[position], -1)


class Query(NamedTuple):
    """Keys of coordinates that can be shifted by offsets; `rows` are their rows in the query if some were out of range."""

    found_in: CoordinateIndex
    keys: Tensor
    rows: Tensor | None

    def neighbours(self, offset: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        """(rows of the index, rows of the query) that match after the query is shifted by `offset`."""
        _, _, ey, ez = self.found_in.extent
        delta = (offset[0] * ey + offset[1]) * ez + offset[2]
        matches = self.found_in.find(self.keys + delta)
        here = (matches >= 0).nonzero().reshape(-1)
        return matches[here], here if self.rows is None else self.rows[here]


def search_map(in_coordinates: Tensor, out_coordinates: Tensor, kernel_size: int, step: int, same: bool) -> KernelMap:
    """The map of any kernel: all (input, output, offset) with input = output + offset * step.

    Coordinates are (N, 4) and (M, 4). `step` is the input's tensor stride times the dilation. `same` states that both lists are
    identical, which halves the work for odd kernels: opposite offsets have the same pairs, swapped. Raises ValueError for
    duplicates.
    """
    offsets = kernel_offsets(kernel_size).tolist()
    if step > 1 and not any(bool((c[:, 1:] % step).any()) for c in (in_coordinates, out_coordinates)):
        # In units of the step, the table of a coarse level has few cells to fill.
        unit = torch.tensor([1, step, step, step], device=in_coordinates.device)
        in_coordinates = torch.div(in_coordinates, unit, rounding_mode="floor")
        out_coordinates, step = torch.div(out_coordinates, unit, rounding_mode="floor"), 1
    reach = step * (kernel_size // 2 if kernel_size % 2 else kernel_size - 1)
    index = CoordinateIndex(in_coordinates, reach)
    query = index.query(out_coordinates)
    symmetric = same and kernel_size % 2 == 1
    partners: list[tuple[Tensor, Tensor]] = [(torch.empty(0), torch.empty(0))] * len(offsets)
    centre = len(offsets) // 2
    for k, (x, y, z) in enumerate(offsets):
        if symmetric and k > centre:
            inputs, here = partners[len(offsets) - 1 - k]
            partners[k] = (here, inputs)
        elif symmetric and k == centre:
            rows = torch.arange(len(out_coordinates), device=out_coordinates.device)
            partners[k] = (rows, rows)
        else:
            partners[k] = query.neighbours((x * step, y * step, z * step))
    return _join(partners, centre if symmetric else -1)


def stride_coordinates(coordinates: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """The distinct floor(c / stride) * stride of coordinates (N, 4), sorted by (b, x, y, z), and the (N,) row of each among them.

    `stride` is the output's tensor stride; the batch index is not divided.
    """
    coarse = coordinates.to(torch.int64).clone()
    coarse[:, 1:] = torch.div(coarse[:, 1:], stride, rounding_mode="floor")
    if not len(coarse):
        return coordinates.clone(), torch.zeros(0, dtype=torch.int64, device=coordinates.device)
    # One number per coordinate: sorting numbers is many times faster than sorting rows.
    low = coarse.min(dim=0).values
    shifted = coarse - low
    _, ex, ey, ez = (int(v) for v in (shifted.max(dim=0).values + 1).tolist())
    keys = ((shifted[:, 0] * ex + shifted[:, 1]) * ey + shifted[:, 2]) * ez + shifted[:, 3]
    distinct, rows = torch.unique(keys, return_inverse=True)
    columns = [distinct // (ex * ey * ez), distinct // (ey * ez) % ex, distinct // ez % ey, distinct % ez]
    strided = torch.stack(columns, dim=1) + low
    strided[:, 1:] *= stride
    return strided.to(coordinates.dtype), rows


def partition_map(coordinates: Tensor, coarse: Tensor, parents: Tensor, kernel_size: int, step: int) -> KernelMap:
    """The map of a convolution whose kernel size equals its stride, so that each input voxel has exactly one output voxel.

    `parents` (N,) are the rows of the coordinates (N, 4) in `coarse` (M, 4); `step` is the input's tensor stride.
    """
    local = torch.div((coordinates - coarse[parents])[:, 1:].to(torch.int64), step, rounding_mode="floor")
    k = local[:, 0] + kernel_size * (local[:, 1] + kernel_size * local[:, 2])
    order = torch.argsort(k, stable=True)
    counts = torch.bincount(k, minlength=kernel_size**3).tolist()
    starts = [0]
    for count in counts:
        starts.append(starts[-1] + count)
    return KernelMap(order, parents[order], tuple(starts), -1)


def _join(partners: list[tuple[Tensor, Tensor]], identity: int) -> KernelMap:
    starts = [0]
    for rows, _ in partners:
        starts.append(starts[-1] + len(rows))
    return KernelMap(torch.cat([f[0] for f in partners]), torch.cat([f[1] for f in partners]), tuple(starts), identity)
