"""Decode detector outputs to boxes, and compute their average precision (spec F.3, F.4).

Only the matching needs boxes. A scene's contribution to the score of a class is a list of scored verdicts and a number of
objects, which can be stored without points and joined over scenes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.input.boxes import extents, oriented_iou, points_inside, suppress

OVERLAPS = (0.25, 0.5)
"""Overlaps (intersection over union) that a match must exceed."""
SUPPRESSION_OVERLAP = 0.25
LEAST_OBJECTNESS = 0.05
LEAST_POINTS_IN_BOX = 5


class RawBoxes(NamedTuple):
    """A detector's outputs for P proposals of one scene: centres (P, 3) metres; heading scores and residuals (P, NH), radians;
    size scores (P, NS) and residuals (P, NS, 3), metres; class scores (P, NC) and objectness scores (P, 2), logits."""

    centres: NDArray[np.floating]
    heading_scores: NDArray[np.floating]
    heading_residuals: NDArray[np.floating]
    size_scores: NDArray[np.floating]
    size_residuals: NDArray[np.floating]
    class_scores: NDArray[np.floating]
    objectness_scores: NDArray[np.floating]


class Detections(NamedTuple):
    """Boxes (K, 7) with objectness (K,) and class probabilities (K, C)."""

    boxes: NDArray[np.float64]
    objectness: NDArray[np.float64]
    classes: NDArray[np.float64]


class Verdicts(NamedTuple):
    """For one class at one overlap: the score and correctness of every detection, and the number of objects."""

    scores: NDArray[np.float64]
    true: NDArray[np.bool_]
    objects: int


def decode(raw: RawBoxes, mean_sizes: NDArray[np.floating]) -> Detections:
    """Decode P proposals to boxes (P, 7) in metres and radians: the heading bin and size class with the highest score, plus their
    residuals. `mean_sizes` (NS, 3) is in metres."""
    rows = np.arange(len(raw.centres))
    bins = raw.heading_scores.shape[1]
    chosen = raw.heading_scores.argmax(axis=1)
    heading = chosen * (2 * np.pi / bins) + np.asarray(raw.heading_residuals, np.float64)[rows, chosen]
    heading = np.where(heading > np.pi, heading - 2 * np.pi, heading)
    size_class = raw.size_scores.argmax(axis=1)
    size = np.asarray(mean_sizes, np.float64)[size_class] + np.asarray(raw.size_residuals, np.float64)[rows, size_class]
    boxes = np.column_stack([np.asarray(raw.centres, np.float64), size, heading if bins > 1 else np.zeros(len(rows))])
    return Detections(boxes, _softmax(raw.objectness_scores)[:, 1], _softmax(raw.class_scores))


def survivors(
    detections: Detections,
    within_class: bool = True,
    in_plan: bool = False,
    xyz: NDArray[np.floating] | None = None,
) -> NDArray[np.int64]:
    """(n,) int64 sorted rows that survive suppression on the axis-aligned extents of the boxes (seen from above with
    `in_plan`), by objectness: within each class, as in CSC, or over all classes. With `xyz` (N, 3), boxes that contain fewer
    than 5 points are removed first."""
    rows = np.arange(len(detections.boxes))
    if xyz is not None:
        rows = np.array(
            [r for r in rows if points_inside(xyz, detections.boxes[r]).sum() >= LEAST_POINTS_IN_BOX], np.int64
        )
    spans = extents(detections.boxes[rows])
    if in_plan:
        spans = spans[:, [0, 1, 3, 4]]
    classes = detections.classes[rows].argmax(axis=1) if within_class else None
    return np.sort(rows[suppress(spans, detections.objectness[rows], SUPPRESSION_OVERLAP, classes)])


def kept(detections: Detections) -> Detections:
    """The detections to score: survivors of the suppression within each class, with objectness above LEAST_OBJECTNESS."""
    rows = survivors(detections)
    rows = rows[detections.objectness[rows] > LEAST_OBJECTNESS]
    return Detections(detections.boxes[rows], detections.objectness[rows], detections.classes[rows])


def scored(detections: Detections, every_class: bool = True) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """For each class, its boxes (n, 7) and scores (n,). With `every_class`, as in CSC, each box counts for every class, with
    objectness times class probability; otherwise it counts only for its likeliest class, with its objectness."""
    if every_class:
        return [
            (detections.boxes, detections.objectness * detections.classes[:, c])
            for c in range(detections.classes.shape[1])
        ]
    best_class = detections.classes.argmax(axis=1)
    return [
        (detections.boxes[best_class == c], detections.objectness[best_class == c])
        for c in range(detections.classes.shape[1])
    ]


def scene_verdicts(
    boxes: NDArray[np.floating],
    scores: NDArray[np.floating],
    objects: NDArray[np.floating],
    overlaps: Iterable[float] = OVERLAPS,
) -> list[Verdicts]:
    """Judge the detections (K, 7) of one class against its objects (G, 7), for each overlap.

    In order of decreasing score, a detection is correct if the object with the largest overlap exceeds the threshold and is
    unmatched.
    """
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    boxes, scores = np.asarray(boxes, np.float64)[order], np.asarray(scores, np.float64)[order]
    iou = np.zeros((len(boxes), len(objects)))
    if iou.size:
        pairs = np.indices(iou.shape).reshape(2, -1)
        iou = oriented_iou(boxes[pairs[0]], np.asarray(objects, np.float64)[pairs[1], :7]).reshape(iou.shape)
    best = iou.argmax(axis=1) if len(objects) else np.zeros(len(boxes), np.int64)
    most = iou.max(axis=1) if len(objects) else np.zeros(len(boxes))
    verdicts = []
    for overlap in overlaps:
        hits = np.flatnonzero(most > overlap)
        _, first = np.unique(best[hits], return_index=True)
        true = np.zeros(len(boxes), dtype=bool)
        true[hits[first]] = True
        verdicts.append(Verdicts(scores, true, len(objects)))
    return verdicts


def joined(parts: Iterable[Verdicts]) -> Verdicts:
    """Join the verdicts of several scenes."""
    listed = list(parts)
    return Verdicts(
        np.concatenate([np.zeros(0), *(p.scores for p in listed)]),
        np.concatenate([np.zeros(0, bool), *(p.true for p in listed)]),
        sum(p.objects for p in listed),
    )


def average_precision(verdicts: Verdicts) -> tuple[float, float]:
    """Area under the monotone envelope of the precision-recall curve, and the highest recall; NaN for a class without objects."""
    if not verdicts.objects:
        return float("nan"), float("nan")
    true = verdicts.true[np.argsort(-verdicts.scores, kind="stable")]
    hits = np.cumsum(true)
    recall, precision = hits / verdicts.objects, hits / np.arange(1, len(true) + 1)
    return envelope_area(recall, precision), float(recall[-1]) if len(recall) else 0.0


def envelope_area(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> float:
    """Average precision as in VOC, over all points of recall (n,), ascending, and precision (n,): at each recall the best
    precision at that recall or above."""
    recall = np.concatenate([[0.0], recall, [1.0]])
    best = np.maximum.accumulate(np.concatenate([[0.0], precision, [0.0]])[::-1])[::-1]
    return float((np.diff(recall) * best[1:]).sum())


def _softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    shifted = np.asarray(logits, np.float64)
    powers = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
