"""Sparse annotations: a few labelled points per scene."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pretrain_bench.benchmarks.input.annotations import active_points, chosen_rows, keep_rows, read_label_rows
from pretrain_bench.benchmarks.support.errors import DataError


def test_fewer_points_lie_inside_more_and_scenes_differ() -> None:
    sets = [set(chosen_rows("scene0000_00", n, 5000).tolist()) for n in (20, 50, 100, 200)]
    assert [len(s) for s in sets] == [20, 50, 100, 200] and sets[0] < sets[1] < sets[2] < sets[3]
    assert sets[0] != set(chosen_rows("scene0000_01", 20, 5000).tolist())
    assert len(chosen_rows("a", 200, 7)) == 7


def test_everything_else_is_ignored() -> None:
    labels = np.array([3, 4, 5, 255], np.uint8)
    assert keep_rows(labels, np.array([1])).tolist() == [255, 4, 255, 255]
    assert labels.tolist() == [3, 4, 5, 255]


def test_csc_files(tmp_path) -> None:
    torch.save({"scene0000_00": np.array([5, 1, 9]), "scene0001_00": [2, 3]}, tmp_path / "points20")
    found = read_label_rows(tmp_path / "points20")
    assert found["scene0000_00"].tolist() == [5, 1, 9] and found["scene0001_00"].tolist() == [2, 3]
    for bad in ({"a": np.array([-1])}, {"a": np.array([0.5])}, {"a": np.zeros((2, 2), int)}, [1, 2], {3: [1]}):
        torch.save(bad, tmp_path / "bad")
        with pytest.raises(DataError):
            read_label_rows(tmp_path / "bad")


def test_active_selection_is_k_means_from_the_first_points() -> None:
    """Against k-means written out: Lloyd's iterations, then the nearest point of each centre."""
    rng = np.random.default_rng(3)
    blobs = np.concatenate([rng.normal(c, 0.05, (40, 3)) for c in ((0, 0, 0), (3, 0, 0), (0, 3, 0), (0, 0, 3))])
    order = rng.permutation(len(blobs))
    xyz, rgb, features = blobs[order], np.zeros((160, 3), np.uint8), np.zeros((160, 2))
    centres = np.concatenate([xyz, rgb, features], 1)[:4].astype(float)
    table = np.concatenate([xyz, rgb, features], 1)
    for _ in range(50):
        nearest = ((table[:, None] - centres) ** 2).sum(2).argmin(1)
        centres = np.array([table[nearest == k].mean(0) if (nearest == k).any() else centres[k] for k in range(4)])
    expected = [int(((table - c) ** 2).sum(1).argmin()) for c in centres]
    assert active_points(xyz, rgb, features, 4).tolist() == expected
    with pytest.raises(DataError, match="3 points, fewer than the 4"):
        active_points(xyz[:3], rgb[:3], features[:3], 4)
