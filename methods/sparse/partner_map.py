"""A kernel map as a table: the input row of every offset and output row."""

from __future__ import annotations

import torch
from torch import Tensor

from pretrain_bench.methods.sparse.kernel_map import KernelMap


class PartnerMap(KernelMap):
    """`table[k, o]` is the input row that output row o meets under offset k, or -1: (K, N) int32, K at most 31.

    masks: (N,) int32, bit k set where offset k has a partner. order: (N,) int64, the output rows sorted by mask, ties by row.
    in_count: the number of input rows. pairs: the number of partners. `is_symmetric` says that rows of input and output are
    the same and that offset k of one row is offset K - 1 - k of its partner.

    The lists of pairs that `KernelMap` holds are made from the table where a layer asks for them.
    """

    is_table = True
    identity = -1
    """No offset is treated apart: one product serves all."""

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
        """The first pair of every offset, and the end."""
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
        """The map of the transposed convolution: input and output swapped, the same offset index."""
        if self._mirror is None:
            assert self.is_symmetric
            table = self.table.flip(0)
            order, masks = sorted_by_mask(table)
            self.mirror_of(PartnerMap(table, order, masks, self.table.shape[1], self.pairs, True))
        assert self._mirror is not None
        return self._mirror

    def mirror_of(self, other: PartnerMap) -> None:
        """Make two maps each other's transpose."""
        self._mirror, other._mirror = other, self

    def partners(self, out_rows: int, in_rows: int) -> Tensor:
        """(out_rows * K,) int64: the input row of every output row and offset, `in_rows` where there is none."""
        rows = self.table.t().reshape(-1).to(torch.int64)
        return torch.where(rows < 0, in_rows, rows)


def offset_masks(has_partner: Tensor) -> Tensor:
    """(N,) int32, bit k set where `has_partner[k]` is: (K, N) bool."""
    bits = torch.arange(len(has_partner), dtype=torch.int32, device=has_partner.device)
    return (has_partner.to(torch.int32) << bits[:, None]).sum(0, dtype=torch.int32)


def sorted_by_mask(table: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of a table sorted by mask, ties by row, (N,) int64; and their masks in the order of rows, (N,) int32."""
    masks = offset_masks(table >= 0)
    return torch.argsort(masks, stable=True), masks
