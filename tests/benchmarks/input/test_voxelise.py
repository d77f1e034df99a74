from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pretrain_bench.benchmarks.input.voxelise import IGNORE, bounds, quantise, to_cells, voxel_labels


def test_floor_is_true_floor() -> None:
    assert to_cells(np.array([[-0.01, 0.0, 0.19]]), 0.1).tolist() == [[-1, 0, 1]]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(hnp.arrays(st.sampled_from([np.uint8, np.int64, np.float32]), st.tuples(st.integers(1, 60), st.just(3))))
def test_bounds_are_the_lowest_and_highest_corner(points: np.ndarray) -> None:
    low, high = bounds(points)
    assert low.dtype == high.dtype == points.dtype
    np.testing.assert_array_equal(low, points.min(axis=0))
    np.testing.assert_array_equal(high, points.max(axis=0))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(hnp.arrays(np.int64, st.tuples(st.integers(0, 60), st.just(3)), elements=st.integers(-5, 5)))
def test_against_a_dictionary(cells: np.ndarray) -> None:
    first: dict[tuple[int, ...], int] = {}
    for i, cell in enumerate(map(tuple, cells.tolist())):
        first.setdefault(cell, i)
    expected = sorted(first)
    voxels = quantise(cells)
    assert [tuple(c) for c in voxels.coordinates.tolist()] == expected
    assert voxels.representative.tolist() == [first[c] for c in expected]
    assert (voxels.coordinates[voxels.inverse] == cells).all()


def test_conflicting_labels_are_ignored_and_agreeing_kept() -> None:
    cells = np.array([[0, 0, 0], [1, 0, 0], [0, 0, 0], [1, 0, 0], [2, 0, 0], [2, 0, 0]])
    labels = np.array([3, 4, 3, 5, IGNORE, IGNORE], dtype=np.uint8)
    assert voxel_labels(labels, quantise(cells)).tolist() == [3, IGNORE, IGNORE]


def test_empty() -> None:
    voxels = quantise(np.zeros((0, 3), dtype=np.int64))
    assert len(voxels.coordinates) == len(voxels.inverse) == 0
    assert len(voxel_labels(np.zeros(0, np.uint8), voxels)) == 0


def test_both_ways_of_sorting_agree() -> None:
    rng = np.random.default_rng(8)
    near = rng.integers(-30, 30, (5000, 3))
    # One far cell makes cell numbers too large to be packed with the point's number.
    far = np.concatenate([near, [[2**28, 2**19, 2**5]]])
    one, two = quantise(near), quantise(far)
    keep = two.coordinates[:, 0] < 2**27
    assert keep.sum() == len(keep) - 1 and np.array_equal(two.coordinates[keep], one.coordinates)
    assert np.array_equal(two.representative[keep], one.representative)
    assert np.array_equal(one.coordinates[one.inverse], near)
    assert np.array_equal(two.inverse[:-1], one.inverse)
