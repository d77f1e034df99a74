"""Clusters of shifted voxels against those of the original code (spec F.1)."""

from __future__ import annotations

import numpy as np
import pytest

from pretrain_bench.methods.finetune.clustering import clusters
from tests.parity import vectors

CLASSES = (2, 3, 4, 5)
"""Column c of the logits is class id c + 1; ids 1 and 2 have no instances."""


@pytest.mark.parametrize(("name", "least", "above"), [("csc_val", 50, 100), ("loose", 20, 30)])
def test_clusters(name: str, least: int, above: int) -> None:
    archive = vectors.load("clustering")
    expected = vectors.case(archive, f"cluster_{name}")
    coordinates, offsets = archive["cluster__voxel_coords"], archive["cluster__offsets_metres"]
    assert np.allclose(coordinates + offsets / np.float32(0.02), archive["cluster__shifted_voxel_units"], atol=1e-5)
    found = clusters(archive["cluster__shifted_voxel_units"], archive["cluster__logits"], CLASSES, 1.5, least, above)
    ids = np.full(len(coordinates), -1)
    ids[found.voxels] = np.repeat(np.arange(len(found.classes)), np.diff(found.starts))
    assert np.array_equal(ids, expected["ids"])
    assert np.array_equal(found.classes + 1, expected["class_id"])
    assert np.array_equal(np.diff(found.starts), expected["size"])
    assert np.abs(found.confidences - expected["confidence_f64"]).max() < 1e-5
