"""The check of row order, without MinkowskiEngine."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from pretrain_bench.benchmarks.specs.network import NetworkSettings
from pretrain_bench.methods.depthcontrast.scans import VoxelEncoder
from pretrain_bench.methods.networks.res16unet import seeded_backbone
from pretrain_bench.methods.sparse.backend import sparse_backend
from pretrain_bench.methods.sparse.pooling import MinkowskiGlobalMaxPooling
from pretrain_bench.methods.sparse.tensor import SparseTensor
from tests.performance.work import surface_voxels
from tests.verification.minkowski import check_row_order, check_scan_order, same_rows, two_scans


def test_the_embedded_engine_keeps_rows_in_the_order_given() -> None:
    cloud = surface_voxels(300, 0.2)
    assert check_row_order("torch", cloud) == 450
    coordinates, features = two_scans(cloud)
    assert coordinates[:, 0].tolist() == [0] * 300 + [1] * 150 and len(features) == 450
    assert sorted(coordinates.tolist()) != coordinates.tolist(), "sorting the rows would be noticed"


class Shuffling(torch.nn.Module):
    """Pools scans in reverse order, with matching coordinates, as MinkowskiEngine pools in the order of its hash map."""

    def __init__(self, tell: bool) -> None:
        super().__init__()
        self.pool, self.tell = MinkowskiGlobalMaxPooling(), tell

    def forward(self, x: SparseTensor) -> SimpleNamespace:
        pooled = self.pool(x)
        return SimpleNamespace(F=pooled.F.flip(0), C=pooled.C.flip(0) if self.tell else pooled.C)


def test_embeddings_of_scans_follow_the_batch_whatever_the_order_of_pooling() -> None:
    engine, cloud = sparse_backend("torch"), surface_voxels(800, 0.2)
    network = seeded_backbone(3, NetworkSettings(width=0.25), 0.05, "torch", 1)
    encoder = VoxelEncoder(network, 16, engine)
    encoder.pool = Shuffling(tell=True)
    check_scan_order(encoder, engine, cloud)
    encoder.pool = Shuffling(tell=False)
    with pytest.raises(SystemExit, match="scan 0 is in row 7"):
        check_scan_order(encoder, engine, cloud)


def test_other_rows_are_named() -> None:
    given = torch.tensor([[0, 1, 2, 3], [0, 4, 5, 6], [1, 0, 0, 0]], dtype=torch.int32)
    same_rows(given.long(), given, "an engine")
    with pytest.raises(
        SystemExit, match=r"an engine: rows are not in the order .* row 1 is \[1, 0, 0, 0\], given \[0, 4, 5, 6\]"
    ):
        same_rows(given[[0, 2, 1]], given, "an engine")
    with pytest.raises(SystemExit, match="an engine: 2 rows, given 3"):
        same_rows(given[:2], given, "an engine")
