"""`sparse_quantize` and `sparse_collate` with MinkowskiEngine's names, and the label rule of its release 0.4.3 (A.7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pretrain_bench.benchmarks.input.voxelise import quantise, to_cells, voxel_labels
from pretrain_bench.methods.sparse.tensor import batched_coordinates

Array = NDArray[Any] | Tensor


def sparse_quantize(
    coordinates: Array,
    features: Array | None = None,
    labels: Array | None = None,
    ignore_label: int = -100,
    return_index: bool = False,
    return_inverse: bool = False,
    quantization_size: float | None = None,
) -> Any:
    """Quantise points (N, 3) to distinct voxels, int32, sorted by (x, y, z).

    Returns [coordinates, features, labels, index, inverse] without those that were not given or requested; coordinates alone are
    returned without a list. A voxel has the features and the label of its first point, but `ignore_label` if its points disagree
    on the label. Results are numpy arrays or torch tensors, as `coordinates` is.
    """
    as_torch = isinstance(coordinates, Tensor)
    points = _numpy(coordinates)
    voxels = quantise(to_cells(points, quantization_size or 1.0))
    outputs: list[NDArray[Any]] = [voxels.coordinates]
    if features is not None:
        outputs.append(_numpy(features)[voxels.representative])
    if labels is not None:
        outputs.append(voxel_labels(_numpy(labels), voxels, ignore_label))
    if return_index:
        outputs.append(voxels.representative)
    if return_inverse:
        outputs.append(voxels.inverse)
    arrays = [torch.from_numpy(a) for a in outputs] if as_torch else outputs
    return arrays if len(arrays) > 1 else arrays[0]


def sparse_collate(
    coordinates: Sequence[Array], features: Sequence[Array], labels: Sequence[Array] | None = None
) -> tuple[Tensor, ...]:
    """Join clouds into one batch: coordinates (sum N, 4) int32 with the batch index first, features, and labels if given."""
    batch = batched_coordinates([torch.from_numpy(_numpy(c)) for c in coordinates])
    joined = [torch.cat([torch.from_numpy(_numpy(a)) for a in part]) for part in (features, labels) if part is not None]
    return (batch, *joined)


def _numpy(array: Array) -> NDArray[Any]:
    return array.detach().cpu().numpy() if isinstance(array, Tensor) else np.asarray(array)
