"""Sparse convolution on a GPU as one masked implicit GEMM in Triton, without writing gathered rows to memory.

The product of `conv.py` remains in use for tensors in float64 or on a CPU, kernels of more than 31 offsets, maps that are not a
table, and machines without Triton.
"""

from __future__ import annotations

import functools
import importlib.util
import warnings
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor

from pretrain_bench.methods.sparse import tiles
from pretrain_bench.methods.sparse.conv import (
    Convolution,
    MinkowskiConvolution,
    MinkowskiConvolutionTranspose,
    as_autocast,
)
from pretrain_bench.methods.sparse.kernel_map import KernelMap
from pretrain_bench.methods.sparse.partner_map import PartnerMap

MOST_OFFSETS = 31
"""Offsets that fit the mask of a row, an int32 without its sign bit."""
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
Precision = Literal["tf32x3", "tf32"]


@functools.cache
def kernels() -> ModuleType | None:
    """The module of the Triton kernels; None if Triton is not installed, or, with a warning, cannot launch a kernel here."""
    if importlib.util.find_spec("triton") is None:
        return None
    from pretrain_bench.methods.sparse import triton_kernels

    if torch.cuda.is_available():
        try:
            _launch_one(triton_kernels)
        # Triton raises various types: without a C compiler, without a writable cache, or for an unsupported GPU.
        except Exception as error:
            warnings.warn(f"Triton cannot launch a kernel here, so torch computes the products: {error}", stacklevel=2)
            return None
    return triton_kernels


def _launch_one(module: ModuleType) -> None:
    """Compute the smallest product, one row. A launch compiles: Triton needs a C compiler and a writable cache."""
    one = torch.ones((1, 16), device="cuda")
    rows = torch.zeros((1, 1), dtype=torch.int32, device="cuda")
    table = PartnerMap(rows, rows[0].to(torch.int64), rows[0] + 1, 1, 1, False)
    _launch(module, one, one.new_ones((1, 16, 16)), table, False)


def numerics() -> str:
    """The product that the backend `triton` uses, for the record: the versions of Triton and of the tile sizes, or "torch"."""
    if kernels() is None:
        return "torch"
    import triton

    return f"triton {triton.__version__}, tiles {tiles.VERSION}"


def usable(features: Tensor, kernel_map: KernelMap) -> bool:
    """Whether the Triton kernels can compute this convolution on this machine."""
    return (
        isinstance(kernel_map, PartnerMap)
        and len(kernel_map.table) <= MOST_OFFSETS
        and features.dtype in DTYPES
        and (features.is_cuda or is_interpreting())
        and kernels() is not None
    )


def is_interpreting() -> bool:
    """Whether Triton interprets its kernels on the CPU, for tests: TRITON_INTERPRET=1 was set when it was imported."""
    module = kernels()
    return module is not None and type(module.product).__name__ == "InterpretedFunction"


def precision(dtype: torch.dtype) -> Precision:
    """How float32 products are computed: as three TF32 products (about the error of float32), or as one if TF32 is allowed."""
    return "tf32" if dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32 else "tf32x3"


class _ImplicitGemm(torch.autograd.Function):
    """The product of `conv.py` in Triton. Under autocast the stored kernel and its gradient stay in float32."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, kernel: Tensor, kernel_map: PartnerMap, out_rows: int) -> Tensor:
        features = features.contiguous()
        ctx.save_for_backward(features, kernel)
        ctx.map = kernel_map
        return multiply(features, kernel.to(features.dtype), kernel_map)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        features, kernel = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        grad_features = grad_kernel = None
        if ctx.needs_input_grad[0]:
            back = kernel.to(gradient.dtype).transpose(1, 2)
            # In a symmetric map, row and partner swap roles at the opposite offset: flipped, it is its own transpose.
            symmetric = ctx.map.is_symmetric
            grad_features = multiply(gradient, back, ctx.map if symmetric else ctx.map.transposed(), flip=symmetric)
        if ctx.needs_input_grad[1]:
            grad_kernel = sum_outer_products(features, gradient, ctx.map).to(kernel.dtype)
        return grad_features, grad_kernel, None, None


def multiply(features: Tensor, kernel: Tensor, kernel_map: PartnerMap, flip: bool = False) -> Tensor:
    """(N, C_out): the sum over offsets k of `features[table[k]] @ kernel[k]`, or with `flip` of `kernel[K - 1 - k]`.

    features: (M, C_in), contiguous; kernel: (K, C_in, C_out) of the same dtype, its matrices contiguous or transposed. Products
    accumulate in float32; the result has the dtype of `features`.
    """
    module = kernels()
    assert module is not None
    return _launch(module, features, kernel, kernel_map, flip)


def _launch(module: ModuleType, features: Tensor, kernel: Tensor, kernel_map: PartnerMap, flip: bool) -> Tensor:
    table = kernel_map.table
    offsets, rows = table.shape
    c_in, c_out = kernel.shape[1:]
    out = features.new_empty((rows, c_out))
    if not rows:
        return out
    tile = next(t for t in tiles.PRODUCT if c_out <= t.columns)
    module.product[(-(-rows // tile.rows), -(-c_out // (tile.wide + tile.narrow)))](
        features, kernel, table, kernel_map.order, kernel_map.masks, out, rows, table.stride(0), *kernel.stride()[1:],
        OFFSETS=offsets, C_IN=c_in, C_OUT=c_out, FLIP=flip,
        ROWS=tile.rows, DEPTH=min(tile.depth, _at_least(c_in)), WIDE=tile.wide, NARROW=tile.narrow,
        PRECISION=precision(features.dtype), num_warps=tile.warps, num_stages=tile.stages, enable_fp_fusion=True,
    )  # fmt: skip
    return out


def sum_outer_products(features: Tensor, gradient: Tensor, kernel_map: PartnerMap) -> Tensor:
    """(K, C_in, C_out) float32: for each offset k, the sum of outer(features[table[k, o]], gradient[o]) over output rows o.

    features: (M, C_in), gradient: (N, C_out); both contiguous and of one dtype.
    """
    module, table = kernels(), kernel_map.table
    assert module is not None
    offsets, rows = table.shape
    c_in, c_out = features.shape[1], gradient.shape[1]
    tile = next(t for t in tiles.GRADIENT if max(c_in, c_out) <= t.columns)
    share = -(-max(rows, 1) // (tile.shares * tile.rows)) * tile.rows
    shares = max(1, -(-rows // share))
    partials = features.new_empty((shares, offsets, c_in, c_out), dtype=torch.float32)
    module.kernel_gradient[(offsets, -(-c_in // tile.inputs) * -(-c_out // tile.outputs), shares)](
        features, gradient, table, kernel_map.order, kernel_map.masks, partials, rows, share, table.stride(0),
        OFFSETS=offsets, C_IN=c_in, C_OUT=c_out, ROWS=tile.rows, IN=tile.inputs, OUT=tile.outputs,
        PRECISION=precision(features.dtype), num_warps=tile.warps, num_stages=tile.stages, enable_fp_fusion=True,
    )  # fmt: skip
    return partials.sum(0)


def _at_least(channels: int) -> int:
    """The smallest power of two that holds the channels, but at least 16, the smallest product of the hardware."""
    return max(16, 1 << (channels - 1).bit_length())


class _Fused(Convolution):
    """A convolution that uses the Triton kernels if they are usable, else torch."""

    def convolve(self, features: Tensor, kernel_map: KernelMap, out_rows: int) -> Tensor:
        """(out_rows, out_channels); see `Convolution.convolve`."""
        features = as_autocast(features)
        if not usable(features, kernel_map):
            return super().convolve(features, kernel_map, out_rows)
        return _ImplicitGemm.apply(features, self.kernel, kernel_map, out_rows)


class FusedConvolution(_Fused, MinkowskiConvolution):
    """`MinkowskiConvolution` with the Triton kernels."""


class FusedConvolutionTranspose(_Fused, MinkowskiConvolutionTranspose):
    """`MinkowskiConvolutionTranspose` with the Triton kernels."""
