"""ScanNet's instance AP against results of the original code, a plain second implementation, and hand-computed values."""

from __future__ import annotations

import hashlib
from math import isnan

import numpy as np
import pytest
from numpy.typing import NDArray

from pretrain_bench.benchmarks.metrics.instance_ap import (
    THRESHOLDS,
    Instances,
    Verdicts,
    average_precision,
    joined,
    scene_verdicts,
)
from tests.parity import naive
from tests.parity.vectors import FOLDER, case, load

GOLDEN = case(load("instance_ap"), "inst")
SET_A = "65b5af5730cf23b9c4f7781877561acd27bf4ab1cb9c6f6499fc0c2830974da3"
"""sha256 of instance_ap.npz."""
SCENES = 7
CASES = 1000
SEED = 50


def as_arrays(scene: naive.Scene) -> tuple[NDArray, NDArray, Instances]:
    """Classes and instances of the points, and the predictions."""
    labels = np.array(scene.labels, np.int64).reshape(-1, 2)
    rows = [sorted(p.points) for p in scene.predictions]
    predicted = Instances(
        np.array([r for some in rows for r in some], np.int64),
        np.cumsum([0, *map(len, rows)]),
        np.array([p.name for p in scene.predictions], np.int64),
        np.array([p.confidence for p in scene.predictions], np.float64),
    )
    return labels[:, 0], labels[:, 1], predicted


def vectorised(
    scenes: list[naive.Scene], valid: list[int], least: int, thresholds: tuple[float, ...] = THRESHOLDS
) -> NDArray[np.float64]:
    """(classes, thresholds) average precision over all scenes."""
    return over_scenes([scene_verdicts(*as_arrays(s), valid, least, thresholds) for s in scenes], len(thresholds))


def over_scenes(found: list[dict[int, list[Verdicts] | None]], thresholds: int) -> NDArray[np.float64]:
    """(classes, thresholds) average precision from the verdicts of all scenes."""
    return np.array(
        [
            [
                average_precision(joined(v[t] for scene in found if (v := scene[name]) is not None))
                for t in range(thresholds)
            ]
            for name in found[0]
        ]
    )


def golden_scenes(sort: bool = False) -> list[naive.Scene]:
    scenes = []
    for number in range(SCENES):
        ids = GOLDEN[f"scene{number}_gt_ids"]
        masks = np.unpackbits(GOLDEN[f"scene{number}_pred_masks_packed"], axis=1, count=len(ids))
        said = GOLDEN[f"scene{number}_pred_class"].tolist(), GOLDEN[f"scene{number}_pred_conf_f64"].tolist()
        predictions = [
            naive.Prediction(frozenset(np.flatnonzero(mask).tolist()), name, confidence)
            for mask, name, confidence in zip(masks, *said, strict=True)
        ]
        if sort:
            predictions.sort(key=lambda p: -p.confidence)
        # Ids below 1000 belong to class 0, which is invalid and therefore void, as all invalid classes.
        labels = [(i // 1000, i % 1000) for i in ids.tolist()]
        scenes.append(naive.Scene(labels, predictions))
    return scenes


def summary(ap: NDArray[np.float64]) -> NDArray[np.float64]:
    """(classes, 3): mean over all thresholds except the last; at 0.5; at 0.25."""
    return np.column_stack([ap[:, :9].mean(axis=1), ap[:, 0], ap[:, 9]])


@pytest.mark.parametrize("least", [10, 100])
def test_golden_average_precision(least: int) -> None:
    scenes, names = golden_scenes(), GOLDEN["class_ids"].tolist()
    expected = GOLDEN[f"minregion{least}_ap_class_by_threshold_f64"]
    assert np.allclose(THRESHOLDS, GOLDEN["iou_thresholds_f64"], rtol=0, atol=1e-12)
    assert np.isnan(expected).any() and (expected == 0).any()
    # Thresholds accumulated from 0.05, as in the original, give the same result as exact ones.
    for thresholds in (THRESHOLDS, tuple(GOLDEN["iou_thresholds_f64"].tolist())):
        found = vectorised(scenes, names, least, thresholds)
        assert np.allclose(found, expected, rtol=0, atol=1e-12, equal_nan=True)
    classes = summary(found)
    assert np.allclose(classes, GOLDEN[f"minregion{least}_class_ap_ap50_ap25_f64"], rtol=0, atol=1e-12, equal_nan=True)
    mean = np.nanmean(classes, axis=0)
    assert np.allclose(mean, GOLDEN[f"minregion{least}_mean_ap_ap50_ap25_f64"], rtol=0, atol=1e-12)
    slow = [[naive.instance_ap(scenes, names, name, t, least) for t in THRESHOLDS] for name in names]
    assert np.allclose(slow, expected, rtol=0, atol=1e-12, equal_nan=True)


def test_golden_effect_of_the_order() -> None:
    mean = np.nanmean(summary(vectorised(golden_scenes(sort=True), GOLDEN["class_ids"].tolist(), 10)), axis=0)
    assert np.allclose(mean, GOLDEN["minregion10_sorted_by_conf_mean_ap_ap50_ap25_f64"], rtol=0, atol=1e-12)


def test_the_order_changes_the_mean_in_set_a() -> None:
    """Only the scenes of set A have this property."""
    if hashlib.sha256((FOLDER / "instance_ap.npz").read_bytes()).hexdigest() != SET_A:
        pytest.skip("these golden vectors are not set A")
    plain, sorted_ = (
        np.nanmean(summary(vectorised(golden_scenes(sort), GOLDEN["class_ids"].tolist(), 10)), axis=0)
        for sort in (False, True)
    )
    assert np.abs(plain - sorted_).max() > 1e-4


def random_scene(rng: np.random.Generator) -> naive.Scene:
    """A few points in runs of one label (three valid classes, others, void); predictions that resemble instances, or not."""
    count = int(rng.integers(0, 41))
    labels: list[tuple[int, int]] = []
    while len(labels) < count:
        label = int(rng.choice([1, 1, 2, 2, 5, 0, 9])), int(rng.integers(-1, 4))
        labels += [label] * int(rng.integers(1, 12))
    labels = labels[:count]
    instances = [{row for row, other in enumerate(labels) if other == label} for label in sorted(set(labels))]
    predictions: list[naive.Prediction] = []
    for _ in range(rng.integers(0, 9) if rng.random() < 0.9 else 0):
        style, points, name = rng.integers(6), set(), int(rng.choice([1, 1, 2, 2, 5, 9]))
        if style <= 2 and instances:
            points = set(instances[rng.integers(len(instances))])
            name = labels[min(points)][0] if rng.random() < 0.8 else name
            if style:
                points ^= set(np.flatnonzero(rng.random(count) < rng.choice([0.05, 0.2, 0.5])).tolist())
        elif style == 3 and predictions:
            points, name = set(predictions[-1].points), predictions[-1].name
        elif style == 4:
            points = set(range(int(rng.integers(0, count + 1)), count))
        elif style == 5:
            points = set(np.flatnonzero(rng.random(count) < rng.random()).tolist())
        confidence = float(rng.choice([-2.0, 0.5, 0.75, 3.0]) if rng.random() < 0.5 else rng.normal())
        predictions.append(naive.Prediction(frozenset(points), name, confidence))
    return naive.Scene(labels, predictions)


def counted(verdicts: Verdicts) -> list[tuple[float, bool]]:
    return sorted(zip(verdicts.confidences.tolist(), verdicts.true.tolist(), strict=True))


def test_random_scenes() -> None:
    rng = np.random.default_rng(SEED)
    valid, seen = [1, 2, 5], {"nan": 0, "zero": 0, "one": 0, "between": 0, "false": 0, "true": 0, "missed": 0}
    for number in range(CASES):
        scenes = [random_scene(rng) for _ in range(rng.integers(1, 4))]
        least = int(rng.choice([1, 2, 3, 6]))
        thresholds = (0.25, 0.5, float(rng.choice(THRESHOLDS[1:9])))
        verdicts = [scene_verdicts(*as_arrays(scene), valid, least, thresholds) for scene in scenes]
        found = over_scenes(verdicts, len(thresholds))
        for row, name in enumerate(valid):
            for place, threshold in enumerate(thresholds):
                message = f"seed {SEED}: case {number}, class {name} at {threshold}"
                everything, instances = [], 0
                for scene, mine in zip(scenes, verdicts, strict=True):
                    slow, there = naive.instance_verdicts(scene, valid, name, threshold, least)
                    of_class = mine[name]
                    fast = joined([]) if of_class is None else of_class[place]
                    assert counted(fast) == sorted(slow) and fast.true.sum() + fast.missed == there, message
                    everything += slow
                    instances += there
                    seen["false"] += int((~fast.true).sum())
                    seen["true"] += int(fast.true.sum())
                    seen["missed"] += fast.missed
                ap, expected = found[row, place], naive.area_of_instances(everything, instances)
                same = abs(ap - expected) < 1e-12 or (isnan(ap) and isnan(expected))
                assert same, f"{message}: {ap} instead of {expected}"
                seen["nan" if isnan(ap) else "zero" if ap == 0 else "one" if ap == 1 else "between"] += 1
    assert min(seen.values()) > CASES / 5, seen


def test_a_monotone_change_of_confidences_changes_nothing() -> None:
    rng = np.random.default_rng(SEED + 1)
    for number in range(100):
        scenes = [random_scene(rng) for _ in range(3)]
        levels = sorted({p.confidence for scene in scenes for p in scene.predictions})
        changed = [
            scene._replace(
                predictions=[p._replace(confidence=levels.index(p.confidence) ** 3 - 7.0) for p in scene.predictions]
            )
            for scene in scenes
        ]
        one, two = (vectorised(some, [1, 2, 5], 2, (0.25, 0.5, 0.75)) for some in (scenes, changed))
        assert np.array_equal(one, two, equal_nan=True), f"seed {SEED + 1}: case {number}"


def test_what_changes_nothing_else() -> None:
    rng = np.random.default_rng(SEED + 2)
    for number in range(100):
        scene = random_scene(rng)
        # Renumbered points, with additional predictions of other classes or below the minimum size.
        order = rng.permutation(len(scene.labels))
        place = {int(old): new for new, old in enumerate(order)}
        moved = [p._replace(points=frozenset(place[row] for row in p.points)) for p in scene.predictions]
        others = [naive.Prediction(frozenset(range(len(order))), 9, 5.0), naive.Prediction(frozenset(range(0)), 1, 5.0)]
        other = naive.Scene([scene.labels[row] for row in order], [p for m in moved for p in (m, *others)])
        one, two = vectorised([scene], [1, 2, 5], 2), vectorised([other], [1, 2, 5], 2)
        assert np.array_equal(one, two, equal_nan=True), f"seed {SEED + 2}: case {number}"
        # A perfect prediction of everything.
        exact = [
            naive.Prediction(frozenset(r for r, x in enumerate(scene.labels) if x == label), label[0], 1.0)
            for label in set(scene.labels)
        ]
        perfect = vectorised([scene._replace(predictions=exact)], [1, 2, 5], 2)
        assert (np.isnan(perfect) | (perfect == 1)).all(), f"seed {SEED + 2}: case {number}"


# Hand-computed. Rows of the scene are points; class 1 counts.


def scene_of(labels: list[tuple[int, int, int]], *predictions: tuple[range, float]) -> naive.Scene:
    """`labels` are (number of points, class, instance); predictions of class 1 are (rows, confidence)."""
    points = [(name, number) for count, name, number in labels for _ in range(count)]
    return naive.Scene(points, [naive.Prediction(frozenset(rows), 1, confidence) for rows, confidence in predictions])


def verdicts_at(scene: naive.Scene, threshold: float, least: int = 10) -> tuple[list[tuple[float, bool]], int, float]:
    """Verdicts, missed instances, average precision; by both implementations."""
    found = scene_verdicts(*as_arrays(scene), [1, 2], least, [threshold])[1]
    assert found is not None
    slow, instances = naive.instance_verdicts(scene, [1, 2], 1, threshold, least)
    assert counted(found[0]) == sorted(slow) and found[0].missed == instances - int(found[0].true.sum())
    ap, other = average_precision(found[0]), naive.instance_ap([scene], [1, 2], 1, threshold, least)
    assert abs(ap - other) < 1e-12 or (isnan(ap) and isnan(other))
    return counted(found[0]), found[0].missed, ap


def test_an_overlap_of_exactly_the_threshold_is_no_match() -> None:
    # 10 of 20 points: 10 / 20 = 0.5. Not above 0.5: one false, one missed. Above 0.25: precision 1 up to recall 1.
    scene = scene_of([(20, 1, 0)], (range(10), 0.9))
    assert verdicts_at(scene, 0.5) == ([(0.9, False)], 1, 0.0)
    assert verdicts_at(scene, 0.25) == ([(0.9, True)], 0, 1.0)
    # 11 of 20.
    assert verdicts_at(scene_of([(20, 1, 0)], (range(11), 0.9)), 0.5)[2] == 1
    # 18 of 30 and 21 of 30 are exactly 0.6 and 0.7, whose floats are not sums of 0.05.
    for points, threshold in ((18, 0.6), (21, 0.7)):
        assert verdicts_at(scene_of([(30, 1, 0)], (range(points), 0.9)), threshold)[2] == 0


def test_a_void_share_of_exactly_the_threshold_is_false() -> None:
    # Rows 0..19 the object, 20..29 void, 30..39 of another class. The object is found with confidence 0.5.
    def scene(void: int) -> naive.Scene:
        return scene_of([(20, 1, 0), (10, 0, 0), (10, 2, 0)], (range(20), 0.5), (range(30 - void, 40 - void), 0.9))

    # 5 of 10 void: 0.5 is not above 0.5, so it is false. Curve from the lowest confidence: (precision 1/2, recall 1), (0, 0),
    # (1, 0); steps (1 - 0) / 2, (1 - 0) / 2, 0: 1/2 * 1/2 + 0 * 1/2 = 1/4.
    assert verdicts_at(scene(5), 0.5) == ([(0.5, True), (0.9, False)], 0, 0.25)
    # 6 of 10: left out. (1, 1), (1, 0): 1/2 + 1/2.
    assert verdicts_at(scene(6), 0.5) == ([(0.5, True)], 0, 1.0)
    # A negative instance id is void too, for any class.
    assert verdicts_at(scene_of([(20, 1, 0), (10, 2, -1)], (range(20, 30), 0.9)), 0.5) == ([], 1, 0.0)


def test_two_detections_of_one_object() -> None:
    # 15 / 20 and 20 / 20. Whichever comes first, the lower confidence is the false one. (1/2, 1), (1, 1), (1, 0): steps
    # 0, 1/2, 1/2: 1.
    for first, second in (((range(15), 0.4), (range(20), 0.8)), ((range(20), 0.4), (range(15), 0.8))):
        for order in ((first, second), (second, first)):
            assert verdicts_at(scene_of([(20, 1, 0)], *order), 0.5) == ([(0.4, False), (0.8, True)], 0, 1.0)
    # With equal confidence they are one point of the curve: (1/2, 1), (1, 0); steps 1/2, 1/2: 1/4 + 1/2.
    tied = scene_of([(20, 1, 0)], (range(15), 0.4), (range(20), 0.4))
    assert verdicts_at(tied, 0.5) == ([(0.4, False), (0.4, True)], 0, 0.75)


def test_a_second_match_stays_free_for_another_object() -> None:
    # Objects of rows 0..9 and 10..19; P is rows 0..9 (overlap 1), Q rows 0..19 (overlap 1/2 with each). At 0.25:
    objects, p, q = [(10, 1, 0), (10, 1, 1)], (range(10), 0.4), (range(20), 0.6)
    # P first: P matches the first object, Q as its second match makes 0.4 false and 0.6 the score, and is then matched again.
    # (2/3, 1), (1, 1), (1, 0): steps 0, 1/2, 1/2: 1.
    assert verdicts_at(scene_of(objects, p, q), 0.25) == ([(0.4, False), (0.6, True), (0.6, True)], 0, 1.0)
    # Q first: Q is used by the first object, P is its second match, the second object is missed. (1/2, 1/2), (1, 1/2), (1, 0):
    # steps 0, 1/4, 1/4: 1/2.
    assert verdicts_at(scene_of(objects, q, p), 0.25) == ([(0.4, False), (0.6, True)], 1, 0.5)
    # At 0.5 Q overlaps neither enough; it is false. (1/2, 1/2), (0, 0), (1, 0): steps 1/4, 1/4, 0: 1/8.
    p_strong = (range(10), 0.9)
    assert verdicts_at(scene_of(objects, p, q), 0.5) == ([(0.4, True), (0.6, False)], 1, 0.125)
    # With P above Q: (1/2, 1/2), (1, 1/2), (1, 0): 1/2.
    assert verdicts_at(scene_of(objects, p_strong, q), 0.5) == ([(0.6, False), (0.9, True)], 1, 0.5)


def test_too_small_an_instance_is_neither_found_nor_missed() -> None:
    # 9 of 10 points on an instance of 9: overlap 0.9, ignored share 0.9.
    small = scene_of([(9, 1, 0), (20, 2, 0), (20, 1, 1)], (range(10), 0.9))
    assert verdicts_at(small, 0.5) == ([], 1, 0.0)
    # At 0.9 neither overlap nor share exceed it: false.
    assert verdicts_at(small, 0.9) == ([(0.9, False)], 1, 0.0)
    # By its ignored share alone: two instances of 6, 12 of 13 points; overlap with each 6 / 13.
    assert verdicts_at(scene_of([(6, 1, 0), (6, 1, 1), (20, 2, 0), (20, 1, 2)], (range(13), 0.9)), 0.5) == ([], 1, 0.0)
    # A small instance of another class does not make it ignored.
    assert verdicts_at(scene_of([(9, 2, 0), (20, 2, 1), (20, 1, 1)], (range(10), 0.9)), 0.5)[0] == [(0.9, False)]
    # An instance of exactly the minimum size counts.
    assert verdicts_at(scene_of([(10, 1, 0)], (range(10), 0.9)), 0.5) == ([(0.9, True)], 0, 1.0)
    # A prediction below the minimum size is ignored, however well it fits.
    assert verdicts_at(scene_of([(10, 1, 0)], (range(9), 0.9)), 0.5) == ([], 1, 0.0)


def test_the_same_number_in_two_classes_is_two_instances() -> None:
    scene = scene_of([(10, 1, 7), (10, 2, 7)], (range(10), 0.9))
    assert verdicts_at(scene, 0.9) == ([(0.9, True)], 0, 1.0)


def test_classes_without_instances_and_without_predictions() -> None:
    nothing, only_void = scene_of([]), scene_of([(30, 0, 0)], (range(30), 0.9))
    assert scene_verdicts(*as_arrays(nothing), [1, 2]) == {1: None, 2: None}
    assert isnan(average_precision(joined([])))
    # A prediction in void alone does not count, and no instance exists: NaN.
    assert np.isnan(vectorised([nothing, only_void], [1, 2], 10)).all()
    # Predictions and no instance: NaN; an instance and no prediction: 0.
    assert np.isnan(vectorised([scene_of([(30, 2, 0)], (range(30), 0.9))], [1], 10)).all()
    assert (vectorised([scene_of([(30, 1, 0)])], [1], 10) == 0).all()
    # Two scenes: found in one, missed in the other: (1, 1/2), (1, 0): 1/4 + 1/4.
    both = [scene_of([(30, 1, 0)]), scene_of([(30, 1, 0)], (range(30), 0.9))]
    assert (vectorised(both, [1], 10) == 0.5).all()


def test_what_does_not_fit_is_refused() -> None:
    classes, instances, predicted = as_arrays(scene_of([(10, 1, 0)], (range(10), 0.9)))
    with pytest.raises(ValueError, match="classes but"):
        scene_verdicts(classes, instances[1:], predicted, [1])
    for row in (-1, 10):
        outside = predicted._replace(points=np.array([*range(9), row]))
        with pytest.raises(ValueError, match=r"outside 0\.\.9"):
            scene_verdicts(classes, instances, outside, [1])
