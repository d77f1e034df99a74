"""Takes predictions, gives back numbers. The only place that reads test labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.datasets.views import load_cloud, load_labels
from benchmarks.metrics.semantic import accuracy, confusion_matrix, iou_per_class, mean_iou
from benchmarks.transforms import evaluation_voxels
from benchmarks.voxelize import voxel_labels

Metrics = dict[str, float | None]


class SemanticScorer:
    """Scores voxel predictions of whole scenes on voxels (the paper's protocol) and on points."""

    def __init__(self, view: Path, scenes: Iterable[str], voxel_metres: float, classes: int) -> None:
        self.classes = classes
        self._voxel: dict[str, NDArray[np.uint8]] = {}
        self._point: dict[str, NDArray[np.uint8]] = {}
        self._inverse: dict[str, NDArray[np.int32]] = {}
        for scene in scenes:
            voxels = evaluation_voxels(np.asarray(load_cloud(view, scene).xyz), voxel_metres)
            labels = np.asarray(load_labels(view, scene).semantic)
            self._voxel[scene] = voxel_labels(labels, voxels)
            self._point[scene] = labels
            self._inverse[scene] = voxels.inverse.astype(np.int32)  # a whole drive is held at once

    def voxels(self, scene: str) -> int:
        """How many predictions a scene needs."""
        return len(self._voxel[scene])

    def score(self, predictions: Mapping[str, NDArray[np.uint8]]) -> Metrics:
        """Flat metrics over all scenes: `miou_voxel`, `miou_voxel_labelled`, `miou_point`, `accuracy_voxel`,
        `iou_voxel/<class id>`, `iou_point/<class id>`.

        A value that is not defined (no labels at all) is None. Raises ValueError for a scene without a prediction, or with
        one of another length.
        """
        voxel = self.confusion(predictions)
        point = np.zeros_like(voxel)
        for scene in self._point:
            point += self.scene_counts(scene, predictions[scene])["point"]
        return metrics_of(voxel, point)

    def scene_counts(self, scene: str, prediction: NDArray[np.uint8]) -> dict[str, NDArray[np.int64]]:
        """`voxel` and `point`: (classes, classes) counts of one scene, rows are labels. All metrics follow from their sums."""
        return {
            "voxel": confusion_matrix(self._voxel[scene], prediction, self.classes),
            "point": confusion_matrix(self._point[scene], prediction[self._inverse[scene]], self.classes),
        }

    def confusion(self, predictions: Mapping[str, NDArray[np.uint8]]) -> NDArray[np.int64]:
        """(classes, classes) voxel counts over all scenes, rows are labels."""
        missing = [s for s in self._voxel if s not in predictions]
        if missing:
            raise ValueError(f"no prediction for scene {missing[0]}")
        total = np.zeros((self.classes, self.classes), dtype=np.int64)
        for scene, labels in self._voxel.items():
            total += confusion_matrix(labels, predictions[scene], self.classes)
        return total

    def majority_class(self) -> int:
        """The most frequent label: what a predictor without any input would say."""
        counts = sum(np.bincount(v, minlength=256)[: self.classes] for v in self._voxel.values())
        return int(np.argmax(counts))


def metrics_of(voxel: NDArray[np.int64], point: NDArray[np.int64]) -> Metrics:
    """The flat metrics of (classes, classes) counts on voxels and on points, rows are labels."""
    metrics: Metrics = {
        "miou_voxel": _number(mean_iou(voxel)),
        "miou_voxel_labelled": _number(mean_iou(voxel, labelled_only=True)),
        "miou_point": _number(mean_iou(point)),
        "accuracy_voxel": _number(accuracy(voxel)),
    }
    for kind, counts in (("voxel", voxel), ("point", point)):
        metrics.update({f"iou_{kind}/{c}": _number(iou) for c, iou in enumerate(iou_per_class(counts))})
    return metrics


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
