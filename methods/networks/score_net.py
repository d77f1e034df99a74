"""PointGroup's score network, which rates how well a cluster of voxels matches an instance (spec F.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pretrain_bench.methods.networks.res16unet import BasicBlock
from pretrain_bench.methods.sparse.backend import sparse_backend


class ScoreNet(nn.Module):
    """A sparse U-Net of two levels on each cluster, max pooling over the cluster, and a linear layer: one logit per cluster."""

    def __init__(self, in_channels: int, channels: int, backend: str, momentum: float, seed: int) -> None:
        super().__init__()
        self.engine: Any = sparse_backend(backend)
        engine = self.engine

        def conv(i: int, o: int, kernel: int, stride: int = 1) -> nn.Module:
            return engine.MinkowskiConvolution(i, o, kernel_size=kernel, stride=stride, dimension=3)

        def norm(width: int) -> nn.Module:
            return engine.MinkowskiBatchNorm(width, momentum=momentum)

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.enter = nn.Sequential(conv(in_channels, channels, 1), norm(channels), engine.MinkowskiReLU())
            self.fine = BasicBlock(engine, channels, channels, None)
            self.down = nn.Sequential(conv(channels, 2 * channels, 2, 2), norm(2 * channels), engine.MinkowskiReLU())
            self.coarse = BasicBlock(engine, 2 * channels, 2 * channels, None)
            self.up = engine.MinkowskiConvolutionTranspose(2 * channels, channels, kernel_size=2, stride=2, dimension=3)
            self.up_norm = nn.Sequential(norm(channels), engine.MinkowskiReLU())
            project = nn.Sequential(conv(2 * channels, channels, 1), norm(channels))
            self.leave = BasicBlock(engine, 2 * channels, channels, project)
            self.score = nn.Linear(channels, 1)

    def forward(self, features: Tensor, cells: Sequence[Tensor]) -> Tensor:
        """(P,) logits of P clusters: `cells` holds (n, 3) non-negative integers per cluster, `features` (sum n, C) the rows of
        all clusters in the same order. Features in one cell are averaged."""
        numbers = torch.cat([torch.full((len(c), 1), i) for i, c in enumerate(cells)])
        coordinates = torch.cat([numbers, torch.cat(list(cells))], dim=1).int().to(features.device)
        skip = self.fine(self.enter(self.engine.SparseTensor(*_cell_means(features, coordinates))))
        out = self.leave(self.engine.cat(self.up_norm(self.up(self.coarse(self.down(skip)))), skip))
        return self.score(_cluster_maxima(out.F, out.C[:, 0].long(), len(cells)))[:, 0]


def _cell_means(features: Tensor, coordinates: Tensor) -> tuple[Tensor, Tensor]:
    """Mean features at the distinct coordinates, and these coordinates, sorted."""
    distinct, rows, counts = torch.unique(coordinates, dim=0, return_inverse=True, return_counts=True)
    sums = features.new_zeros((len(distinct), features.shape[1])).index_add(0, rows, features)
    return sums / counts[:, None], distinct


def _cluster_maxima(values: Tensor, numbers: Tensor, count: int) -> Tensor:
    """(count, C) maxima over the rows of each cluster number 0..count - 1; rows may be in any order.

    MinkowskiEngine's global pooling guarantees no order, and fails for a single cluster.
    """
    order = torch.argsort(numbers, stable=True)
    parts = values.index_select(0, order).split(torch.bincount(numbers, minlength=count).tolist())
    return torch.stack([part.max(dim=0).values for part in parts])
