"""Score predictions against test labels. No other module reads test labels.

A scorer reduces each scene's prediction to counts (lists and numbers that JSON can hold). Every metric follows from the counts
of all scenes, so metrics can be recomputed without the data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.datasets.views import load_boxes, load_cloud, load_labels
from pretrain_bench.benchmarks.input.transforms import evaluation_voxels
from pretrain_bench.benchmarks.input.voxelise import IGNORE, Voxels, voxel_labels
from pretrain_bench.benchmarks.metrics import detection_ap, instance_ap
from pretrain_bench.benchmarks.metrics import predictions as prediction_files
from pretrain_bench.benchmarks.metrics.instance_ap import Instances
from pretrain_bench.benchmarks.metrics.predictions import Prediction
from pretrain_bench.benchmarks.metrics.semantic import accuracy, confusion_matrix, iou_per_class, mean_iou
from pretrain_bench.benchmarks.specs.recipes import DetectionRecipe, InstanceRecipe, SemanticRecipe
from pretrain_bench.benchmarks.support.errors import DataError

Metrics = dict[str, float | None]
Counts = dict[str, Any]
LabelTotals = dict[str, list[int]]
MOST_COUNTED = 1 << 53


class Scorer(Protocol):
    """The interface of the scorers of all kinds of task."""

    def read(self, folder: Path, scene: str) -> Prediction:
        """Read and check a saved prediction. Raises DataError."""

    def counts(self, scene: str, prediction: Prediction) -> Counts:
        """A scene's contribution to every metric. Raises ValueError for a prediction that does not fit the scene."""

    def score(self, predictions: Mapping[str, Prediction]) -> Metrics:
        """Flat metrics over all scenes. Raises ValueError for a scene without a prediction."""

    def constant(self, scene: str) -> Prediction:
        """The prediction of a constant predictor, which does not look at the scene."""


def scorer_of(
    recipe: object,
    classes: Sequence[str],
    things: Sequence[str],
    view: Path,
    scenes: Iterable[str],
    label_ids: Sequence[int] = (),
) -> Scorer:
    """The scorer of a task; `things` are the classes that have instances, `label_ids` as for `load_labels`."""
    if isinstance(recipe, DetectionRecipe):
        return DetectionScorer(view, scenes, len(classes))
    if isinstance(recipe, InstanceRecipe):
        counted = recipe.counted_classes(classes, things)
        return InstanceScorer(view, scenes, recipe.voxel_metres, len(classes), counted, recipe.least_voxels, label_ids)
    assert isinstance(recipe, SemanticRecipe)
    return SemanticScorer(view, scenes, recipe.voxel_metres, len(classes), label_ids)


def metrics_of_counts(counts: Sequence[Counts]) -> Metrics:
    """The metrics from the counts of all test scenes, for any kind of task."""
    if not counts:
        return {}
    if "boxes" in counts[0]:
        return detection_metrics([c["boxes"] for c in counts])
    if "instances" in counts[0]:
        return instance_metrics(counts)
    voxel, point = (sum(np.asarray(c[level], np.int64) for c in counts) for level in ("voxel", "point"))
    return metrics_of(voxel, point)  # type: ignore[arg-type]


def confusion_of_counts(counts: Sequence[Counts]) -> dict[str, list[list[int]]]:
    """Confusion matrices (classes, classes) over all test scenes, for `voxel` and, if counted, `point`; empty for boxes."""
    levels = [level for level in ("voxel", "point") if counts and level in counts[0]]
    return {level: np.sum([np.asarray(c[level], np.int64) for c in counts], axis=0).tolist() for level in levels}


def label_totals(counts: Counts) -> LabelTotals:
    """The part of a scene's counts that its labels alone determine, whatever the prediction: the number of voxels, points or
    boxes of each class."""
    totals: LabelTotals = {}
    for level in ("voxel", "point"):
        if level in counts:
            totals[level] = np.asarray(counts[level], np.int64).sum(1).tolist()
    if "boxes" in counts:
        totals["boxes"] = [int(verdicts[0][2]) for verdicts in counts["boxes"]]
    return totals


def counts_problem(counts: Counts, classes: int, points: int | None = None) -> str | None:
    """Why these cannot be the counts of a scene (of `points` points, if known); None if they can.

    Raises LookupError or TypeError for data that are not counts at all.
    """
    for level in ("voxel", "point"):
        if level not in counts:
            continue
        rows = counts[level]
        if len(rows) != classes or any(len(row) != classes for row in rows):
            return f"{level}: expected {classes} rows of {classes} counts"
        if not all(type(n) is int and 0 <= n < MOST_COUNTED for row in rows for n in row):
            return f"{level}: a count that is negative or not a whole number"
        total = sum(map(sum, rows))
        if points is not None and total > points:
            return f"{level}: {total:,} counted, but the scene has {points:,} points"
    lists = [t for v in (counts.get("instances") or {}).values() if v for t in v]
    for confidences, true, missed in [*lists, *(t for v in counts.get("boxes") or () for t in v)]:
        if len(confidences) != len(true) or not set(true) <= {0, 1} or type(missed) is not int or missed < 0:
            return "instances or boxes: lists of unequal length, a verdict other than 0 or 1, or a negative count"
    return None


class SemanticScorer:
    """Scores voxel predictions of whole scenes, on voxels (the paper's protocol) and on points."""

    def __init__(
        self, view: Path, scenes: Iterable[str], voxel_metres: float, classes: int, label_ids: Sequence[int] = ()
    ) -> None:
        self.classes = classes
        self._voxel: dict[str, NDArray[np.uint8]] = {}
        self._point: dict[str, NDArray[np.uint8]] = {}
        self._inverse: dict[str, NDArray[np.int32]] = {}
        for scene in scenes:
            voxels = evaluation_voxels(np.asarray(load_cloud(view, scene).xyz), voxel_metres)
            labels = np.asarray(load_labels(view, scene, label_ids).semantic)
            self._voxel[scene] = voxel_labels(labels, voxels)
            self._point[scene] = labels
            self._inverse[scene] = voxels.inverse.astype(np.int32)  # int64 would double the memory of a drive

    def voxels(self, scene: str) -> int:
        """Number of voxels that a scene's prediction must cover."""
        return len(self._voxel[scene])

    def read(self, folder: Path, scene: str) -> Prediction:
        """See `Scorer`."""
        return prediction_files.read(folder, scene, "semantic", {"V": self.voxels(scene)})

    def counts(self, scene: str, prediction: Prediction) -> Counts:
        """`voxel` and `point`: confusion matrices (classes, classes) of one scene, with labels as rows."""
        classes = prediction["classes"]
        voxel = confusion_matrix(self._voxel[scene], classes, self.classes)
        point = confusion_matrix(self._point[scene], classes[self._inverse[scene]], self.classes)
        return {"voxel": voxel.tolist(), "point": point.tolist()}

    def score(self, predictions: Mapping[str, Prediction]) -> Metrics:
        """`miou_voxel`, `miou_voxel_labelled`, `miou_point`, `accuracy_voxel`, `iou_voxel/<class id>`, `iou_point/<class id>`.

        An undefined value (no labels at all) is None.
        """
        return metrics_of_counts([self.counts(s, _of(predictions, s)) for s in self._voxel])

    def constant(self, scene: str) -> Prediction:
        """The prediction of a constant predictor: the most frequent label everywhere."""
        return {"classes": np.full(self.voxels(scene), self.majority_class(), np.uint8)}

    def majority_class(self) -> int:
        """The most frequent label over all scenes."""
        counts = sum(np.bincount(v, minlength=256)[: self.classes] for v in self._voxel.values())
        return int(np.argmax(counts))


class InstanceScorer:
    """Scores voxel classes and instances of whole scenes, on voxels (spec F.2). `counted` are the classes with instances.

    A voxel is void if its points disagree about class or instance, if its class is not counted, or if it has no instance.
    """

    def __init__(
        self,
        view: Path,
        scenes: Iterable[str],
        voxel_metres: float,
        classes: int,
        counted: Sequence[int],
        least_voxels: int,
        label_ids: Sequence[int] = (),
    ) -> None:
        self.classes, self.counted, self.least_voxels = classes, list(counted), least_voxels
        self._semantic: dict[str, NDArray[np.uint8]] = {}
        self._instance: dict[str, NDArray[np.int32]] = {}
        for scene in scenes:
            voxels = evaluation_voxels(np.asarray(load_cloud(view, scene).xyz), voxel_metres)
            labels = load_labels(view, scene, label_ids)
            self._semantic[scene] = voxel_labels(np.asarray(labels.semantic), voxels)
            self._instance[scene] = voxel_instances(
                np.asarray(labels.semantic), np.asarray(labels.instance), voxels, counted
            )

    def read(self, folder: Path, scene: str) -> Prediction:
        """See `Scorer`."""
        arrays = prediction_files.read(folder, scene, "instance", {"V": len(self._semantic[scene])})
        starts, voxels = arrays["starts"].astype(np.int64), arrays["voxels"]
        instances = len(arrays["instance_classes"])
        if len(starts) != instances + 1 or starts[0] != 0 or starts[-1] != len(voxels) or (np.diff(starts) < 0).any():
            raise DataError(
                f"{scene}.npz: starts: expected {instances + 1} non-decreasing numbers from 0 to {len(voxels)}"
            )
        if len(voxels) and not (voxels.min() >= 0 and voxels.max() < len(self._semantic[scene])):
            raise DataError(f"{scene}.npz: voxels: a row outside 0..{len(self._semantic[scene]) - 1}")
        pairs = np.repeat(np.arange(instances), np.diff(starts)) * len(self._semantic[scene]) + voxels
        if len(np.unique(pairs)) != len(pairs):
            raise DataError(f"{scene}.npz: voxels: an instance lists a voxel twice")
        if not np.isfinite(arrays["confidences"]).all():
            raise DataError(f"{scene}.npz: confidences: not all are finite")
        return arrays

    def counts(self, scene: str, prediction: Prediction) -> Counts:
        """`voxel`, and `instances`: confidences, verdicts and missed instances for each counted class and threshold; see
        `instance_ap`."""
        instances = Instances(
            prediction["voxels"], prediction["starts"], prediction["instance_classes"], prediction["confidences"]
        )
        result = instance_ap.scene_verdicts(
            self._semantic[scene], self._instance[scene], instances, self.counted, self.least_voxels
        )
        listed = {
            str(c): None
            if v is None
            else [[one.confidences.tolist(), one.true.astype(int).tolist(), one.missed] for one in v]
            for c, v in result.items()
        }
        matrix = confusion_matrix(self._semantic[scene], prediction["classes"], self.classes)
        return {"voxel": matrix.tolist(), "instances": listed}

    def score(self, predictions: Mapping[str, Prediction]) -> Metrics:
        """`ap`, `ap50`, `ap25` and the same with `/<class id>`; `miou_voxel`, `accuracy_voxel` and `iou_voxel/<class id>`.

        An undefined value is None.
        """
        return metrics_of_counts([self.counts(s, _of(predictions, s)) for s in self._semantic])

    def constant(self, scene: str) -> Prediction:
        """The prediction of a constant predictor: one instance, of the most frequent class that has any, covers everything."""
        voxels = len(self._semantic[scene])
        sizes = sum(np.bincount(v, minlength=256)[: self.classes] for v in self._semantic.values())
        named = max(self.counted, key=lambda c: int(sizes[c]))  # type: ignore[index]
        return {
            "classes": np.full(voxels, int(np.argmax(sizes)), np.uint8),
            "voxels": np.arange(voxels, dtype=np.int32),
            "starts": np.array([0, voxels], np.int32),
            "instance_classes": np.array([named], np.uint8),
            "confidences": np.ones(1, np.float32),
        }


class DetectionScorer:
    """Scores the boxes of whole scenes (spec F.4), along the axes in which the scene's boxes are labelled."""

    def __init__(self, view: Path, scenes: Iterable[str], classes: int) -> None:
        self.classes = classes
        self._boxes = {scene: np.asarray(load_boxes(view, scene), np.float64) for scene in scenes}

    def read(self, folder: Path, scene: str) -> Prediction:
        """See `Scorer`."""
        arrays = prediction_files.read(folder, scene, "detection", {"C": self.classes})
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise DataError(f"{scene}.npz: {name}: not all numbers are finite")
        if (arrays["boxes"][:, 3:6] < 0).any():
            raise DataError(f"{scene}.npz: boxes: a negative size")
        return arrays

    def counts(self, scene: str, prediction: Prediction) -> Counts:
        """`boxes`: scores, verdicts and the number of objects for each class and overlap; see `detection_ap`."""
        objects = self._boxes[scene]
        result = detection_ap.Detections(prediction["boxes"], prediction["objectness"], prediction["probabilities"])
        verdicts = [
            detection_ap.scene_verdicts(boxes, scores, objects[objects[:, 7] == c])
            for c, (boxes, scores) in enumerate(detection_ap.scored(result))
        ]
        return {
            "boxes": [[[v.scores.tolist(), v.true.astype(int).tolist(), v.objects] for v in each] for each in verdicts]
        }

    def score(self, predictions: Mapping[str, Prediction]) -> Metrics:
        """`map25`, `map50`, `recall25`, `recall50`, and `ap25/<class id>`, `ap50/<class id>`; None if undefined."""
        return metrics_of_counts([self.counts(s, _of(predictions, s)) for s in self._boxes])

    def constant(self, scene: str) -> Prediction:
        """The prediction of a constant predictor: in every scene the mean box of the most frequent class, once."""
        boxes = np.concatenate([np.zeros((0, 8)), *self._boxes.values()])
        named = int(np.bincount(boxes[:, 7].astype(int), minlength=self.classes).argmax()) if len(boxes) else 0
        mine = boxes[boxes[:, 7] == named]
        box = mine[:, :7].mean(axis=0, keepdims=True) if len(mine) else np.zeros((0, 7))
        certain = np.eye(self.classes, dtype=np.float32)[np.full(len(box), named)]
        return {"boxes": box.astype(np.float32), "objectness": np.ones(len(box), np.float32), "probabilities": certain}


def voxel_instances(
    semantic: NDArray[np.integer], instance: NDArray[np.integer], voxels: Voxels, counted: Sequence[int]
) -> NDArray[np.int32]:
    """(V,) the instance shared by all points of a voxel; -1 if they disagree or their class has no instances."""
    known = np.isin(semantic, list(counted)) & (np.asarray(semantic) != IGNORE)
    return voxel_labels(np.where(known, instance, -1).astype(np.int32), voxels, ignore=-1)


def metrics_of(voxel: NDArray[np.int64], point: NDArray[np.int64]) -> Metrics:
    """Metrics from confusion matrices (classes, classes) on voxels and on points, with labels as rows."""
    metrics: Metrics = {
        "miou_voxel": _number(mean_iou(voxel)),
        "miou_voxel_labelled": _number(mean_iou(voxel, labelled_only=True)),
        "miou_point": _number(mean_iou(point)),
        "accuracy_voxel": _number(accuracy(voxel)),
    }
    for kind, counts in (("voxel", voxel), ("point", point)):
        metrics.update({f"iou_{kind}/{c}": _number(iou) for c, iou in enumerate(iou_per_class(counts))})
    return metrics


def instance_metrics(counts: Sequence[Counts]) -> Metrics:
    """Metrics of instances from the counts of all scenes."""
    voxel = np.sum([np.asarray(c["voxel"], np.int64) for c in counts], axis=0)
    precision: dict[str, list[float]] = {"ap": [], "ap50": [], "ap25": []}
    metrics: Metrics = {}
    for name in counts[0]["instances"]:
        scenes = [c["instances"][name] for c in counts if c["instances"][name] is not None]
        precisions = [
            instance_ap.average_precision(
                instance_ap.joined(
                    instance_ap.Verdicts(np.asarray(v[t][0], np.float64), np.asarray(v[t][1], bool), v[t][2])
                    for v in scenes
                )
            )
            for t in range(len(instance_ap.THRESHOLDS))
        ]
        for kind, value in (("ap", float(np.mean(precisions[:-1]))), ("ap50", precisions[0]), ("ap25", precisions[-1])):
            precision[kind].append(value)
            metrics[f"{kind}/{name}"] = _number(value)
    means = {kind: _nan_mean(values) for kind, values in precision.items()}
    semantic: Metrics = {"miou_voxel": _number(mean_iou(voxel)), "accuracy_voxel": _number(accuracy(voxel))}
    per_class = {f"iou_voxel/{c}": _number(iou) for c, iou in enumerate(iou_per_class(voxel))}
    return {**means, **semantic, **metrics, **per_class}


def detection_metrics(scenes: Sequence[Any]) -> Metrics:
    """Metrics of detection from the counts of all scenes."""
    metrics: Metrics = {}
    for place, overlap in enumerate(detection_ap.OVERLAPS):
        name = f"{100 * overlap:.0f}"
        precisions = [
            detection_ap.average_precision(
                detection_ap.joined(
                    detection_ap.Verdicts(
                        np.asarray(v[c][place][0], np.float64), np.asarray(v[c][place][1], bool), v[c][place][2]
                    )
                    for v in scenes
                )
            )
            for c in range(len(scenes[0]))
        ]
        metrics[f"map{name}"] = _nan_mean([ap for ap, _ in precisions])
        metrics[f"recall{name}"] = _nan_mean([recall for _, recall in precisions])
        metrics.update({f"ap{name}/{c}": _number(ap) for c, (ap, _) in enumerate(precisions)})
    return metrics


def _of(predictions: Mapping[str, Prediction], scene: str) -> Prediction:
    if scene not in predictions:
        raise ValueError(f"no prediction for scene {scene}")
    return predictions[scene]


def _nan_mean(values: Sequence[float]) -> float | None:
    known = [v for v in values if np.isfinite(v)]
    return float(np.mean(known)) if known else None


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
