"""PointNet++: sampling and grouping against golden vectors and plain loops, and the trunk's shapes and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pretrain_bench.methods.networks.pointnet2 import (
    PAIRS_AT_ONCE,
    FeaturePropagation,
    PointLevel,
    PointNet2,
    SetAbstraction,
    ball_query,
    furthest_point_sample,
    gather_rows,
    votenet_levels,
)
from tests.parity.vectors import load


def test_sampling_equals_the_golden_vectors_with_their_rule_for_the_origin() -> None:
    golden = load("points")
    points = torch.from_numpy(golden["fps__xyz"])
    assert np.array_equal(furthest_point_sample(points, 256, skip_origin=True).numpy(), golden["fps__indices"])
    plain = furthest_point_sample(points, 256)
    assert not np.array_equal(plain.numpy(), golden["fps__indices"]), "seven points lie near the origin"
    assert all(len(set(row.tolist())) == 256 for row in plain)


@pytest.mark.parametrize(("radius", "count"), [(0.3, 16), (0.2, 32)])
def test_ball_query_equals_the_golden_vectors(radius: float, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = load("points")
    points, queries = torch.from_numpy(golden["fps__xyz"]), torch.from_numpy(golden["ball__query_xyz"])
    expected = golden[f"ball__idx_r{int(100 * radius)}_n{count}"]
    assert np.array_equal(ball_query(queries, points, radius, count).numpy(), expected)
    monkeypatch.setitem(PAIRS_AT_ONCE, "cpu", 7000)
    assert np.array_equal(ball_query(queries, points, radius, count).numpy(), expected), "a few centres at a time"


def plain_sample(points: np.ndarray, count: int) -> list[int]:
    chosen = [0]
    while len(chosen) < count:
        best = [min(float(((p - points[c]) ** 2).sum()) for c in chosen) for p in points]
        chosen.append(int(np.argmax(best)))
    return chosen


@pytest.mark.parametrize("seed", range(5))
def test_sampling_and_grouping_equal_plain_loops(seed: int) -> None:
    """Integer coordinates, so that many distances are equal: ties go to the first point."""
    rng = np.random.default_rng(seed)
    points = np.unique(rng.integers(-3, 4, (40, 3)), axis=0)[:24].astype(np.float32)
    rng.shuffle(points)
    batch = torch.from_numpy(np.stack([points, points[::-1]]))
    found = furthest_point_sample(batch, 10)
    for item in range(2):
        assert found[item].tolist() == plain_sample(batch[item].numpy(), 10)
    groups = ball_query(batch[:, :5], batch, 2.0, 4)
    for item in range(2):
        for query in range(5):
            apart = ((batch[item].numpy() - batch[item, query].numpy()) ** 2).sum(1)
            near = np.flatnonzero(apart < 4.0)[:4].tolist()
            assert groups[item, query].tolist() == near + [near[0]] * (4 - len(near))


def test_a_set_abstraction_by_hand() -> None:
    torch.manual_seed(0)
    layer = SetAbstraction(PointLevel(4, 0.8, 5, (6, 7)), 2).eval()
    points, features = torch.rand(2, 30, 3), torch.rand(2, 30, 2)
    centres, out = layer(points, features)
    sample = furthest_point_sample(points, 4)
    groups = ball_query(centres, points, 0.8, 5)
    for item in range(2):
        assert torch.equal(centres[item], points[item, sample[item]])
        for centre in range(4):
            rows = groups[item, centre]
            relative = (points[item, rows] - centres[item, centre]) / 0.8
            expected = layer.layers(torch.cat([relative, features[item, rows]], 1)).amax(0)
            assert torch.allclose(out[item, centre], expected, atol=1e-6)


def test_propagation_returns_features_at_their_own_points() -> None:
    layer = FeaturePropagation((5, 5)).eval()
    layer.layers = torch.nn.Identity()  # type: ignore[assignment]
    coarse, features = torch.rand(1, 6, 3), torch.rand(1, 6, 4)
    fine = torch.cat([coarse[:, 2:4], coarse[:, :1] + 1e-9], 1)
    out = layer(fine, coarse, torch.ones(1, 3, 1), features)
    assert torch.allclose(out[0, :, :4], features[0, [2, 3, 0]], atol=1e-4) and torch.equal(out[0, :, 4], torch.ones(3))


def test_the_trunk_ignores_the_place_and_the_order_of_scans_and_every_weight_learns() -> None:
    torch.manual_seed(0)
    trunk = PointNet2(votenet_levels((64, 32, 16, 8), (16, 8, 8, 8), 0.25), 32)
    points = torch.rand(3, 200, 3) * 2
    out = trunk(points)
    assert out.shape == (3, 32, 32)
    out.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in trunk.parameters())
    trunk.eval()
    moved = trunk(points + torch.tensor([5.0, -3.0, 2.0]))
    assert torch.allclose(moved, trunk(points), atol=1e-3)
    assert torch.allclose(trunk(points.flip(0)), trunk(points).flip(0), atol=1e-6)


def test_the_full_trunk_has_the_published_layers() -> None:
    trunk = PointNet2(votenet_levels((2048, 1024, 512, 256), (64, 32, 16, 16), 1.0), 512)
    shapes = [tuple(p.shape) for p in trunk.parameters() if p.dim() == 2]
    down = [(64, 3), (64, 64), (128, 64), (128, 131), (128, 128), (256, 128), (128, 259), (128, 128), (256, 128),
            (128, 259), (128, 128), (256, 128)]  # fmt: skip
    assert shapes == [*down, (512, 512), (512, 512), (512, 768), (512, 512)]
    assert [d.level.radius_metres for d in trunk.down] == [0.2, 0.4, 0.8, 1.2]  # type: ignore[union-attr]


def test_gathered_gradients_are_summed() -> None:
    features = torch.zeros(2, 3, 1, requires_grad=True)
    gather_rows(features, torch.tensor([[0, 0, 2], [1, 1, 1]])).sum().backward()
    assert features.grad is not None and features.grad[:, :, 0].tolist() == [[2, 0, 1], [0, 3, 0]]


def test_more_samples_than_points_are_refused() -> None:
    with pytest.raises(ValueError, match="5 samples of 4 points"):
        furthest_point_sample(torch.zeros(1, 4, 3), 5)
