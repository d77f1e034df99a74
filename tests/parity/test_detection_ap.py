"""AP of detections against a plain second implementation, and every step against hand-computed values."""

from __future__ import annotations

from math import isnan, pi

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.metrics.detection_ap import (
    Detections,
    RawBoxes,
    average_precision,
    decode,
    envelope_area,
    joined,
    kept,
    scene_verdicts,
    scored,
    survivors,
)
from tests.parity import naive
from tests.parity.test_boxes import random_boxes

CASES = 1000
SEED = 60
Scene = tuple[list[tuple[list[float], float]], list[list[float]]]


def random_scene(rng: np.random.Generator) -> Scene:
    """A few objects of one class, some duplicated or without size, and detections on them, near them, or anywhere."""
    objects = random_boxes(rng, int(rng.integers(0, 5)) if rng.random() < 0.8 else 0)
    if len(objects) > 1 and rng.random() < 0.3:
        objects[1] = objects[0]
    if len(objects) and rng.random() < 0.1:
        objects[-1, 3 + rng.integers(3)] = 0
    boxes = random_boxes(rng, int(rng.integers(0, 8)) if rng.random() < 0.9 else 0)
    for row in range(len(boxes)):
        style = rng.integers(6)
        if style <= 2 and len(objects):
            boxes[row] = objects[rng.integers(len(objects))]
            if style:
                boxes[row] += rng.normal(0, 0.1 * style, 7) * [1, 1, 1, 0, 0, 0, 1]
                boxes[row, 3:6] *= rng.uniform(0.7, 1.3, 3)
        elif style == 3 and row:
            boxes[row] = boxes[row - 1]
        elif style == 4:
            boxes[row, 3 : 3 + rng.integers(1, 4)] *= rng.choice([0, -1])
    scores = rng.choice([0.1, 0.5, 0.9], len(boxes)) if rng.random() < 0.5 else rng.random(len(boxes))
    return list(zip(boxes.tolist(), scores.tolist(), strict=True)), objects.tolist()


def as_arrays(scene: Scene) -> tuple[NDArray, NDArray, NDArray]:
    detections, objects = scene
    boxes, scores = [b for b, _ in detections], [s for _, s in detections]
    return np.reshape(np.array(boxes, float), (-1, 7)), np.array(scores), np.reshape(np.array(objects, float), (-1, 7))


def vectorised(scenes: list[Scene], overlaps: tuple[float, ...] = (0.25, 0.5)) -> list[tuple[float, float]]:
    """Average precision and recall at each overlap."""
    found = [scene_verdicts(*as_arrays(scene), overlaps) for scene in scenes]
    return [average_precision(joined(v[place] for v in found)) for place in range(len(overlaps))]


def test_random_scenes() -> None:
    rng = np.random.default_rng(SEED)
    seen = {"nan": 0, "zero": 0, "one": 0, "between": 0}
    for number in range(CASES):
        scenes = [random_scene(rng) for _ in range(rng.integers(1, 4))]
        overlaps = (0.25, float(rng.choice([0.0, 0.1, 0.5, 0.5, 0.7, 0.9])))
        for overlap, found in zip(overlaps, vectorised(scenes, overlaps), strict=True):
            expected = naive.detection_ap(scenes, overlap)
            message = f"seed {SEED}: case {number} at {overlap}: {found} instead of {expected}"
            assert np.allclose(found, expected, rtol=0, atol=1e-12, equal_nan=True), message
            seen["nan" if isnan(found[0]) else "zero" if found[0] == 0 else "one" if found[0] == 1 else "between"] += 1
    assert min(seen.values()) > CASES / 20, seen


def test_a_monotone_change_of_scores_changes_nothing() -> None:
    rng = np.random.default_rng(SEED + 2)
    for number in range(100):
        scenes = [random_scene(rng) for _ in range(3)]
        levels = sorted({score for detections, _ in scenes for _, score in detections})
        changed = [([(b, levels.index(s) ** 3 - 7.0) for b, s in detections], o) for detections, o in scenes]
        one, two = vectorised(scenes), vectorised(changed)
        assert np.array_equal(one, two, equal_nan=True), f"seed {SEED + 2}: case {number}"


def test_perfect_and_moved_scenes() -> None:
    rng = np.random.default_rng(SEED + 3)
    for number in range(100):
        objects = random_boxes(rng, int(rng.integers(1, 5)))
        everything = [([(box, 0.5) for box in objects.tolist()], objects.tolist())]
        assert vectorised(everything, (0.25, 0.5, 0.99)) == [(1, 1)] * 3, f"seed {SEED + 3}: case {number}"
        # Additional false detections do not matter if they are weaker than all these; stronger ones do.
        spare = [(box, 0.1) for box in random_boxes(rng, 3).tolist()]
        assert vectorised([(everything[0][0] + spare, everything[0][1])]) == [(1, 1)] * 2
        far = [([9.0, 9, 9, 1, 1, 1, 0], 0.9)]
        ap, recall = vectorised([(everything[0][0] + far, everything[0][1])])[0]
        # One far detection, then n true ones: the best precision for every recall is the last one, n / (n + 1).
        assert abs(ap - len(objects) / (len(objects) + 1)) < 1e-12 and recall == 1


# By hand: unit cubes along x, of one class.


def cube(x: float, length: float = 1) -> list[float]:
    return [x, 0, 0, length, 1, 1, 0]


def both(scenes: list[Scene], overlap: float) -> tuple[float, float]:
    """Average precision and recall, on which both implementations agree."""
    found = vectorised(scenes, (overlap,))[0]
    assert np.allclose(found, naive.detection_ap(scenes, overlap), rtol=0, atol=1e-12, equal_nan=True)
    return found


def test_three_detections_of_two_objects() -> None:
    # True, false, true: (recall, precision) (1/2, 1), (1/2, 1/2), (1, 2/3). The first half at 1, the second at 2/3: 5/6.
    scene: Scene = ([(cube(0), 0.9), (cube(50), 0.8), (cube(10), 0.7)], [cube(0), cube(10)])
    ap, recall = both([scene], 0.5)
    assert abs(ap - 5 / 6) < 1e-12 and recall == 1
    # The same over two scenes, listed in any order: an object counts only in its own scene.
    two: list[Scene] = [([(cube(10), 0.7), (cube(0), 0.9)], [cube(0), cube(10)]), ([(cube(0), 0.8)], [])]
    assert abs(both(two, 0.5)[0] - 5 / 6) < 1e-12 and abs(both(two[::-1], 0.5)[0] - 5 / 6) < 1e-12
    # False, true, true: (0, 0), (1/2, 1/2), (1, 2/3): 2/3 all along.
    swapped: Scene = ([(cube(0), 0.8), (cube(50), 0.9), (cube(10), 0.7)], scene[1])
    assert abs(both([swapped], 0.5)[0] - 2 / 3) < 1e-12
    # The envelope alone.
    assert abs(envelope_area(np.array([0.5, 0.5, 1]), np.array([1, 0.5, 2 / 3])) - 5 / 6) < 1e-12


def test_an_overlap_of_exactly_the_threshold_is_no_match() -> None:
    # A cube in a box of two: 1/2. In a box of four: 1/4.
    assert both([([(cube(0.5, 2), 0.9)], [cube(0)])], 0.5) == (0, 0)
    assert both([([(cube(0.5, 2), 0.9)], [cube(0)])], 0.25) == (1, 1)
    assert both([([(cube(1.5, 4), 0.9)], [cube(0)])], 0.25) == (0, 0)
    # No overlap is not above 0.
    assert both([([(cube(1), 0.9)], [cube(0)])], 0.0) == (0, 0)


def test_two_detections_of_one_object() -> None:
    # The stronger detection is true although the weaker fits better: shifted by 1/4: 3/4 / (5/4) = 0.6. (1, 1), (1, 1/2): area 1.
    scene: Scene = ([(cube(0), 0.5), (cube(0.25), 0.9)], [cube(0)])
    assert both([scene], 0.5) == (1, 1)
    verdicts = scene_verdicts(*as_arrays(scene))[1]
    assert verdicts.scores.tolist() == [0.9, 0.5] and verdicts.true.tolist() == [True, False] and verdicts.objects == 1
    # With a second object that is missed: half.
    assert both([(scene[0], [cube(0), cube(50)])], 0.5) == (0.5, 0.5)


def test_the_best_object_counts_and_no_other() -> None:
    # Objects at 0 and 0.5. Two detections at 0.1 and 0.2 both overlap the first most (0.9 / 1.1 and 0.8 / 1.2) and the second
    # by 0.6 / 1.4 and 0.7 / 1.3: above 0.25, but the second detection is false anyway. (1/2, 1), (1/2, 1/2): 1/2.
    scene: Scene = ([(cube(0.1), 0.9), (cube(0.2), 0.8)], [cube(0), cube(0.5)])
    assert both([scene], 0.25) == (0.5, 0.5)
    # Of two objects at the same position the first is matched, the second never.
    assert both([([(cube(0), 0.9), (cube(0), 0.8)], [cube(0), cube(0)])], 0.25) == (0.5, 0.5)


def test_equal_scores_count_in_the_order_in_which_they_are_listed() -> None:
    # True then false: 1. False then true: 1/2 at recall 1.
    hit, miss = (cube(0), 0.5), (cube(50), 0.5)
    assert both([([hit, miss], [cube(0)])], 0.5)[0] == 1
    assert both([([miss, hit], [cube(0)])], 0.5)[0] == 0.5


def test_classes_without_objects_and_without_detections() -> None:
    assert all(map(isnan, both([([(cube(0), 0.9)], [])], 0.5))) and all(map(isnan, both([], 0.5)))
    assert both([([], [cube(0)])], 0.5) == (0, 0)


def test_decoding_by_hand() -> None:
    # Two bins of pi: bin 1 and 0.25 is pi + 0.25 above pi, hence 0.25 - pi. Size class 1: (2, 3, 4) + (0.5, 0, -1).
    # Objectness: logits 0 and log 3: 3/4. Classes: log 4 and 0: 4/5, 1/5.
    raw = RawBoxes(*(np.array([field], float) for field in (
        [1, 2, 3], [0, 1], [9, 0.25], [-1, 0], [[9, 9, 9], [0.5, 0, -1]], [np.log(4), 0], [0, np.log(3)],
    )))  # fmt: skip
    mean_sizes = np.array([[1, 1, 1], [2, 3, 4.0]])
    found = decode(raw, mean_sizes)
    assert np.allclose(found.boxes, [[1, 2, 3, 2.5, 3, 3, 0.25 - pi]], rtol=0, atol=1e-12)
    assert np.allclose(found.objectness, [0.75]) and np.allclose(found.classes, [[0.8, 0.2]])
    # For all classes: 3/4 * 4/5 and 3/4 * 1/5; or only for the likeliest: 3/4.
    assert np.allclose([s for _, s in scored(found)], [[0.6], [0.15]])
    assert [s.tolist() for _, s in scored(found, every_class=False)] == [[0.75], []]
    # With a single bin the heading is 0, whatever the residual.
    single = raw._replace(heading_scores=np.zeros((1, 1)), heading_residuals=np.ones((1, 1)))
    assert decode(single, mean_sizes).boxes[0, 6] == 0


def test_suppression_and_objectness_by_hand() -> None:
    # Cubes at 0 and 0.5 overlap by 1/3: the weaker is suppressed. All have class 0 except the last, which overlaps no other.
    boxes = np.array([cube(0), cube(0.5), cube(30), cube(60)])
    names = np.array([[0.9, 0.1], [0.8, 0.2], [0.5, 0.5], [0.1, 0.9]])
    found = Detections(boxes, np.array([0.6, 0.7, 0.05, 0.0500001]), names)
    assert survivors(found).tolist() == [1, 2, 3]
    # An objectness of exactly 0.05 is not enough.
    assert kept(found).objectness.tolist() == [0.7, 0.0500001]
    # With two classes both stay, unless suppression ignores classes.
    mixed = found._replace(classes=names[[0, 3, 2, 3]])
    assert survivors(mixed).tolist() == [0, 1, 2, 3] and survivors(mixed, within_class=False).tolist() == [1, 2, 3]
    # One above the other: disjoint in space, equal seen from above.
    stacked = Detections(boxes[[0, 0]] + [[0] * 7, [0, 0, 2, 0, 0, 0, 0]], np.array([0.6, 0.7]), names[:2])
    assert survivors(stacked).tolist() == [0, 1] and survivors(stacked, in_plan=True).tolist() == [1]
    # Five points are enough, four are not: the stronger box is dropped first, so the weaker one stays.
    xyz = np.array([[-0.3, 0, z] for z in (-0.4, -0.2, 0, 0.2, 0.4)] + [[0.8, 0, z] for z in (-0.4, -0.2, 0, 0.2)])
    assert survivors(found, xyz=xyz).tolist() == [0] and survivors(found, xyz=xyz[1:]).tolist() == []
