"""A kernel map stored as a table: the input row for each offset and output row."""

from __future__ import annotations

import torch
from torch import Tensor

from pretrain_bench.methods.sparse.kernel_map import KernelMap


class PartnerMap(KernelMap):
    """`table[k, o]` is the input row of output row o at offset k, its partner, or -1: (K, N) int32, K at most 31.

    masks: (N,) int32, bit k is set if offset k has a partner. order: (N,) int64, the output rows sorted by mask, ties by row.
    in_count: the number of input rows. pairs: the number of partners. `is_symmetric`: input and output rows are identical, and
    if q is the partner of row o at offset k, o is that of q at offset K - 1 - k.

    The lists of pairs of `KernelMap` are computed from the table on each access.
    """

    is_table = True
    identity = -1
    """No offset is handled separately: one product covers all."""

    def __init__(
        self, table: Tensor, order: Tensor, masks: Tensor, in_count: int, pairs: int, is_symmetric: bool
    ) -> None:
        self.table, self.order, self.masks, self.in_count = table, order, masks, in_count
        self._pairs, self.is_symmetric = pairs, is_symmetric
        self._mirror: PartnerMap | None = None

    @property
    def pairs(self) -> int:
        """Number of (input, output, offset) triples."""
        return self._pairs

    @property
    def starts(self) -> tuple[int, ...]:  # type: ignore[override]
        """The first pair of each offset, and the number of pairs."""
        counts = (self.table >= 0).sum(1).cumsum(0)
        return (0, *counts.tolist())

    @property
    def in_rows(self) -> Tensor:  # type: ignore[override]
        """(P,) int64 input rows, by offset, then by output row."""
        return self.table[self.table >= 0].to(torch.int64)

    @property
    def out_rows(self) -> Tensor:  # type: ignore[override]
        """(P,) int64 output rows, by offset, then by output row."""
        return (self.table >= 0).nonzero()[:, 1]

    def transposed(self) -> PartnerMap:
        """The map of the transposed convolution: input and output swapped, offset indices unchanged."""
        if self._mirror is None:
            assert self.is_symmetric
            table = self.table.flip(0)
            order, masks = sorted_by_mask(table)
            self.mirror_of(PartnerMap(table, order, masks, self.table.shape[1], self.pairs, True))
        assert self._mirror is not None
        return self._mirror

    def mirror_of(self, other: PartnerMap) -> None:
        """Register this map and `other` as each other's transpose."""
        self._mirror, other._mirror = other, self

    def partners(self, out_rows: int, in_rows: int) -> Tensor:
        """(out_rows * K,) int64: the input row for each output row and offset, or `in_rows` if there is none."""
        rows = self.table.t().reshape(-1).to(torch.int64)
        return torch.where(rows < 0, in_rows, rows)


def offset_masks(has_partner: Tensor) -> Tensor:
    """(N,) int32 masks of `has_partner` (K, N) bool: bit k of row n is `has_partner[k, n]`."""
    bits = torch.arange(len(has_partner), dtype=torch.int32, device=has_partner.device)
    return (has_partner.to(torch.int32) << bits[:, None]).sum(0, dtype=torch.int32)


def sorted_by_mask(table: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of a table (K, N) sorted by mask, ties by row, (N,) int64; and the masks, unsorted, (N,) int32."""
    masks = offset_masks(table >= 0)
    return torch.argsort(masks, stable=True), masks
