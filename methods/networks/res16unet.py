"""Res16UNet34C, the sparse 3D U-Net that every method pre-trains (spec, part A)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pretrain_bench.benchmarks.specs.backbone_shapes import DECODER, ENCODER, LAYERS, planes_of
from pretrain_bench.methods.sparse.backend import sparse_backend

if TYPE_CHECKING:
    from pretrain_bench.benchmarks.specs.network import NetworkSettings

HEAD = "final."
"""Prefix of the last layer's tensors, which are not transferred from pre-training (spec A.4, I-28)."""
BLOCK_MOMENTUM = 0.1
"""Momentum of batch norms inside blocks: the original never passes them the configured one, so they keep the default (A.2)."""


class BasicBlock(nn.Module):
    """3x3x3 convolution, norm, ReLU, 3x3x3 convolution, norm; then add the residual, and ReLU. Coordinates are unchanged."""

    def __init__(self, engine: Any, inplanes: int, planes: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = engine.MinkowskiConvolution(inplanes, planes, kernel_size=3, dimension=3)
        self.norm1 = engine.MinkowskiBatchNorm(planes, momentum=BLOCK_MOMENTUM)
        self.conv2 = engine.MinkowskiConvolution(planes, planes, kernel_size=3, dimension=3)
        self.norm2 = engine.MinkowskiBatchNorm(planes, momentum=BLOCK_MOMENTUM)
        self.relu = engine.MinkowskiReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Any) -> Any:
        out = self.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class Res16UNet34C(nn.Module):
    """Maps a sparse tensor (N voxels, input_channels) to one with out_channels on the same coordinates.

    `features` gives the input of the last layer, 96 channels at full width. `momentum` of the batch norms outside of blocks is
    PyTorch's: the weight of the new batch. `backend` names a sparse backend.
    """

    def __init__(self, out_channels: int, settings: NetworkSettings, momentum: float, backend: str = "torch") -> None:
        super().__init__()
        engine = sparse_backend(backend)
        self.engine_cat = engine.cat
        inplanes, planes = planes_of(settings)
        self.feature_channels = planes[7]

        def conv(i: int, o: int, kernel: int, stride: int = 1, bias: bool = False) -> nn.Module:
            return engine.MinkowskiConvolution(i, o, kernel_size=kernel, stride=stride, bias=bias, dimension=3)

        def up(i: int, o: int) -> nn.Module:
            return engine.MinkowskiConvolutionTranspose(i, o, kernel_size=2, stride=2, dimension=3)

        def norm(channels: int) -> nn.Module:
            return engine.MinkowskiBatchNorm(channels, momentum=momentum)

        def layer(i: int, o: int, blocks: int) -> nn.Sequential:
            project = nn.Sequential(conv(i, o, 1), norm(o)) if i != o else None
            return nn.Sequential(
                *(BasicBlock(engine, i if b == 0 else o, o, project if b == 0 else None) for b in range(blocks))
            )

        skips = [inplanes]
        self.conv0p1s1 = conv(settings.input_channels, inplanes, settings.first_kernel)
        self.bn0 = norm(inplanes)
        for level, (name, bn, block) in enumerate(ENCODER):
            setattr(self, name, conv(inplanes, inplanes, 2, stride=2))
            setattr(self, bn, norm(inplanes))
            setattr(self, block, layer(inplanes, planes[level], LAYERS[level]))
            inplanes = planes[level]
            skips.append(inplanes)
        for level, (name, bn, block) in enumerate(DECODER):
            width = planes[4 + level]
            setattr(self, name, up(inplanes, width))
            setattr(self, bn, norm(width))
            setattr(self, block, layer(width + skips[3 - level], width, LAYERS[4 + level]))
            inplanes = width
        self.relu = engine.MinkowskiReLU(inplace=True)
        self.final = conv(inplanes, out_channels, 1, bias=True)

    def features(self, x: Any) -> Any:
        """The sparse tensor that enters `final`."""
        skips = [self.relu(self.bn0(self.conv0p1s1(x)))]
        out = skips[0]
        for names in ENCODER:
            conv, norm, block = (getattr(self, name) for name in names)
            out = block(self.relu(norm(conv(out))))
            skips.append(out)
        skips.pop()
        for names in DECODER:
            conv, norm, block = (getattr(self, name) for name in names)
            # The upsampled part comes first in the concatenation.
            out = block(self.engine_cat(self.relu(norm(conv(out))), skips.pop()))
        return out

    def forward(self, x: Any) -> Any:
        return self.final(self.features(x))


def seeded_backbone(
    out_channels: int, settings: NetworkSettings, momentum: float, backend: str, seed: int
) -> Res16UNet34C:
    """A network whose initial weights depend only on `seed` and its shape. The global random state is unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Res16UNet34C(out_channels, settings, momentum, backend)
