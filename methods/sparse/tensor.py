"""Sparse tensors: features on integer coordinates, and the manager that caches coordinates and kernel maps."""

from __future__ import annotations

from enum import Enum

import torch
from torch import Tensor

from pretrain_bench.methods.sparse.kernel_map import (
    CoordinateIndex,
    KernelMap,
    partition_map,
    search_map,
    stride_coordinates,
)


class CoordinateManager:
    """The coordinates at each tensor stride of one network pass, and the kernel maps between them; each map is built once."""

    def __init__(self) -> None:
        self._coordinates: dict[int, Tensor] = {}
        self._parents: dict[tuple[int, int], Tensor] = {}
        self._maps: dict[tuple[int, int, int, int], KernelMap] = {}

    def insert(self, stride: int, coordinates: Tensor) -> None:
        """Register coordinates (N, 4), batch index first. Raises ValueError for duplicates or a second set at one stride."""
        if stride in self._coordinates:
            raise ValueError(f"this manager already has coordinates at tensor stride {stride}")
        CoordinateIndex(coordinates, 0)
        self._coordinates[stride] = coordinates

    def coordinates(self, stride: int) -> Tensor:
        """(N, 4) coordinates at a tensor stride. Raises KeyError if the pass has not reached it."""
        return self._coordinates[stride]

    def knows(self, stride: int) -> bool:
        """Whether coordinates exist at a tensor stride."""
        return stride in self._coordinates

    def down(self, stride: int, factor: int) -> int:
        """Create the coordinates `factor` times coarser if they do not exist; returns their tensor stride."""
        coarse = stride * factor
        if (stride, coarse) not in self._parents and factor > 1:
            distinct, parents = stride_coordinates(self._coordinates[stride], coarse)
            self._coordinates.setdefault(coarse, distinct)
            self._parents[stride, coarse] = parents
        return coarse

    def kernel_map(self, in_stride: int, out_stride: int, kernel_size: int, dilation: int) -> KernelMap:
        """The map of a convolution from one tensor stride to an equal or coarser one."""
        key = (in_stride, out_stride, kernel_size, dilation)
        if key not in self._maps:
            fine, coarse = self._coordinates[in_stride], self._coordinates[out_stride]
            if in_stride != out_stride and kernel_size * in_stride == out_stride and dilation == 1:
                parents = self._parents[in_stride, out_stride]
                self._maps[key] = partition_map(fine, coarse, parents, kernel_size, in_stride)
            else:
                same = in_stride == out_stride
                self._maps[key] = search_map(fine, coarse, kernel_size, in_stride * dilation, same)
        return self._maps[key]


class SparseTensorQuantizationMode(Enum):
    """How features at duplicate coordinates are merged."""

    UNWEIGHTED_AVERAGE = 0
    UNWEIGHTED_SUM = 1


class SparseTensor:
    """Features (N, C) on integer coordinates (N, 4) int32, batch index first, any sign; row order is kept.

    Duplicate coordinates raise ValueError unless `quantization_mode` merges them; rows are then sorted by (b, x, y, z).
    MinkowskiEngine's default, keeping a random one of them, is not supported.
    """

    new_manager = CoordinateManager

    def __init__(
        self,
        features: Tensor,
        coordinates: Tensor | None = None,
        tensor_stride: int = 1,
        coordinate_manager: CoordinateManager | None = None,
        quantization_mode: SparseTensorQuantizationMode | None = None,
    ) -> None:
        if coordinates is not None and quantization_mode is not None:
            features, coordinates = _merge_duplicates(features, coordinates, quantization_mode)
        self.F = features
        self.stride = tensor_stride
        if coordinate_manager is None:
            if coordinates is None:
                raise ValueError("a sparse tensor needs coordinates, or the manager of another tensor")
            coordinate_manager = self.new_manager()
        if coordinates is not None:
            if coordinates.ndim != 2 or coordinates.shape[1] != 4:
                raise ValueError(f"coordinates must be (N, 4), batch index first, not {tuple(coordinates.shape)}")
            coordinate_manager.insert(tensor_stride, coordinates)
        self.coordinate_manager = coordinate_manager
        if len(features) != len(self.C):
            raise ValueError(f"{len(features)} feature rows, but {len(self.C)} coordinates; expected equal numbers")

    @property
    def C(self) -> Tensor:
        """(N, 4) int32 coordinates, batch index first."""
        return self.coordinate_manager.coordinates(self.stride)

    @property
    def tensor_stride(self) -> list[int]:
        """Distance between neighbouring voxels along each axis, in voxels of stride 1."""
        return [self.stride] * 3

    def with_features(self, features: Tensor) -> SparseTensor:
        """A tensor with other features (N, C') on the same coordinates."""
        return SparseTensor(features, tensor_stride=self.stride, coordinate_manager=self.coordinate_manager)

    def features_at(self, batch_index: int) -> Tensor:
        """(n, C) features of one batch item, in the order of the tensor."""
        return self.F[self.C[:, 0] == batch_index]

    def coordinates_at(self, batch_index: int) -> Tensor:
        """(n, 3) coordinates of one batch item, in the order of the tensor."""
        return self.C[self.C[:, 0] == batch_index][:, 1:]

    @property
    def decomposed_coordinates_and_features(self) -> tuple[list[Tensor], list[Tensor]]:
        """Coordinates (n, 3) and features (n, C) of each batch item."""
        items = [int(b) for b in torch.unique(self.C[:, 0])]
        return [self.coordinates_at(b) for b in items], [self.features_at(b) for b in items]

    def __add__(self, other: SparseTensor) -> SparseTensor:
        if self.coordinate_manager is not other.coordinate_manager or self.stride != other.stride:
            raise ValueError("only sparse tensors on the same coordinates can be added")
        return self.with_features(self.F + other.F)

    def __len__(self) -> int:
        return len(self.F)

    def __repr__(self) -> str:
        return f"SparseTensor({len(self)} voxels, {self.F.shape[1]} channels, tensor stride {self.stride})"


def _merge_duplicates(
    features: Tensor, coordinates: Tensor, mode: SparseTensorQuantizationMode
) -> tuple[Tensor, Tensor]:
    distinct, rows, counts = torch.unique(coordinates, dim=0, return_inverse=True, return_counts=True)
    summed = features.new_zeros((len(distinct), features.shape[1])).index_add(0, rows, features)
    average = mode is SparseTensorQuantizationMode.UNWEIGHTED_AVERAGE
    return summed / counts[:, None] if average else summed, distinct


def cat(*tensors: SparseTensor) -> SparseTensor:
    """Concatenate the channels of sparse tensors in the given order. Raises ValueError if their coordinates differ."""
    first = tensors[0]
    if any(t.coordinate_manager is not first.coordinate_manager or t.stride != first.stride for t in tensors):
        raise ValueError("only sparse tensors on the same coordinates can be concatenated")
    return first.with_features(torch.cat([t.F for t in tensors], dim=1))


def batched_coordinates(clouds: list[Tensor]) -> Tensor:
    """(sum N, 4) int32 coordinates, batch index first, from a list of (N, 3) integer coordinates."""
    parts = [
        torch.cat([torch.full((len(c), 1), i, dtype=torch.int32), c.to(torch.int32)], 1) for i, c in enumerate(clouds)
    ]
    return torch.cat(parts) if parts else torch.zeros((0, 4), dtype=torch.int32)
