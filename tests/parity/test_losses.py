"""Losses, schedules and metrics against results of the original code."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pretrain_bench.benchmarks.metrics.semantic import confusion_matrix, iou_per_class, mean_iou
from pretrain_bench.methods.ours.images import gather_pairs, pixel_loss
from pretrain_bench.methods.ours.recipe import OursImages
from pretrain_bench.methods.training.contrast import info_nce, unit_rows
from pretrain_bench.methods.training.optim import polynomial
from tests.parity.vectors import case, load

LOSSES = load("losses_ours")
SCHEDULES = load("schedules")
SEMSEG = load("semseg")


@pytest.mark.parametrize(("name", "pairs"), [("two_pairs", 2), ("with_empty_pair", 3)])
def test_stage_one_loss(name: str, pairs: int) -> None:
    common, golden = case(LOSSES, "ours_stage1"), case(LOSSES, f"ours_stage1_{name}")
    one, two = (torch.from_numpy(common[v]).double().requires_grad_() for v in ("view1", "view2"))
    rows = [gather_pairs(one[i], two[i], torch.from_numpy(common[f"matches{i}"]).long()) for i in range(pairs)]
    loss = pixel_loss(rows, OursImages())
    loss.backward()
    assert np.isclose(float(loss.detach()), golden["loss_f64"], atol=1e-6)
    for view, grad in ((one, golden["grad_view1"]), (two, golden["grad_view2"])):
        assert np.abs(view.grad[: len(grad)].numpy() - grad).max() < 1e-7
        assert not view.grad[len(grad) :].any()


@pytest.mark.parametrize("block", [37, 4096])
def test_stage_two_loss(block: int) -> None:
    golden = case(LOSSES, "ours_stage2")
    points = torch.from_numpy(golden["point_rows"]).double().requires_grad_()
    loss = info_nce(unit_rows(points), unit_rows(torch.from_numpy(golden["pixel_rows"]).double()), 0.4, block)
    loss.backward()
    assert np.isclose(float(loss.detach()), golden["loss_f64"], atol=1e-6)
    assert np.abs(points.grad.numpy() - golden["grad_point_rows"]).max() < 1e-8


@pytest.mark.parametrize(("total", "base"), [(20000, 0.8), (60000, 0.1), (15000, 0.1)])
def test_polynomial_schedule(total: int, base: float) -> None:
    golden = case(SCHEDULES, f"lr_poly_T{total}_base{base}")
    schedule = polynomial(base, 0.9, total)
    for step, rate in zip(golden["steps"], golden["lr_f64"], strict=True):
        assert abs(schedule(int(step)) - rate) < 1e-12


def test_confusion_and_iou() -> None:
    golden = case(SEMSEG, "semseg")
    total = sum(confusion_matrix(golden[f"labels{i}"], golden[f"preds{i}"], 13) for i in range(4))
    assert np.array_equal(total, golden["hist_label_by_pred"])
    assert np.allclose(iou_per_class(total), golden["iou_f64"], atol=1e-12, equal_nan=True)
    assert abs(mean_iou(total) - float(golden["miou_nanmean_f64"])) < 1e-12


def test_a_class_that_occurs_nowhere_is_left_out() -> None:
    golden = case(SEMSEG, "semseg_absent")
    confusion = confusion_matrix(golden["labels"], golden["preds"], 7)
    assert np.allclose(iou_per_class(confusion), golden["iou_7classes_f64"], atol=1e-12, equal_nan=True)
    assert abs(mean_iou(confusion) - float(golden["miou_f64"])) < 1e-12
