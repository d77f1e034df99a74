"""Local and global pooling over existing voxels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pretrain_bench.methods.sparse.tensor import SparseTensor

Reduce = Callable[[Tensor, Tensor, int], Tensor]


def _sum(values: Tensor, rows: Tensor, out_rows: int) -> Tensor:
    return values.new_zeros((out_rows, values.shape[1])).index_add(0, rows, values)


def _mean(values: Tensor, rows: Tensor, out_rows: int) -> Tensor:
    counts = torch.bincount(rows, minlength=out_rows).to(values.dtype)
    return _sum(values, rows, out_rows) / counts[:, None]


def _max(values: Tensor, rows: Tensor, out_rows: int) -> Tensor:
    """Maximum per output row. The gradient goes to the largest value; ties go to the first row."""
    with torch.no_grad():
        index = rows[:, None].expand_as(values)
        largest = values.new_full((out_rows, values.shape[1]), -torch.inf).scatter_reduce(0, index, values, "amax")
        places = torch.arange(len(values), device=values.device)[:, None].expand_as(values)
        candidates = torch.where(values == largest[rows], places, len(values))
        first = places.new_full((out_rows, values.shape[1]), len(values)).scatter_reduce(0, index, candidates, "amin")
    return values.gather(0, first)


class _LocalPooling(nn.Module):
    reduce: Reduce

    def __init__(self, kernel_size: int, stride: int = 1, dilation: int = 1, dimension: int = 3) -> None:
        super().__init__()
        if dimension != 3:
            raise ValueError(f"only three dimensions are supported, not {dimension}")
        self.kernel_size, self.pool_stride, self.dilation = kernel_size, stride, dilation

    def forward(self, x: SparseTensor) -> SparseTensor:
        manager = x.coordinate_manager
        out_stride = manager.down(x.stride, self.pool_stride)
        kernel_map = manager.kernel_map(x.stride, out_stride, self.kernel_size, self.dilation)
        pooled = self.reduce(x.F[kernel_map.in_rows], kernel_map.out_rows, len(manager.coordinates(out_stride)))
        return SparseTensor(pooled, tensor_stride=out_stride, coordinate_manager=manager)


class MinkowskiSumPooling(_LocalPooling):
    """Sum over the existing inputs of each window."""

    reduce = staticmethod(_sum)


class MinkowskiAvgPooling(_LocalPooling):
    """Mean over the existing inputs of each window."""

    reduce = staticmethod(_mean)


class MinkowskiMaxPooling(_LocalPooling):
    """Maximum over the existing inputs of each window."""

    reduce = staticmethod(_max)


class _GlobalPooling(nn.Module):
    reduce: Reduce

    def forward(self, x: SparseTensor) -> SparseTensor:
        """One row per batch item, ordered by batch index, at coordinates (b, 0, 0, 0)."""
        items, rows = torch.unique(x.C[:, 0], return_inverse=True)
        coordinates = torch.zeros((len(items), 4), dtype=x.C.dtype, device=x.C.device)
        coordinates[:, 0] = items
        return SparseTensor(self.reduce(x.F, rows, len(items)), coordinates)


class MinkowskiGlobalSumPooling(_GlobalPooling):
    """Sum over all voxels of each batch item."""

    reduce = staticmethod(_sum)


class MinkowskiGlobalAvgPooling(_GlobalPooling):
    """Mean over all voxels of each batch item."""

    reduce = staticmethod(_mean)


class MinkowskiGlobalMaxPooling(_GlobalPooling):
    """Maximum over all voxels of each batch item."""

    reduce = staticmethod(_max)
