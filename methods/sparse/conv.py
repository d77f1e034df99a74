"""Sparse convolution and its transpose, with hand-written gradients.

Kernel layout `kernel[k, c_in, c_out]`; a 1x1x1 kernel of stride 1 is a (c_in, c_out) matrix (spec A.6). The order of sums is
fixed for a given number of threads, so a result does not depend on scheduling.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pretrain_bench.methods.flops import flops
from pretrain_bench.methods.sparse.kernel_map import Block, KernelMap
from pretrain_bench.methods.sparse.tensor import SparseTensor
from pretrain_bench.methods.sparse.workers import grouped, groups_for, share


def as_autocast(features: Tensor) -> Tensor:
    """Cast to autocast's dtype if autocast is on; float64 is never cast."""
    kind = features.device.type
    if features.dtype == torch.float64 or not torch.is_autocast_enabled(kind):
        return features
    return features.to(torch.get_autocast_dtype(kind))


def _zeros_for_sums(shape: Sequence[int], like: Tensor) -> Tensor:
    """Zeros to sum over offsets in: float32, even if the products are in half precision, or the wider dtype of `like`."""
    return like.new_zeros(shape, dtype=torch.promote_types(like.dtype, torch.float32))


class _Convolve(torch.autograd.Function):
    """out[o] = sum of features[i] @ kernel[k] over all offsets k and their pairs (i, o)."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, kernel: Tensor, kernel_map: KernelMap, out_rows: int) -> Tensor:
        ctx.save_for_backward(features, kernel)
        ctx.map = kernel_map
        if _better_padded(kernel_map, out_rows, kernel):
            return _padded_product(features, kernel_map, out_rows, kernel)
        out = _zeros_for_sums((out_rows, kernel.shape[2]), features)
        groups = _groups(kernel_map, kernel)
        kernels = kernel.unbind()

        def walk(group: int) -> None:
            for k, ins, outs, start, stop in itertools.chain.from_iterable(groups[group]):
                if k == kernel_map.identity:
                    _add_product(out[start:stop], features[start:stop], kernels[k])
                else:
                    out.index_add_(0, outs, features.index_select(0, ins).mm(kernels[k]).to(out.dtype))

        share(walk, len(groups))
        return out.to(features.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        features, kernel = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        back = ctx.map.transposed()
        if _better_padded(ctx.map, len(gradient), kernel):
            grad_features = grad_kernel = None
            if ctx.needs_input_grad[0]:
                grad_features = _padded_product(gradient, back, len(features), kernel.transpose(1, 2))
            if ctx.needs_input_grad[1]:
                grad_kernel = _padded_kernel_gradient(features, ctx.map, gradient, kernel)
            return grad_features, grad_kernel, None, None
        wanted = ctx.needs_input_grad
        grad_features = _zeros_for_sums(features.shape, features) if wanted[0] else None
        groups = _groups(back, kernel)
        kernels = kernel.transpose(1, 2).unbind()
        # Groups write disjoint input rows. The kernel's gradient is summed within each group, then over groups in order.
        sums_of_groups = [_zeros_for_sums(kernel.shape, kernel) if wanted[1] else None for _ in groups]

        def walk(group: int) -> None:
            total = sums_of_groups[group]
            sums = None if total is None else total.unbind()
            # One pass over blocks of input rows: each gathered part of the gradient serves both products.
            for k, outs, ins, start, stop in itertools.chain.from_iterable(groups[group]):
                if k == back.identity:
                    upper, lower = gradient[start:stop], features[start:stop]
                    if grad_features is not None:
                        _add_product(grad_features[start:stop], upper, kernels[k])
                else:
                    upper = gradient.index_select(0, outs)
                    if grad_features is not None:
                        grad_features.index_add_(0, ins, upper.mm(kernels[k]).to(grad_features.dtype))
                    lower = features.index_select(0, ins) if sums is not None else upper
                if sums is not None:
                    _add_product(sums[k], lower.t(), upper)

        share(walk, len(groups))
        grad_kernel = None
        if wanted[1]:
            grad_kernel = functools.reduce(Tensor.add_, [t for t in sums_of_groups if t is not None]).to(kernel.dtype)
        return None if grad_features is None else grad_features.to(features.dtype), grad_kernel, None, None


def _add_product(to: Tensor, left: Tensor, right: Tensor) -> None:
    if to.dtype == left.dtype:
        to.addmm_(left, right)
    else:
        to.add_(left.mm(right))


def _groups(kernel_map: KernelMap, kernel: Tensor) -> list[list[Block]]:
    """The blocks of a convolution, in the groups that threads process."""
    groups = groups_for(kernel_map.pairs * kernel.shape[1] * kernel.shape[2])
    return grouped(kernel_map.blocks(max(kernel.shape[1:]), groups), groups)


PADDING_ALLOWED = 12_000_000
"""Multiply-adds on padding that cost as much as the calls of a loop over 27 offsets, forward and backward."""
MOST_COLUMNS = 64_000_000
"""The most gathered numbers in memory at once (256 MB of float32)."""


def _better_padded(kernel_map: KernelMap, out_rows: int, kernel: Tensor) -> bool:
    """Whether to use one product over all offsets, with zeros for missing partners, instead of a loop over offsets.

    It is faster on small and coarse tensors, where call overhead dominates. On a GPU it is always used: its order of sums is
    fixed, and up to 200,000 voxels it is also faster (docs/sparse.md).
    """
    if kernel.is_cuda or kernel_map.is_table:
        return True
    padding = len(kernel) * out_rows - kernel_map.pairs
    return padding * kernel.shape[1] * kernel.shape[2] <= PADDING_ALLOWED


def _padded_product(source: Tensor, kernel_map: KernelMap, out_rows: int, kernel: Tensor) -> Tensor:
    """The sum over offsets as one product: the partners of each output row side by side, times the stacked kernel matrices."""
    matrix = kernel.flatten(0, 1)
    parts = [columns @ matrix for _, _, columns in _columns(source, kernel_map, out_rows)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _padded_kernel_gradient(features: Tensor, kernel_map: KernelMap, gradient: Tensor, kernel: Tensor) -> Tensor:
    """The gradient of the kernel as one product over all offsets."""
    total = _zeros_for_sums(kernel.flatten(0, 1).shape, kernel)
    for a, b, columns in _columns(features, kernel_map, len(gradient)):
        _add_product(total, columns.t(), gradient[a:b])
    return total.to(kernel.dtype).view_as(kernel)


def _columns(source: Tensor, kernel_map: KernelMap, out_rows: int) -> Iterator[tuple[int, int, Tensor]]:
    """Yield output rows a to b in blocks, with their partners side by side: (b - a, K * C), zeros for missing ones."""
    padded = torch.cat([source, source.new_zeros((1, source.shape[1]))])
    offsets = len(kernel_map.starts) - 1
    rows = kernel_map.partners(out_rows, len(source)).view(out_rows, offsets)
    width = offsets * source.shape[1]
    at_a_time = max(1, MOST_COLUMNS // width)
    for a in range(0, max(1, out_rows), at_a_time):
        part = rows[a : a + at_a_time]
        yield a, a + len(part), torch.index_select(padded, 0, part.reshape(-1)).view(len(part), width)


class Convolution(nn.Module):
    """The kernel and bias of a sparse convolution; subclasses define `forward`. Raises ValueError unless `dimension` is 3."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        dilation: int = 1,
        bias: bool = False,
        dimension: int = 3,
    ) -> None:
        super().__init__()
        if dimension != 3:
            raise ValueError(f"only three dimensions are supported, not {dimension}")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.conv_stride, self.dilation = kernel_size, stride, dilation
        volume = kernel_size**3
        matrix = volume == 1 and stride == 1
        shape = (in_channels, out_channels) if matrix else (volume, in_channels, out_channels)
        self.kernel = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty((1, out_channels))) if bias else None
        self.reset_parameters()

    transposed = False

    def reset_parameters(self) -> None:
        """Draw kernel and bias from U(-s, s), s = 1 / sqrt(channels * volume), with the input channels, or the output channels if
        transposed (spec A.3)."""
        channels = self.out_channels if self.transposed else self.in_channels
        bound = 1.0 / math.sqrt(channels * self.kernel_size**3)
        nn.init.uniform_(self.kernel, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def convolve(self, features: Tensor, kernel_map: KernelMap, out_rows: int) -> Tensor:
        """(out_rows, out_channels): for each output row, the sum over offsets k of its partner's features times `kernel[k]`."""
        return _Convolve.apply(as_autocast(features), as_autocast(self.kernel), kernel_map, out_rows)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.conv_stride}"


class MinkowskiConvolution(Convolution):
    """Convolution. Output coordinates are those of the input; with a stride, the distinct floor(c / s) * s, where s is the tensor
    stride of the output."""

    def forward(self, x: SparseTensor) -> SparseTensor:
        if self.kernel.ndim == 2:
            flops.add_sparse(len(x) * self.kernel.numel(), x.F, self.kernel)
            out = x.F @ self.kernel
            return x.with_features(out if self.bias is None else out + self.bias)
        manager = x.coordinate_manager
        out_stride = manager.down(x.stride, self.conv_stride)
        kernel_map = manager.kernel_map(x.stride, out_stride, self.kernel_size, self.dilation)
        flops.add_sparse(kernel_map.pairs * self.kernel[0].numel(), x.F, self.kernel)
        out = self.convolve(x.F, kernel_map, len(manager.coordinates(out_stride)))
        out = out if self.bias is None else out + self.bias
        return SparseTensor(out, tensor_stride=out_stride, coordinate_manager=manager)


class MinkowskiConvolutionTranspose(Convolution):
    """Transposed convolution onto existing finer coordinates. Raises ValueError if the manager has none at that tensor stride."""

    transposed = True

    def forward(self, x: SparseTensor) -> SparseTensor:
        manager = x.coordinate_manager
        fine = x.stride // self.conv_stride
        if x.stride % self.conv_stride or not manager.knows(fine):
            raise ValueError(
                f"the manager has no coordinates at tensor stride {x.stride}/{self.conv_stride} to transpose onto"
            )
        kernel_map = manager.kernel_map(fine, x.stride, self.kernel_size, self.dilation).transposed()
        flops.add_sparse(kernel_map.pairs * self.kernel[0].numel(), x.F, self.kernel)
        out = self.convolve(x.F, kernel_map, len(manager.coordinates(fine)))
        out = out if self.bias is None else out + self.bias
        return SparseTensor(out, tensor_stride=fine, coordinate_manager=manager)
