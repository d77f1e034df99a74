"""PointContrast, CSC and DepthContrast: losses and partitions against results of the original code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pretrain_bench.methods.csc import partition as csc
from pretrain_bench.methods.csc.partition import fast_partition, general_partition, partitioned_nce, to_world
from pretrain_bench.methods.depthcontrast.moco import Queue, follow, joint_loss, queue_loss
from pretrain_bench.methods.pointcontrast.hardest import hardest_contrastive
from pretrain_bench.methods.training.contrast import info_nce, unit_rows
from tests.parity.vectors import case, load

GOLDEN = load("losses_contrast")
PAIR = case(GOLDEN, "pair")
DEFAULT, ALTERNATIVE = (2.0, 20.0, 2, 2), (3.0, 12.0, 4, 3)


def features() -> tuple[Tensor, Tensor]:
    one, two = (torch.from_numpy(PAIR[f]).double().requires_grad_() for f in ("F0", "F1"))
    return one, two


def rows(golden: dict[str, np.ndarray], name: str) -> Tensor:
    return torch.from_numpy(golden[name]).long()


def same(found: Tensor | None, expected: np.ndarray) -> None:
    assert found is not None and np.abs(found.numpy() - expected).max() <= 1e-6


@pytest.mark.parametrize("name", ["pointinfonce_all", "pointinfonce_sub"])
def test_point_info_nce(name: str) -> None:
    golden = case(GOLDEN, name)
    one, two = features()
    loss = info_nce(one[rows(golden, "q_rows")], two[rows(golden, "k_rows")], 0.4)
    loss.backward()
    assert np.isclose(float(loss), golden["loss_f64"], atol=1e-6)
    same(one.grad, golden["grad_F0"])
    same(two.grad, golden["grad_F1"])


@pytest.mark.parametrize("name", ["hardest_sub", "hardest_allpos"])
def test_hardest_contrastive(name: str) -> None:
    golden = case(GOLDEN, name)
    one, two = features()
    matches = torch.from_numpy(PAIR["matches"]).long()
    found = hardest_contrastive(
        one, two, matches[rows(golden, "positive_sel")], rows(golden, "candidate_rows_F0"),
        rows(golden, "candidate_rows_F1"), matches,
    )  # fmt: skip
    (found.positive + found.negative).backward()
    assert np.allclose([float(found.positive), float(found.negative)], golden["pos_neg_loss_f64"], atol=1e-6)
    assert list(found.kept) == golden["num_kept_negatives"].tolist()
    same(one.grad, golden["grad_F0"])
    same(two.grad, golden["grad_F1"])


def test_hardest_contrastive_without_a_negative_is_no_nan() -> None:
    one = torch.eye(3, dtype=torch.float64).requires_grad_()
    all_pairs = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    found = hardest_contrastive(
        one, torch.eye(3, dtype=torch.float64), all_pairs, torch.arange(3), torch.arange(3), all_pairs
    )
    (found.positive + found.negative).backward()
    assert found.kept == (0, 0) and float(found.negative) == 0 and one.grad is not None and one.grad.isfinite().all()


@pytest.mark.parametrize("cloud", ["grid", "generic", "wide"])
@pytest.mark.parametrize(("variant", "numbers"), [("default", DEFAULT), ("alt", ALTERNATIVE)])
def test_partitions(cloud: str, variant: str, numbers: tuple[float, float, int, int]) -> None:
    golden = case(GOLDEN, f"csc_partition_{cloud}")
    xyz = torch.from_numpy(golden["xyz"])
    fast = fast_partition(*numbers[:2])(xyz, xyz).numpy()
    assert np.array_equal(fast, golden[f"fast_{variant}"])
    general = general_partition(*numbers)(xyz, xyz).numpy()
    clear = golden[f"general_{variant}_ambiguous"] == 0
    assert clear.mean() > 0.9 and np.array_equal(general[clear], golden[f"general_{variant}"][clear])


CSC = {
    "csc_fast4_world": (fast_partition(2, 20), 4, False),
    "csc_fast4_raw": (fast_partition(2, 20), 4, False),
    "csc_general8_world": (general_partition(*DEFAULT), 8, False),
    "csc_fast4_world_sub": (fast_partition(2, 20), 4, False),
    "csc_general8_world_weightinner": (general_partition(*DEFAULT), 8, True),
}


@pytest.mark.parametrize("block", [7, 1024])
@pytest.mark.parametrize("name", CSC)
def test_scene_contexts(name: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csc, "ROW_BLOCK", block)
    golden = case(GOLDEN, name)
    one, two = features()
    _, count, weight_inner = CSC[name]
    losses = []
    for scene in range(2):
        q, k = rows(golden, f"scene{scene}_q_rows"), rows(golden, f"scene{scene}_k_rows")
        given = torch.from_numpy(golden[f"scene{scene}_partition"])
        # Uses the golden partition, by row, since this tests only the loss.
        places = torch.arange(len(q)).double()[:, None].expand(-1, 3)
        losses.append(
            partitioned_nce(one[q], two[k], places, lambda a, _, g=given: g[a[:, 0].long()], count, 0.4, weight_inner)
        )
    loss = torch.stack(losses).mean()
    loss.backward()
    assert np.isclose(float(loss), golden["loss_f64"], atol=1e-6)
    same(one.grad, golden["grad_F0"])
    same(two.grad, golden["grad_F1"])


@pytest.mark.parametrize("name", ["csc_fast4_world", "csc_fast4_raw", "csc_general8_world"])
def test_the_units_and_axes_of_the_partition(name: str) -> None:
    golden = case(GOLDEN, name)
    bins = CSC[name][0]
    for scene in range(2):
        q = golden[f"scene{scene}_q_rows"]
        cells = torch.from_numpy(PAIR["coords0"][q][:, 1:]).float()
        expected = torch.from_numpy(golden[f"scene{scene}_xyz_used"])
        if name.endswith("raw"):
            found = cells
        else:
            found = to_world(cells, 0.025, torch.from_numpy(GOLDEN["csc__T0"][scene]))
        assert float((found - expected).abs().max()) < 1e-3
        share = (bins(expected, expected).numpy() == golden[f"scene{scene}_partition"]).mean()
        assert share > (0.95 if "general" in name else 0.999)


def test_the_joint_loss_and_the_queue() -> None:
    golden = case(GOLDEN, "moco_joint")
    formats, leaves = [], []
    for name in ("point", "vox"):
        query = torch.from_numpy(golden[f"{name}_query"]).double().requires_grad_()
        key = torch.from_numpy(golden[f"{name}_key"]).double()
        formats.append((unit_rows(query), unit_rows(key), torch.from_numpy(golden[f"{name}_queue"]).double()))
        leaves.append((name, query, unit_rows(key)))
    loss, terms = joint_loss(formats[0], formats[1], 0.1)
    loss.backward()
    assert np.isclose(float(loss), golden["loss_f64"], atol=1e-6)
    assert np.allclose([float(t) for t in terms], golden["terms_pp_vv_pv_vp_f64"], atol=1e-6)
    for name, query, key in leaves:
        same(query.grad, golden[f"grad_{name}_query"])
        queue = Queue(64, 24, 0).double()
        queue.rows.copy_(torch.from_numpy(golden[f"{name}_queue"]))
        queue.push(key)
        same(queue.rows, golden[f"{name}_queue_after"])
        assert int(queue.place) == int(golden["ptr_after"][0])


def test_the_single_format_loss() -> None:
    golden = case(GOLDEN, "moco_single")
    query = torch.from_numpy(golden["point_query"]).double().requires_grad_()
    key = unit_rows(torch.from_numpy(golden["point_key"]).double())
    loss = queue_loss(unit_rows(query), key, torch.from_numpy(golden["point_queue"]).double(), 0.1)
    loss.backward()
    assert np.isclose(float(loss), golden["loss_f64"], atol=1e-6)
    same(query.grad, golden["grad_point_query"])


def test_the_queue_holds_exactly_the_last_keys() -> None:
    queue = Queue(12, 5, seed=3)
    assert torch.allclose(queue.rows.norm(dim=1), torch.ones(12)) and torch.equal(queue.rows, Queue(12, 5, seed=3).rows)
    pushed = [unit_rows(torch.randn(4, 5, generator=torch.Generator().manual_seed(n))) for n in range(5)]
    for keys in pushed:
        queue.push(keys)
    held = {tuple(r) for r in queue.rows.tolist()}
    assert held == {tuple(r) for keys in pushed[2:] for r in keys.tolist()}
    with pytest.raises(ValueError, match="a batch of 5 does not divide the queue of 12"):
        queue.push(torch.zeros(5, 5))


def test_the_key_encoder_follows() -> None:
    torch.manual_seed(0)
    fast, slow = torch.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)
    torch.nn.init.constant_(fast.weight, 2.0)
    fast.running_mean += 5
    follow(slow, fast, 0.9)
    assert torch.allclose(slow.weight, torch.full((3,), 1.1)) and torch.equal(slow.running_mean, torch.zeros(3))


def test_row_order_changes_no_loss() -> None:
    generator = torch.Generator().manual_seed(1)
    q, k = (unit_rows(torch.randn(50, 8, generator=generator, dtype=torch.float64)) for _ in range(2))
    xyz = torch.randint(-20, 20, (50, 3), generator=generator).double()
    order = torch.randperm(50, generator=generator)
    for bins, count in ((fast_partition(2, 20), 4), (general_partition(*DEFAULT), 8)):
        one = partitioned_nce(q, k, xyz, bins, count, 0.4)
        two = partitioned_nce(q[order], k[order], xyz[order], bins, count, 0.4)
        assert torch.isclose(one, two, atol=1e-12)
