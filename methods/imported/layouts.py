"""How other projects name and store the tensors of this backbone: MinkowskiEngine before 0.5, spconv 2, Pointcept's SpUNet.

Networks written for MinkowskiEngine before 0.5 store the 3x3x3 kernels of their residual blocks in a different ("hybrid") order
of offsets, with equal names and shapes (spec A.6, I-1). spconv's weights are (out, x, y, z, in) for coordinates x, y, z: its own
tests compare them with a dense convolution after `permute(0, 4, 1, 2, 3)`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import NamedTuple

import torch
from torch import Tensor

from pretrain_bench.benchmarks.specs.backbone_shapes import DECODER, ENCODER, LAYERS, Shapes, backbone_shapes, planes_of
from pretrain_bench.benchmarks.specs.checkpoint import KernelOrder
from pretrain_bench.benchmarks.specs.network import NetworkSettings

# kernel_cube[k] = kernel_hybrid[HYBRID_TO_CUBE[k]]
HYBRID_TO_CUBE = (
    19, 15, 23, 11, 9, 13, 21, 17, 25, 5, 3, 7, 1, 0, 2, 6, 4, 8, 20, 16, 24, 12, 10, 14, 22, 18, 26,
)  # fmt: skip
BLOCK_KERNEL = re.compile(r"block\d\.\d+\.conv[12]\.kernel")
COUNTER = "num_batches_tracked"
SPUNET_PREFIX = "backbone."
"""Prefix of SpUNet's tensor names in Pointcept's segmentation networks."""


class Layout(NamedTuple):
    """Names and storage of one library. `name_of` maps this project's tensor names to the library's."""

    title: str
    name_of: Callable[[str], str]
    is_spconv: bool

    def shapes(self, settings: NetworkSettings) -> Shapes:
        """The shapes in which the library stores this backbone's tensors, by this project's names."""
        own = backbone_shapes(settings)
        if not self.is_spconv:
            return own
        return {
            n: tuple(to_spconv(torch.empty(s, device="meta")).shape) if _is_kernel(n) else s for n, s in own.items()
        }


def order_to_cube(name: str, stored: Tensor, order: KernelOrder) -> Tensor:
    """Convert a stored kernel to this project's layout (K, in, out), or (in, out) for 1x1x1, and kernel order; other tensors are
    returned unchanged. `name` is this project's name."""
    if not _is_kernel(name):
        return stored
    if order in ("spconv", "spconv-zyx"):
        return from_spconv(stored, reverse=order == "spconv-zyx")
    return stored[torch.tensor(HYBRID_TO_CUBE)] if order == "minkowski-0.4" and BLOCK_KERNEL.fullmatch(name) else stored


def order_from_cube(name: str, own: Tensor, order: KernelOrder) -> Tensor:
    """The reverse of `order_to_cube`."""
    if not _is_kernel(name):
        return own
    if order in ("spconv", "spconv-zyx"):
        return to_spconv(own, reverse=order == "spconv-zyx")
    if order == "minkowski-0.4" and BLOCK_KERNEL.fullmatch(name):
        return own[torch.argsort(torch.tensor(HYBRID_TO_CUBE))]
    return own


def to_spconv(kernel: Tensor, reverse: bool = False) -> Tensor:
    """(volume, in, out) or (in, out) to (out, x, y, z, in); with `reverse` to (out, z, y, x, in)."""
    side = 1 if kernel.ndim == 2 else round(kernel.shape[0] ** (1 / 3))
    cube = kernel.reshape(side, side, side, *kernel.shape[-2:])  # z, y, x, in, out: x is fastest
    return cube.permute(4, 0, 1, 2, 3) if reverse else cube.permute(4, 2, 1, 0, 3)


def from_spconv(weight: Tensor, reverse: bool = False) -> Tensor:
    """The reverse of `to_spconv`."""
    cube = weight.permute(1, 2, 3, 4, 0) if reverse else weight.permute(3, 2, 1, 4, 0)
    return cube.reshape(-1, *cube.shape[-2:]) if cube.shape[0] > 1 else cube[0, 0, 0]


def with_their_norms(names: Collection[str]) -> set[str]:
    """The names without batch-norm counters whose weight is not among them: scalar counters match any norm."""
    return {name for name in names if name.replace(COUNTER, "weight") in names}


def _is_kernel(name: str) -> bool:
    return name.endswith(".kernel")


def spconv_name(name: str) -> str:
    """A tensor's name in the same network written for spconv: plain batch norms, and `weight` for `kernel`."""
    return name.replace(".bn.", ".").replace(".kernel", ".weight")


_ENCODER = {name: (level, role) for level, names in enumerate(ENCODER) for name, role in zip(names, "cnb", strict=True)}
_DECODER = {name: (3 - d, role) for d, names in enumerate(DECODER) for name, role in zip(names, "cnb", strict=True)}
_IN_BLOCK = {"norm1": "bn1", "norm2": "bn2", "downsample": "proj"}


def spunet_name(name: str) -> str:
    """A tensor's name in Pointcept's SpUNet-v1m1, without a prefix.

    Source: pointcept/models/sparse_unet/spconv_unet_v1m1_base.py, `SpUNetBase` and `BasicBlock`.
    """
    layer, _, rest = spconv_name(name).partition(".")
    if layer in ("conv0p1s1", "bn0"):
        return f"conv_input.{0 if layer == 'conv0p1s1' else 1}.{rest}"
    encoder = layer in _ENCODER
    level, role = (_ENCODER if encoder else _DECODER)[layer]
    if role != "b":
        return f"{'down' if encoder else 'up'}.{level}.{0 if role == 'c' else 1}.{rest}"
    number, part, *others = rest.split(".")
    place = ".".join([_IN_BLOCK.get(part, part), *others])
    return f"{'enc' if encoder else 'dec'}.{level}.block{number}.{place}"


def spunet_shapes(settings: NetworkSettings) -> Shapes:
    """Shapes of the convolutions and norms of a SpUNet-v1m1 of the same widths, by SpUNet's names, without its last layer.

    Unlike this backbone it has a first kernel of 5x5x5, and changes the width in its strided convolutions instead of the first
    block of a level.
    """
    base, planes = planes_of(settings)
    shapes: Shapes = {"conv_input.0.weight": (base, 5, 5, 5, settings.input_channels)}
    _norm(shapes, "conv_input.1", base)
    narrow, wide = base, planes[-1]
    for level in range(4):
        width, below = planes[level], planes[6 - level]
        _convolution(shapes, f"down.{level}.0", (width, 2, narrow))
        _norm(shapes, f"down.{level}.1", width)
        _blocks(shapes, f"enc.{level}", (width, width), LAYERS[level])
        _convolution(shapes, f"up.{level}.0", (wide, 2, below))
        _norm(shapes, f"up.{level}.1", wide)
        _blocks(shapes, f"dec.{level}", (wide + narrow, wide), LAYERS[7 - level])
        narrow, wide = width, below
    return shapes


def _blocks(shapes: Shapes, name: str, widths: tuple[int, int], count: int) -> None:
    incoming, width = widths
    for number in range(count):
        block = f"{name}.block{number}"
        first = incoming if number == 0 else width
        _convolution(shapes, f"{block}.conv1", (width, 3, first))
        _norm(shapes, f"{block}.bn1", width)
        _convolution(shapes, f"{block}.conv2", (width, 3, width))
        _norm(shapes, f"{block}.bn2", width)
        if first != width:
            _convolution(shapes, f"{block}.proj.0", (width, 1, first))
            _norm(shapes, f"{block}.proj.1", width)


def _convolution(shapes: Shapes, name: str, sizes: tuple[int, int, int]) -> None:
    out, side, incoming = sizes
    shapes[f"{name}.weight"] = (out, side, side, side, incoming)


def _norm(shapes: Shapes, name: str, channels: int) -> None:
    for part in ("weight", "bias", "running_mean", "running_var"):
        shapes[f"{name}.{part}"] = (channels,)
    shapes[f"{name}.num_batches_tracked"] = ()


MINKOWSKI = Layout("MinkowskiEngine", lambda name: name, False)
SPCONV = Layout("spconv 2", spconv_name, True)
POINTCEPT = Layout("Pointcept's SpUNet", spunet_name, True)
LAYOUTS = (MINKOWSKI, SPCONV, POINTCEPT)
