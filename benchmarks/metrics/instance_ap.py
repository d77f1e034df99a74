"""Average precision of instances, by ScanNet's definition (spec F.2).

A scene's contribution to the score of one class at one threshold is a list of scored verdicts and a number of missed instances,
which can be stored without points. The lists of all scenes are joined and give the precision-recall curve.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

THRESHOLDS = (*(round(0.5 + 0.05 * i, 2) for i in range(9)), 0.25)
"""Overlaps that a match must exceed; AP is the mean over all but the last one."""


class Instances(NamedTuple):
    """Predicted instances of a scene: points[starts[i]:starts[i + 1]] are the distinct rows of instance i, with classes (P,) and
    confidences (P,). Their order matters: matching follows it."""

    points: NDArray[np.integer]
    starts: NDArray[np.integer]
    classes: NDArray[np.integer]
    confidences: NDArray[np.floating]


class Verdicts(NamedTuple):
    """For one class at one threshold: confidence and correctness of every counted prediction, and the number of missed
    instances."""

    confidences: NDArray[np.float64]
    true: NDArray[np.bool_]
    missed: int


def scene_verdicts(
    classes: NDArray[np.integer],
    instances: NDArray[np.integer],
    predicted: Instances,
    valid_classes: Sequence[int],
    least_points: int = 10,
    thresholds: Sequence[float] = THRESHOLDS,
) -> dict[int, list[Verdicts] | None]:
    """Judge the predictions of each of `valid_classes` at each threshold; None for a class with neither instances nor
    predictions.

    `classes` and `instances` (N,) label every point; points with a negative instance or an invalid class are void. Instances with
    fewer than `least_points` points are neither found nor missed, and predictions of that size are ignored. Raises ValueError for
    arrays of different lengths and for rows outside the scene.
    """
    classes, instances = np.asarray(classes).astype(np.int64), np.asarray(instances).astype(np.int64)
    if classes.shape != instances.shape:
        raise ValueError(f"{classes.shape} classes but {instances.shape} instances")
    sizes = np.diff(predicted.starts)
    if len(predicted.points) and not (predicted.points.min() >= 0 and predicted.points.max() < len(classes)):
        raise ValueError(f"a predicted instance holds a row outside 0..{len(classes) - 1}")
    void = (instances < 0) | ~np.isin(classes, valid_classes)
    # One id for each labelled instance (class and instance combined), -1 for void.
    pairs, number = np.unique(np.stack([classes[~void], instances[~void]], axis=1), axis=0, return_inverse=True)
    of_point = np.full(len(classes), -1, np.int64)
    of_point[~void] = number.reshape(-1)
    counts = np.bincount(of_point[~void], minlength=len(pairs))
    who = np.repeat(np.arange(len(sizes)), sizes)
    table = _common_points(who, of_point[predicted.points], len(sizes), len(pairs))
    verdicts: dict[int, list[Verdicts] | None] = {}
    for name in valid_classes:
        mine = np.flatnonzero((predicted.classes == name) & (sizes >= least_points))
        theirs = np.flatnonzero(pairs[:, 0] == name) if len(pairs) else np.zeros(0, np.int64)
        large = counts[theirs] >= least_points
        if not len(mine) and not large.any():
            verdicts[name] = None
            continue
        common = table[np.ix_(mine, theirs)]
        union = sizes[mine][:, None] + counts[theirs][None] - common
        overlap = common / np.maximum(union, 1)
        ignored = table[mine, len(pairs)] + common[:, ~large].sum(axis=1)
        share = ignored / np.maximum(sizes[mine], 1)
        confidences = np.asarray(predicted.confidences, np.float64)[mine]
        verdicts[name] = [_match(overlap, large, share, confidences, t) for t in thresholds]
    return verdicts


def _common_points(who: NDArray[np.int64], what: NDArray[np.int64], rows: int, columns: int) -> NDArray[np.int64]:
    """(rows, columns + 1) number of points shared by prediction and instance; the last column counts void points."""
    flat = who * (columns + 1) + np.where(what < 0, columns, what)
    return np.bincount(flat, minlength=rows * (columns + 1)).reshape(rows, columns + 1)


def _match(
    overlap: NDArray[np.float64],
    large: NDArray[np.bool_],
    ignored_share: NDArray[np.float64],
    confidences: NDArray[np.float64],
    threshold: float,
) -> Verdicts:
    """Match predictions (rows) with instances (columns), instance by instance in the listed order.

    A second match of an instance counts as false, with the lower of the two confidences, and stays available for other
    instances. A prediction without any match is false, unless more than `threshold` of it is void or lies in instances that
    are too small.
    """
    hits = overlap > threshold
    used = np.zeros(len(overlap), dtype=bool)
    scores: list[float] = []
    truths: list[bool] = []
    missed = 0
    for column in np.flatnonzero(large):
        best: float | None = None
        for row in np.flatnonzero(hits[:, column] & ~used):
            score = float(confidences[row])
            if best is None:
                best, used[row] = score, True
            else:
                scores.append(min(best, score))
                truths.append(False)
                best = max(best, score)
        if best is None:
            missed += 1
        else:
            scores.append(best)
            truths.append(True)
    wrong = ~hits.any(axis=1) & (ignored_share <= threshold)
    return Verdicts(
        np.concatenate([np.asarray(scores, np.float64), confidences[wrong]]),
        np.concatenate([np.asarray(truths, bool), np.zeros(int(wrong.sum()), bool)]),
        missed,
    )


def joined(parts: Iterable[Verdicts]) -> Verdicts:
    """Join the verdicts of several scenes."""
    listed = list(parts)
    return Verdicts(
        np.concatenate([np.zeros(0), *(p.confidences for p in listed)]),
        np.concatenate([np.zeros(0, bool), *(p.true for p in listed)]),
        sum(p.missed for p in listed),
    )


def average_precision(verdicts: Verdicts) -> float:
    """Area under the precision-recall curve, with a point for each distinct confidence; each recall step is split evenly
    between its neighbours, starting at (precision 1, recall 0). NaN for a class without instances, 0 without counted
    predictions."""
    true = int(verdicts.true.sum())
    if true + verdicts.missed == 0:
        return float("nan")
    if not len(verdicts.true):
        return 0.0
    order = np.argsort(verdicts.confidences, kind="stable")
    below = np.concatenate([[0], np.cumsum(verdicts.true[order])])
    _, first = np.unique(verdicts.confidences[order], return_index=True)
    true_positive = true - below[first]
    precision = np.concatenate([true_positive / (len(order) - first), [1.0]])
    recall = np.concatenate([true_positive / (true + verdicts.missed), [0.0]])
    steps = np.convolve(np.concatenate([recall[:1], recall, [0.0]]), [-0.5, 0, 0.5], "valid")
    return float(precision @ steps)
