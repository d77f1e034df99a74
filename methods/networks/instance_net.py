"""The backbone with CSC's second head: an offset to the centre of the voxel's instance (spec A.4, F.1)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pretrain_bench.methods.networks.res16unet import Res16UNet34C


class InstanceOutput(NamedTuple):
    """Rows of the input's voxels: logits (N, classes), offsets (N, 3) in metres, and the features (N, C) that both come from."""

    logits: Tensor
    offsets: Tensor
    features: Tensor


class InstanceNet(nn.Module):
    """`final` of the backbone gives the logits; the offsets come from the same features, through one hidden layer.

    `scores` is PointGroup's score network, which nothing here calls.
    """

    def __init__(self, backbone: Res16UNet34C, momentum: float, seed: int, scores: nn.Module | None = None) -> None:
        super().__init__()
        self.backbone, self.scores = backbone, scores
        width = backbone.feature_channels
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.offsets = nn.Sequential(
                nn.Linear(width, width), nn.BatchNorm1d(width, momentum=momentum), nn.ReLU(), nn.Linear(width, 3)
            )

    def forward(self, x: Any) -> InstanceOutput:
        features = self.backbone.features(x)
        return InstanceOutput(self.backbone.final(features).F, self.offsets(features.F), features.F)
