"""Layers that act on each row of a sparse tensor; coordinates are unchanged."""

from __future__ import annotations

from torch import nn

from pretrain_bench.methods.sparse.tensor import SparseTensor


class MinkowskiBatchNorm(nn.Module):
    """Batch norm over all voxels of the batch. The inner module is named `bn`, as in released checkpoints.

    A batch of one voxel has no variance: it is normalised with the running statistics, and does not update them.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(num_features, eps=eps, momentum=momentum)

    def forward(self, x: SparseTensor) -> SparseTensor:
        if self.training and len(x.F) == 1:
            bn = self.bn
            return x.with_features(
                nn.functional.batch_norm(x.F, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=bn.eps)
            )
        return x.with_features(self.bn(x.F))


class _Activation(nn.Module):
    function: nn.Module

    def forward(self, x: SparseTensor) -> SparseTensor:
        return x.with_features(self.function(x.F))


class MinkowskiLeakyReLU(_Activation):
    """Leaky ReLU; arguments as in torch."""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.function = nn.LeakyReLU(negative_slope, inplace)


class MinkowskiELU(_Activation):
    """ELU; arguments as in torch."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.function = nn.ELU(alpha, inplace)


class MinkowskiSigmoid(_Activation):
    """Logistic function."""

    def __init__(self) -> None:
        super().__init__()
        self.function = nn.Sigmoid()


class MinkowskiTanh(_Activation):
    """Hyperbolic tangent."""

    def __init__(self) -> None:
        super().__init__()
        self.function = nn.Tanh()


class MinkowskiReLU(nn.Module):
    """ReLU, max(0, x); in place if `inplace`."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, x: SparseTensor) -> SparseTensor:
        return x.with_features(nn.functional.relu(x.F, inplace=self.inplace))
