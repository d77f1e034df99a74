"""The backbone with CSC's second head, which predicts the offset of each voxel to the centre of its instance (spec A.4, F.1)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pretrain_bench.methods.networks.res16unet import Res16UNet34C


class InstanceOutput(NamedTuple):
    """One row per input voxel: logits (N, classes), offsets (N, 3) in metres, and the features (N, C) that both heads read."""

    logits: Tensor
    offsets: Tensor
    features: Tensor


class InstanceNet(nn.Module):
    """The backbone's `final` gives the logits; an MLP with one hidden layer maps the same features to offsets.

    `scores` is PointGroup's score network; being a submodule, it is trained and stored, but `forward` does not use it.
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
        """A sparse tensor (N, input_channels) to rows in its order."""
        features = self.backbone.features(x)
        return InstanceOutput(self.backbone.final(features).F, self.offsets(features.F), features.F)
