"""Semantic segmentation scores (spec C.5): confusion matrix, IoU per class, their mean, accuracy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def confusion_matrix(labels: NDArray[np.integer], predictions: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    """Count labels (rows) against predictions (columns), (classes, classes) int64. Labels outside [0, classes) are skipped.

    Raises ValueError if the lengths differ or a counted prediction is outside [0, classes).
    """
    labels, predictions = np.asarray(labels).astype(np.int64), np.asarray(predictions).astype(np.int64)
    if labels.shape != predictions.shape:
        raise ValueError(f"{labels.shape} labels but {predictions.shape} predictions")
    counted = (labels >= 0) & (labels < classes)
    labels, predictions = labels[counted], predictions[counted]
    if len(predictions) and not (predictions.min() >= 0 and predictions.max() < classes):
        raise ValueError(f"a prediction is outside 0..{classes - 1}")
    return np.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)


def iou_per_class(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """TP / (TP + FP + FN) for each class; NaN for a class with neither labels nor predictions."""
    true_positive = np.diag(confusion).astype(np.float64)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - true_positive
    with np.errstate(invalid="ignore", divide="ignore"):
        return true_positive / union


def mean_iou(confusion: NDArray[np.int64], labelled_only: bool = False) -> float:
    """Mean IoU over the classes that are labelled or predicted (only labelled with `labelled_only`); NaN if there are none."""
    iou = iou_per_class(confusion)
    if labelled_only:
        iou = iou[confusion.sum(axis=1) > 0]
    return float(np.nanmean(iou)) if np.isfinite(iou).any() else float("nan")


def accuracy(confusion: NDArray[np.int64]) -> float:
    """Share of counted points that are correct; NaN if none is counted."""
    total = confusion.sum()
    return float(np.trace(confusion) / total) if total else float("nan")
