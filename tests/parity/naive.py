"""A second implementation of the metrics, literally from their definitions: loops over points, sets and corners in plain Python.

It checks `benchmarks.input.boxes` and `benchmarks.metrics`, and shares no code and no arrays with them. It is slow on purpose.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

Box = Sequence[float]
"""Centre x, y, z; full size along its own axes; heading, clockwise seen from above. Metres, radians, z up."""
Corner = tuple[Any, Any]
"""Coordinates are floats, or fractions for exact results."""
NAN = float("nan")


# Semantic segmentation (spec C.5)


def counted(labels: Sequence[int], predictions: Sequence[int], classes: int) -> list[tuple[int, int]]:
    """Labels and predictions of the points that count: those labelled with a class."""
    return [(label, said) for label, said in zip(labels, predictions, strict=True) if 0 <= label < classes]


def class_ious(labels: Sequence[int], predictions: Sequence[int], classes: int) -> list[float]:
    """IoU of each class; NaN for one that is neither labelled nor predicted."""
    pairs = list(enumerate(counted(labels, predictions, classes)))
    found = []
    for name in range(classes):
        labelled = {row for row, (label, _) in pairs if label == name}
        predicted = {row for row, (_, said) in pairs if said == name}
        found.append(len(labelled & predicted) / len(labelled | predicted) if labelled | predicted else NAN)
    return found


def mean_of(numbers: Sequence[float]) -> float:
    """Mean of the values that are not NaN; NaN if there are none."""
    valid = [n for n in numbers if not math.isnan(n)]
    return sum(valid) / len(valid) if valid else NAN


def share_right(labels: Sequence[int], predictions: Sequence[int], classes: int) -> float:
    pairs = counted(labels, predictions, classes)
    return sum(label == said for label, said in pairs) / len(pairs) if pairs else NAN


# Instances (spec F.2, with the details of 0.2)


class Prediction(NamedTuple):
    """A predicted instance: its points, class and confidence."""

    points: frozenset[int]
    name: int
    confidence: float


class Scene(NamedTuple):
    """Class and instance of each point, and the predictions in the order of matching."""

    labels: Sequence[tuple[int, int]]
    predictions: Sequence[Prediction]


def instance_ap(scenes: Sequence[Scene], valid: Collection[int], name: int, threshold: float, least: int) -> float:
    """Average precision of class `name`: NaN without an instance of it, 0 without a prediction that counts."""
    verdicts: list[tuple[float, bool]] = []
    instances = 0
    for scene in scenes:
        found, there = instance_verdicts(scene, valid, name, threshold, least)
        verdicts += found
        instances += there
    return area_of_instances(verdicts, instances)


def area_of_instances(verdicts: Sequence[tuple[float, bool]], instances: int) -> float:
    """Area under the precision-recall curve."""
    if not instances:
        return NAN
    if not verdicts:
        return 0.0
    # One point of the curve per distinct confidence, from the lowest, then (precision 1, recall 0).
    curve = []
    for lowest in sorted({confidence for confidence, _ in verdicts}):
        right = sum(true for confidence, true in verdicts if confidence >= lowest)
        said = sum(confidence >= lowest for confidence, _ in verdicts)
        curve.append((right / said, right / instances))
    curve.append((1.0, 0.0))
    # Steps are the recall convolved with (-1/2, 0, 1/2): half the distance between both neighbours; the ends are repeated.
    recalls = [curve[0][1], *(recall for _, recall in curve), 0.0]
    return sum(precision * (recalls[i] - recalls[i + 2]) / 2 for i, (precision, _) in enumerate(curve))


def instance_verdicts(
    scene: Scene, valid: Collection[int], name: int, threshold: float, least: int
) -> tuple[list[tuple[float, bool]], int]:
    """(confidence, is true positive) of each counted prediction of one scene, and the number of instances of the class."""
    void = {row for row, (kind, number) in enumerate(scene.labels) if number < 0 or kind not in valid}
    labelled: dict[int, set[int]] = {}
    for row, (kind, number) in enumerate(scene.labels):
        if row not in void and kind == name:
            labelled.setdefault(number, set()).add(row)
    large = [labelled[number] for number in sorted(labelled) if len(labelled[number]) >= least]
    small = [points for points in labelled.values() if len(points) < least]
    predictions = [p for p in scene.predictions if p.name == name and len(p.points) >= least]

    verdicts: list[tuple[float, bool]] = []
    used: set[int] = set()
    for instance in large:
        score = None
        for number, prediction in enumerate(predictions):
            if number in used or not share(instance, prediction.points) > threshold:
                continue
            if score is None:
                score = prediction.confidence
                used.add(number)
            else:
                # On a second match the lower confidence becomes a false positive, and the prediction may still match others.
                verdicts.append((min(score, prediction.confidence), False))
                score = max(score, prediction.confidence)
        if score is not None:
            verdicts.append((score, True))
    for prediction in predictions:
        if any(share(instance, prediction.points) > threshold for instance in labelled.values()):
            continue
        ignored = len(prediction.points & void) + sum(len(prediction.points & points) for points in small)
        if not ignored / len(prediction.points) > threshold:
            verdicts.append((prediction.confidence, False))
    return verdicts, len(large)


def share(one: Collection[int], two: Collection[int]) -> float:
    """Intersection over union of two sets of points."""
    return len(set(one) & set(two)) / len(set(one) | set(two))


# Boxes (spec F.3, F.4)


def corners(box: Box) -> list[Corner]:
    """Corners seen from above, counter-clockwise in the box's own axes: x' = x cos + y sin, y' = -x sin + y cos."""
    x, y, _, length, width, _, heading = box
    cos, sin = math.cos(heading), math.sin(heading)
    around = []
    for right, forward in ((1, 1), (-1, 1), (-1, -1), (1, -1)):
        a, b = right * length / 2, forward * width / 2
        around.append((x + a * cos + b * sin, y - a * sin + b * cos))
    return around


def spans(box: Box) -> list[float]:
    """Lowest x, y, z and highest x, y, z."""
    around = corners(box)
    xs, ys = [x for x, _ in around], [y for _, y in around]
    return [min(xs), min(ys), box[2] - abs(box[5]) / 2, max(xs), max(ys), box[2] + abs(box[5]) / 2]


def clip(polygon: list[Corner], window: list[Corner]) -> list[Corner]:
    """Sutherland-Hodgman: clip a polygon at each edge of a counter-clockwise convex one."""
    for number, end in enumerate(window):
        start = window[number - 1]

        def left(point: Corner, start: Corner = start, end: Corner = end) -> float:
            return (end[0] - start[0]) * (point[1] - start[1]) - (end[1] - start[1]) * (point[0] - start[0])

        kept: list[Corner] = []
        for index, point in enumerate(polygon):
            before = polygon[index - 1]
            if (left(point) >= 0) != (left(before) >= 0):
                part = left(before) / (left(before) - left(point))
                kept.append((before[0] + part * (point[0] - before[0]), before[1] + part * (point[1] - before[1])))
            if left(point) >= 0:
                kept.append(point)
        polygon = kept
    return polygon


def area(polygon: list[Corner]) -> float:
    """Area of a polygon by the shoelace formula."""
    return abs(sum(polygon[i - 1][0] * y - x * polygon[i - 1][1] for i, (x, y) in enumerate(polygon))) / 2


def common_area(one: Box, two: Box) -> float:
    """Common area of two boxes seen from above; 0 if one has no area."""
    if one[3] * one[4] == 0 or two[3] * two[4] == 0:
        return 0.0
    window = corners(two)
    if two[3] * two[4] < 0:
        # A detector may predict a negative size: the box is mirrored, and its corners are clockwise.
        window.reverse()
    return area(clip(corners(one), window))


def over_union(common: float, one: float, two: float) -> float:
    """Ratio of overlap to union, capped at 1 against rounding; 0 for two empty boxes."""
    return min(1.0, common / (one + two - common)) if one + two - common > 0 else 0.0


def plan_iou(one: Box, two: Box) -> float:
    return over_union(common_area(one, two), abs(one[3] * one[4]), abs(two[3] * two[4]))


def box_iou(one: Box, two: Box) -> float:
    """IoU of two boxes: common volume (common area times overlap in height) over the volume of the union.

    A box with a negative height has its top below its bottom, so it overlaps no other box.
    """
    top = min(one[2] + one[5] / 2, two[2] + two[5] / 2)
    bottom = max(one[2] - one[5] / 2, two[2] - two[5] / 2)
    common = common_area(one, two) * max(0.0, top - bottom)
    return over_union(common, abs(one[3] * one[4] * one[5]), abs(two[3] * two[4] * two[5]))


def inside(point: Sequence[float], box: Box) -> bool:
    """Whether a point is inside a box; borders count as inside."""
    x, y, z = (point[i] - box[i] for i in range(3))
    cos, sin = math.cos(box[6]), math.sin(box[6])
    along, across = x * cos - y * sin, x * sin + y * cos
    return abs(along) <= abs(box[3]) / 2 and abs(across) <= abs(box[4]) / 2 and abs(z) <= abs(box[5]) / 2


def span_overlap(one: Sequence[float], two: Sequence[float], relative_to: str) -> float:
    """Overlap of two axis-aligned boxes (lowest, then highest corner), relative to their union or to the volume of `two`."""
    axes = len(one) // 2
    common = first = second = 1.0
    for axis in range(axes):
        common *= max(0.0, min(one[axis + axes], two[axis + axes]) - max(one[axis], two[axis]))
        first *= one[axis + axes] - one[axis]
        second *= two[axis + axes] - two[axis]
    if relative_to == "weaker":
        return common / second if second > 0 else 0.0
    return over_union(common, first, second)


def suppress(
    boxes: Sequence[Sequence[float]],
    scores: Sequence[float],
    threshold: float,
    names: Sequence[int] | None = None,
    relative_to: str = "union",
) -> list[int]:
    """Non-maximum suppression: keep the strongest box (of equal ones the last), drop boxes that overlap it too much, repeat."""
    left = list(range(len(boxes)))
    picked = []
    while left:
        best = max(left, key=lambda row: (scores[row], row))
        picked.append(best)
        left = [
            row
            for row in left
            if row != best
            and not (
                (names is None or names[row] == names[best])
                and span_overlap(boxes[best], boxes[row], relative_to) > threshold
            )
        ]
    return picked


# Detection (spec F.3, F.4)


class Proposal(NamedTuple):
    """One output of a detector, decoded: box, objectness and class probabilities."""

    box: list[float]
    objectness: float
    names: list[float]

    @property
    def name(self) -> int:
        return self.names.index(max(self.names))


def softmax(logits: Sequence[float]) -> list[float]:
    powers = [math.exp(logit - max(logits)) for logit in logits]
    return [power / sum(powers) for power in powers]


def proposal(
    mean_sizes: Sequence[Sequence[float]], centre: Sequence[float], heading_scores: Sequence[float],
    heading_residuals: Sequence[float], size_scores: Sequence[float], size_residuals: Sequence[Sequence[float]],
    class_scores: Sequence[float], objectness_scores: Sequence[float],
) -> Proposal:  # fmt: skip
    """Decode a proposal. Heading: centre of the likeliest bin + residual, at most pi, 0 with a single bin. Size: mean size + residual."""
    bins = len(heading_scores)
    likeliest = max(range(bins), key=lambda b: heading_scores[b])
    heading = likeliest * 2 * math.pi / bins + heading_residuals[likeliest] if bins > 1 else 0.0
    if heading > math.pi:
        heading -= 2 * math.pi
    kind = max(range(len(size_scores)), key=lambda k: size_scores[k])
    size = [mean_sizes[kind][axis] + size_residuals[kind][axis] for axis in range(3)]
    return Proposal([*centre, *size, heading], softmax(objectness_scores)[1], softmax(class_scores))


def surviving(
    proposals: Sequence[Proposal],
    within_class: bool = True,
    in_plan: bool = False,
    points: Sequence[Sequence[float]] | None = None,
) -> list[int]:
    """Rows left after suppression at 0.25 by objectness; with `points`, only boxes that contain at least five of them."""
    rows = [
        row for row, p in enumerate(proposals) if points is None or sum(inside(point, p.box) for point in points) >= 5
    ]
    axes = (0, 1, 3, 4) if in_plan else range(6)
    boxes = [[spans(proposals[row].box)[axis] for axis in axes] for row in rows]
    names = [proposals[row].name for row in rows] if within_class else None
    return sorted(rows[pick] for pick in suppress(boxes, [proposals[row].objectness for row in rows], 0.25, names))


def said(proposals: Sequence[Proposal], name: int, every_class: bool = True) -> list[tuple[list[float], float]]:
    """Boxes and scores for one class: of all proposals, or of those whose likeliest class it is."""
    if every_class:
        return [(p.box, p.objectness * p.names[name]) for p in proposals]
    return [(p.box, p.objectness) for p in proposals if p.name == name]


def detection_ap(
    scenes: Sequence[tuple[Sequence[tuple[Box, float]], Sequence[Box]]], threshold: float
) -> tuple[float, float]:
    """Average precision and recall of one class. A scene is a list of scored detections and a list of objects.

    Equal scores keep their listed order.
    """
    total = sum(len(objects) for _, objects in scenes)
    if not total:
        return NAN, NAN
    ranked = [(score, n, box) for n, (detections, _) in enumerate(scenes) for box, score in detections]
    ranked.sort(key=lambda detection: -detection[0])
    taken: set[tuple[int, int]] = set()
    curve = []
    for place, (_, n, box) in enumerate(ranked, start=1):
        overlaps = [box_iou(box, thing) for thing in scenes[n][1]]
        if overlaps and max(overlaps) > threshold:
            taken.add((n, overlaps.index(max(overlaps))))
        curve.append((len(taken) / total, len(taken) / place))
    return envelope([recall for recall, _ in curve], [precision for _, precision in curve]), len(taken) / total


def envelope(recalls: Sequence[float], precisions: Sequence[float]) -> float:
    """Area under the precision envelope: each recall step times the best precision at this or a higher recall."""
    found, before = 0.0, 0.0
    for place, recall in enumerate(recalls):
        found += (recall - before) * max(precisions[place:])
        before = recall
    return found
