"""The layers of Res16UNet34C on spconv, to measure the same network beside this project's engine.

spconv 2.3.8 and spconv-triton 1.0.0 have this interface, under different import names. Both need non-negative coordinates and a spatial shape, name their
kernel maps by keys, and store a weight as (out, x, y, z, in) instead of (offset, in, out), x fastest.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from pretrain_bench.methods.networks import res16unet
from pretrain_bench.methods.sparse.pointwise import MinkowskiBatchNorm, MinkowskiReLU

IMPORT_NAMES = {"spconv": "spconv", "spconv-cu126": "spconv", "spconv-triton": "spconv_triton"}
"""The import name of each distribution."""
COARSEST = 16
"""Tensor stride of the deepest level: coordinates are moved by a multiple of it, so that voxels have the same parents."""


_used = "spconv"


def use(distribution: str) -> None:
    """Choose the library that this module's layers are of, for the whole process."""
    global _used
    _used = IMPORT_NAMES[distribution]


def library(part: str) -> Any:
    """A module of the library in use: `pytorch` or `constants`."""
    return importlib.import_module(f"{_used}.{part}")


class SparseTensor:
    """Features on coordinates (N, 4) int32, batch index first, of any sign."""

    def __init__(self, features: Tensor, coordinates: Tensor) -> None:
        lowest = coordinates[:, 1:].min(0).values
        moved = coordinates.clone()
        moved[:, 1:] -= lowest.div(COARSEST, rounding_mode="floor") * COARSEST
        top, *sizes = (moved.max(0).values + 1).tolist()
        shape = [-(-size // COARSEST) * COARSEST for size in sizes]
        self.inner, self.stride = library("pytorch").SparseConvTensor(features, moved, shape, top), 1

    @property
    def F(self) -> Tensor:
        """(N, C) features, in the order of the coordinates given at stride 1."""
        return self.inner.features

    def with_inner(self, inner: Any, stride: int) -> SparseTensor:
        """A tensor of another level."""
        other = object.__new__(SparseTensor)
        other.inner, other.stride = inner, stride
        return other

    def with_features(self, features: Tensor) -> SparseTensor:
        """A tensor with other features on the same coordinates."""
        return self.with_inner(self.inner.replace_feature(features), self.stride)

    def __add__(self, other: SparseTensor) -> SparseTensor:
        return self.with_features(self.F + other.F)


def cat(one: SparseTensor, two: SparseTensor) -> SparseTensor:
    """The channels of both tensors."""
    return one.with_features(torch.cat([one.F, two.F], 1))


class _Convolution(nn.Module):
    """A convolution whose weight is read from a kernel of this project's layout, (offset, in, out)."""

    up = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        bias: bool = False,
        dimension: int = 3,
    ) -> None:
        spconv = library("pytorch")
        super().__init__()
        self.stride, self.size, self.channels = stride, kernel_size, (in_channels, out_channels)
        if kernel_size == 1:
            self.layer: Any = nn.Linear(in_channels, out_channels, bias)
        elif self.up:
            self.layer = spconv.SparseInverseConv3d(in_channels, out_channels, kernel_size, "", bias=bias)
        elif stride == 1:
            self.layer = spconv.SubMConv3d(in_channels, out_channels, kernel_size, bias=bias)
        else:
            self.layer = spconv.SparseConv3d(in_channels, out_channels, kernel_size, stride, bias=bias)

    def forward(self, x: SparseTensor) -> SparseTensor:
        if self.size == 1:
            return x.with_features(self.layer(x.F))
        if self.up:
            stride = x.stride // self.stride
            self.layer.indice_key = f"down {stride}"
            return x.with_inner(self.layer(x.inner), stride)
        self.layer.indice_key = f"same {x.stride}" if self.stride == 1 else f"down {x.stride}"
        return x.with_inner(self.layer(x.inner), x.stride * self.stride)

    def load(self, kernel: Tensor, bias: Tensor | None) -> None:
        """Copy a kernel and bias of the same convolution in this project's engine."""
        if self.size == 1:
            weight = kernel.t()
        else:
            weight = kernel.view(*[self.size] * 3, *self.channels).permute(4, 2, 1, 0, 3)
        self.layer.weight.data.copy_(weight)
        if bias is not None:
            self.layer.bias.data.copy_(bias.flatten())

    def kernel_gradient(self) -> Tensor:
        """The gradient of the weight, in this project's layout."""
        gradient = self.layer.weight.grad
        return gradient.t() if self.size == 1 else gradient.permute(3, 2, 1, 4, 0).reshape(-1, *self.channels)


class _Transpose(_Convolution):
    up = True


ENGINE = SimpleNamespace(
    SparseTensor=SparseTensor, cat=cat, MinkowskiConvolution=_Convolution, MinkowskiConvolutionTranspose=_Transpose,
    MinkowskiBatchNorm=MinkowskiBatchNorm, MinkowskiReLU=MinkowskiReLU,
)  # fmt: skip


def on_spconv(network: res16unet.Res16UNet34C, out_channels: int, settings: Any, momentum: float) -> Any:
    """The same network on spconv, with the weights of one on this project's engine."""
    with mock.patch.object(res16unet, "sparse_backend", lambda name: ENGINE):
        other = res16unet.Res16UNet34C(out_channels, settings, momentum)
    for (name, ours), (same, theirs) in zip(layers(network), layers(other), strict=True):
        assert name == same
        if isinstance(theirs, _Convolution):
            theirs.load(ours.kernel.data, None if ours.bias is None else ours.bias.data)
        else:
            theirs.load_state_dict(ours.state_dict())
    return other


def layers(network: nn.Module) -> Iterator[tuple[str, Any]]:
    """Convolutions and norms, by name."""
    for name, module in network.named_modules():
        if isinstance(module, _Convolution | nn.BatchNorm1d) or hasattr(module, "kernel"):
            yield name, module


@contextmanager
def allowed_on_a_cpu() -> Iterator[None]:
    """Let spconv compute gradients on a CPU build of torch: it asks for the current CUDA stream and does not use it there."""
    from spconv.pytorch import ops

    with mock.patch.object(ops, "get_current_stream", lambda: 0):
        yield
