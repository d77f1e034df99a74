"""The 2D network of `ours`: a ResNet encoder and a small decoder with one feature vector per pixel (spec E.3).

Encoder parameters have torchvision's ResNet names, so that its ImageNet weights load unchanged.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pretrain_bench.methods.ours.recipe import OursImages

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
_PLANES = (64, 128, 256, 512)
_DECODER_PLANES = (256, 128, 64, 32)
SIDE_MULTIPLE = 32


class _BasicBlock(nn.Module):
    def __init__(self, inplanes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inplanes != planes:
            self.downsample = nn.Sequential(nn.Conv2d(inplanes, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNetEncoder(nn.Module):
    """ResNet-18 or ResNet-34 without the classifier."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inplanes = 64
        for number, (planes, blocks) in enumerate(zip(_PLANES, _BLOCKS[depth], strict=True), start=1):
            stride = 1 if number == 1 else 2
            layer = [
                _BasicBlock(inplanes if b == 0 else planes, planes, stride if b == 0 else 1) for b in range(blocks)
            ]
            setattr(self, f"layer{number}", nn.Sequential(*layer))
            inplanes = planes
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, S, S) to the outputs of the four layers: 64, 128, 256 and 512 channels at 1/4, 1/8, 1/16 and 1/32 of S."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        outputs = []
        for number in range(1, 5):
            x = getattr(self, f"layer{number}")(x)
            outputs.append(x)
        return outputs


class _DecoderStage(nn.Module):
    """Convolution and ELU, nearest upsampling by 2, concatenation of the skip, convolution and ELU."""

    def __init__(self, inplanes: int, skip: int, planes: int, settings: OursImages, last: bool) -> None:
        super().__init__()
        padded = settings.decoder == "monodepth2"
        mode: Literal["reflect", "zeros"] = "reflect" if padded else "zeros"
        self.conv1 = nn.Conv2d(inplanes, planes, 3, 1, 1, bias=padded, padding_mode=mode)
        self.conv2 = nn.Conv2d(planes + skip, planes, 3, 1, 1, bias=padded, padding_mode=mode)
        self.activate_last = settings.final_elu or not last
        for conv in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        x = functional.interpolate(functional.elu(self.conv1(x)), scale_factor=2, mode="nearest")
        x = self.conv2(x if skip is None else torch.cat([x, skip], dim=1))
        return functional.elu(x) if self.activate_last else x


class PixelFeatureNet(nn.Module):
    """(B, 3, S, S) images to (B, C, S, S) features; S must be a multiple of 32."""

    def __init__(self, settings: OursImages) -> None:
        super().__init__()
        self.encoder = ResNetEncoder(settings.encoder_depth)
        planes = (512, *_DECODER_PLANES, settings.feature_channels)
        skips = (256, 128, 64, 0, 0)
        self.decoder = nn.ModuleList(
            _DecoderStage(planes[i], skips[i], planes[i + 1], settings, last=i == 4) for i in range(5)
        )

    def forward(self, x: Tensor, train_encoder: bool = True) -> Tensor:
        """(B, 3, S, S) images to (B, feature_channels, S, S); S is a multiple of 32. With `train_encoder` false, no gradients
        reach the encoder; its batch norms still follow the training mode."""
        with torch.set_grad_enabled(train_encoder and torch.is_grad_enabled()):
            one, two, three, x = self.encoder(x)
        for stage, skip in zip(self.decoder, (three, two, one, None, None), strict=True):
            x = stage(x, skip)
        return x


def network_input(images: Tensor, normalise: str, channel_order: str) -> Tensor:
    """Prepare images (B, 3, H, W), RGB in [0, 1], as network input: `channel_order` rgb or bgr; `normalise` imagenet (with its
    mean and standard deviation) or none.

    As in the author's code, the constants keep the order RGB, so with bgr the blue channel is normalised with those of red.
    """
    if channel_order == "bgr":
        images = images.flip(1)
    if normalise == "imagenet":
        mean, std = images.new_tensor(IMAGENET_MEAN), images.new_tensor(IMAGENET_STD)
        images = (images - mean[:, None, None]) / std[:, None, None]
    return images
