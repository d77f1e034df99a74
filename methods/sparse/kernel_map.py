"""Which input voxel meets which output voxel under which kernel offset.

Offsets follow MinkowskiEngine's hypercube order (spec A.6): x fastest, then y, then z; odd kernels are centred, even ones
start at 0. Everything here is exact integer arithmetic and independent of row order, on any device.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor

# Below this many cells a dense table is the quickest way from a coordinate to its row (int32, so 64 MiB at most).
TABLE_CELLS = 1 << 24


BLOCK_NUMBERS = 4096 * 96
"""Numbers of a block of rows that is worked on together: 1.5 MB of float32, which stays in the cache."""


class Run(NamedTuple):
    """The pairs of one offset within a block: input rows and output rows, int64, and where the run lies among all pairs of
    the offset (which for an identity are the rows themselves)."""

    offset: int
    ins: Tensor
    outs: Tensor
    start: int
    stop: int


Block = list[Run]


class KernelMap:
    """Pairs of rows for each kernel offset, grouped by offset.

    in_rows, out_rows: (P,) int64; the pairs of offset k are those from starts[k] to starts[k + 1]. `identity` is the
    offset that maps every row to itself (the centre of an odd kernel of stride 1), or -1.
    """

    is_table = False
    """Whether `partners` costs nothing, but pairs have to be made."""

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
        """The map of the transposed convolution: input and output swapped, the same offset index."""
        if self._transposed is None:
            self._transposed = KernelMap(self.out_rows, self.in_rows, self.starts, self.identity)
            self._transposed._transposed = self
        return self._transposed

    def partners(self, out_rows: int, in_rows: int) -> Tensor:
        """(out_rows * K,) int64: the input row of every output row and offset, `in_rows` where there is none."""
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
        """All pairs in blocks of output rows, offsets in order within each: at least `shares` blocks, and none with more rows
        than `channels` allow.

        Where the output rows of an offset are not in ascending order there is one block only.
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
        """For each offset, the first pair of every block, and the end."""
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
    """(K, 3) int64 offsets, x fastest."""
    low = -(kernel_size // 2) if kernel_size % 2 else 0
    axis = torch.arange(low, low + kernel_size, dtype=torch.int64, device=device)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return torch.stack([x.reshape(-1), y.reshape(-1), z.reshape(-1)], dim=1)


class CoordinateIndex:
    """Finds the rows of coordinates (N, 4), batch index first, any sign, and of their neighbours up to `reach` away.

    Raises ValueError for duplicates.
    """

    def __init__(self, coordinates: Tensor, reach: int) -> None:
        wide = coordinates.to(torch.int64)
        self.reach = reach
        if len(wide):
            self.low = wide.min(dim=0).values
            high = wide.max(dim=0).values
        else:
            self.low = high = torch.zeros(4, dtype=torch.int64, device=wide.device)
        # A query lies at most `reach` outside of the coordinates, and its neighbours at most `reach` further: with twice
        # that as margin on both sides of every spatial axis a neighbour's key never wraps round.
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
        """Prepare coordinates (M, 4) whose neighbours are to be found; those out of range simply have none."""
        shifted = coordinates.to(torch.int64)
        top = self.low + torch.tensor(self.extent, device=shifted.device) - 1
        inner = torch.tensor([0, self.reach, self.reach, self.reach], device=shifted.device)
        inside = ((shifted >= self.low + inner) & (shifted <= top - inner)).all(dim=1)
        rows = None if bool(inside.all()) else inside.nonzero().reshape(-1)
        return Query(self, self._keys(shifted if rows is None else shifted[rows]), rows)

    def find(self, keys: Tensor) -> Tensor:
        """(M,) int64 rows of keys, -1 where there is none."""
        if self.table is not None:
            return self.table[keys].to(torch.int64)
        if not len(self.sorted_keys):
            return torch.full_like(keys, -1)
        position = torch.searchsorted(self.sorted_keys, keys).clamp_(max=len(self.sorted_keys) - 1)
        return torch.where(self.sorted_keys[position] == keys, self.sorted_rows[position], -1)


class Query(NamedTuple):
    """Keys of coordinates, ready to be shifted by offsets; `rows` maps them back where some were out of range."""

    found_in: CoordinateIndex
    keys: Tensor
    rows: Tensor | None

    def neighbours(self, offset: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        """(found rows of the index, rows of the query), for coordinates shifted by `offset`."""
        _, _, ey, ez = self.found_in.extent
        delta = (offset[0] * ey + offset[1]) * ez + offset[2]
        matches = self.found_in.find(self.keys + delta)
        here = (matches >= 0).nonzero().reshape(-1)
        return matches[here], here if self.rows is None else self.rows[here]


def search_map(in_coordinates: Tensor, out_coordinates: Tensor, kernel_size: int, step: int, same: bool) -> KernelMap:
    """All (input, output, offset) with input = output + offset * step, for any kernel.

    `step` is the input's tensor stride times the dilation; `same` says that both coordinate lists are one and the same,
    which halves the work for odd kernels: the pairs of the opposite offset are the same pairs swapped.
    """
    offsets = kernel_offsets(kernel_size).tolist()
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
    """Distinct floor(c / stride) * stride, sorted by (b, x, y, z), and the (N,) row of each coordinate among them.

    `stride` is the output's tensor stride; the batch index is not touched.
    """
    coarse = coordinates.to(torch.int64).clone()
    coarse[:, 1:] = torch.div(coarse[:, 1:], stride, rounding_mode="floor")
    if not len(coarse):
        return coordinates.clone(), torch.zeros(0, dtype=torch.int64, device=coordinates.device)
    # One number for each coordinate: sorting numbers is many times quicker than sorting rows.
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
    """The map of a convolution whose kernel size equals its stride: each input voxel has exactly one output voxel."""
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
