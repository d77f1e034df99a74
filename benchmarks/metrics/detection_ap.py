"""From what a detector says to boxes, and their average precision (spec F.3, F.4).

Only the matching needs boxes; what one scene contributes to the score of one class is a list of scored verdicts and a number of
objects, which can be kept without points and joined over scenes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.input.boxes import extents, oriented_iou, points_inside, suppress

OVERLAPS = (0.25, 0.5)
"""Overlaps that a match must exceed."""
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
    """Boxes (K, 7) with their objectness (K,) and class probabilities (K, C)."""

    boxes: NDArray[np.float64]
    objectness: NDArray[np.float64]
    classes: NDArray[np.float64]


class Verdicts(NamedTuple):
    """Of one class at one overlap: score and truth of every detection, and how many objects there are."""

    scores: NDArray[np.float64]
    true: NDArray[np.bool_]
    objects: int


def decode(raw: RawBoxes, mean_sizes: NDArray[np.floating]) -> Detections:
    """All proposals as boxes: the bin and the size class with the highest score, with their residuals."""
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
    """Sorted rows that survive suppression by the axis-aligned extents of the boxes, by objectness; of each class on its own, as
    CSC does, or among all. With `xyz` boxes with fewer than 5 of these points are left out first."""
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
    """What counts: survivors of the suppression within each class whose objectness is above LEAST_OBJECTNESS."""
    rows = survivors(detections)
    rows = rows[detections.objectness[rows] > LEAST_OBJECTNESS]
    return Detections(detections.boxes[rows], detections.objectness[rows], detections.classes[rows])


def scored(detections: Detections, every_class: bool = True) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """For each class its boxes and scores: every box for every class with objectness times the probability of the class (as CSC
    does), or each box for its likeliest class with its objectness."""
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
    """For each overlap the verdicts on the detections (K, 7) of one class, `objects` (G, 7) being what there is of it.

    By decreasing score a detection is true if the object that it overlaps most exceeds the overlap and is still free.
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
    """The verdicts of several scenes as one."""
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
    """The area of VOC: at every recall the best precision at that recall or above, over all points."""
    recall = np.concatenate([[0.0], recall, [1.0]])
    best = np.maximum.accumulate(np.concatenate([[0.0], precision, [0.0]])[::-1])[::-1]
    return float((np.diff(recall) * best[1:]).sum())


def _softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    shifted = np.asarray(logits, np.float64)
    powers = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
