"""IoU and accuracy of semantic segmentation against sets of points (golden values: test_losses.py)."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest

from pretrain_bench.benchmarks.metrics.semantic import accuracy, confusion_matrix, iou_per_class, mean_iou
from tests.parity import naive
from tests.parity.vectors import case, load

CASES = 1000
SEED = 40


def same(found: float, expected: float) -> bool:
    return abs(found - expected) < 1e-12 or (isnan(found) and isnan(expected))


def test_golden_iou_of_the_plain_definition() -> None:
    golden = case(load("semseg"), "semseg")
    labels, said = (np.concatenate([golden[f"{k}{i}"].reshape(-1) for i in range(4)]) for k in ("labels", "preds"))
    found = naive.class_ious(labels.tolist(), said.tolist(), 13)
    assert np.allclose(found, golden["iou_f64"], atol=1e-12, equal_nan=True)
    assert abs(naive.mean_of(found) - float(golden["miou_nanmean_f64"])) < 1e-12


def test_golden_iou_of_semantickitti() -> None:
    """SemanticKITTI's evaluator ignores label 0, counts a prediction of 0 as a miss, and an absent class as 0 in the mean."""
    golden = case(load("kitti"), "kitti")
    labels, predictions = (
        np.concatenate([golden[f"{k}{i}"] for i in range(3)]).astype(int) for k in ("labels", "preds")
    )
    confusion = confusion_matrix(np.where(labels == 0, 255, labels), predictions, 20)
    assert confusion.sum() == (labels > 0).sum() and confusion[:, 0].sum() > 0
    found = np.nan_to_num(iou_per_class(confusion))
    assert np.allclose(found[1:], golden["iou_f64"][1:], rtol=0, atol=1e-12)
    assert abs(found[1:].mean() - float(golden["miou_f64"])) < 1e-12
    # Its accuracy is over the points predicted as one of the 19 classes.
    assert abs(np.trace(confusion) / confusion[:, 1:].sum() - float(golden["acc_f64"])) < 1e-12
    # This project's networks have no class 0. Class 19 is predicted but never labelled: 0 in both means.
    said = predictions > 0
    mine = confusion_matrix(np.where(labels == 0, 255, labels - 1)[said], predictions[said] - 1, 19)
    plain = naive.class_ious(labels[said & (labels > 0)].tolist(), predictions[said & (labels > 0)].tolist(), 20)[1:]
    assert np.allclose(iou_per_class(mine), plain, rtol=0, atol=1e-12) and iou_per_class(mine)[18] == 0
    assert abs(mean_iou(mine) - np.mean(plain)) < 1e-12


def test_random_labels() -> None:
    rng = np.random.default_rng(SEED)
    without = 0
    for number in range(CASES):
        classes, count = int(rng.integers(1, 6)), rng.integers(0, 30)
        labels = rng.choice([-100, -1, 255, classes, *range(classes), *range(classes)], count)
        said = rng.integers(0, 1 + rng.integers(classes), count)
        # Predictions of ignored points do not matter.
        said = np.where((labels >= 0) & (labels < classes), said, rng.integers(-5, 300, count))
        confusion = confusion_matrix(labels, said, classes)
        lists = labels.tolist(), said.tolist(), classes
        ious = naive.class_ious(*lists)
        assert np.allclose(iou_per_class(confusion), ious, atol=1e-12, equal_nan=True), f"seed {SEED}: case {number}"
        labelled = [iou for name, iou in enumerate(ious) if name in lists[0]]
        assert same(mean_iou(confusion), naive.mean_of(ious)), f"seed {SEED}: case {number}"
        assert same(mean_iou(confusion, labelled_only=True), naive.mean_of(labelled)), f"seed {SEED}: case {number}"
        assert same(accuracy(confusion), naive.share_right(*lists)), f"seed {SEED}: case {number}"
        without += any(map(isnan, ious))
    assert CASES / 10 < without < CASES * 0.9


def test_by_hand() -> None:
    # Class 0: two of three right, one of class 1 predicted as 0: 2 / 4. Class 1: 1 / 3. Class 2: predicted only on void: NaN.
    # Class 3 is predicted once and never labelled: 0 of 1, and left out if only labelled classes count.
    labels, said = np.array([0, 0, 0, 1, 1, 255, 1]), np.array([0, 0, 1, 0, 1, 2, 3])
    confusion = confusion_matrix(labels, said, 4)
    assert np.allclose(iou_per_class(confusion), [2 / 4, 1 / 4, np.nan, 0], equal_nan=True)
    assert mean_iou(confusion) == 0.25 and mean_iou(confusion, labelled_only=True) == 0.375
    assert accuracy(confusion) == 0.5
    nothing = confusion_matrix(np.array([255]), np.array([0]), 3)
    assert isnan(mean_iou(nothing)) and isnan(mean_iou(nothing, labelled_only=True)) and isnan(accuracy(nothing))


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(ValueError, match="labels but"):
        confusion_matrix(np.zeros(3, int), np.zeros(2, int), 2)
    for said in (2, -1):
        with pytest.raises(ValueError, match=r"outside 0\.\.1"):
            confusion_matrix(np.zeros(1, int), np.array([said]), 2)
