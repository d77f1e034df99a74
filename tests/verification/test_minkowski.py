"""The check of row order, as far as it goes without MinkowskiEngine."""

from __future__ import annotations

import pytest
import torch

from tests.performance.work import surface_voxels
from tests.verification.minkowski import check_row_order, same_rows, two_scans


def test_the_embedded_engine_keeps_rows_in_the_order_given() -> None:
    cloud = surface_voxels(300, 0.2)
    assert check_row_order("torch", cloud) == 450
    coordinates, features = two_scans(cloud)
    assert coordinates[:, 0].tolist() == [0] * 300 + [1] * 150 and len(features) == 450
    assert sorted(coordinates.tolist()) != coordinates.tolist(), "sorting the rows would be noticed"


def test_other_rows_are_named() -> None:
    given = torch.tensor([[0, 1, 2, 3], [0, 4, 5, 6], [1, 0, 0, 0]], dtype=torch.int32)
    same_rows(given.long(), given, "an engine")
    with pytest.raises(
        SystemExit, match=r"an engine: rows are not in the order .* row 1 is \[1, 0, 0, 0\], given \[0, 4, 5, 6\]"
    ):
        same_rows(given[[0, 2, 1]], given, "an engine")
    with pytest.raises(SystemExit, match="an engine: 2 rows, given 3"):
        same_rows(given[:2], given, "an engine")
