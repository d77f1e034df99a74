"""Oriented boxes against results of the original code, a plain second implementation, and hand-computed values."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import combinations
from math import pi, sqrt
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from pretrain_bench.benchmarks.input.boxes import (
    extents,
    oriented_iou,
    plan_corners,
    plan_iou,
    plan_overlap,
    points_inside,
    suppress,
)
from tests.parity import naive
from tests.parity.vectors import case, load

GOLDEN = load("boxes")
CASES = 1000
SEED = 20
Measure = Callable[[NDArray, NDArray], NDArray]
Relative = Literal["union", "weaker"]
RELATIVE: dict[str, Relative] = {"old0": "union", "old1": "weaker"}


def from_camera(centre: NDArray, size: NDArray, heading: NDArray) -> NDArray:
    """(N, 7) boxes converted from the original's frame: x right, y down, z forward."""
    return np.column_stack([centre[:, 0], centre[:, 2], -centre[:, 1], size, heading])


def camera_corners(boxes: NDArray) -> NDArray:
    """(N, 8, 3) corners in the original's frame and order: corners with the lower y, the top, come second."""
    plan, half = plan_corners(boxes), boxes[:, 5] / 2
    faces = [np.dstack([plan[..., 0], np.repeat(y[:, None], 4, 1), plan[..., 1]]) for y in (half, -half)]
    return np.concatenate(faces, axis=1) - [[0, 1, 0]] * boxes[:, None, 2:3]


def golden_pairs() -> tuple[NDArray, NDArray, dict[str, NDArray]]:
    golden = case(GOLDEN, "iou")
    one, two = (
        from_camera(golden[f"center{i}_cam_f64"], golden[f"size{i}_lwh_f64"], golden[f"heading{i}_f64"]) for i in (1, 2)
    )
    return one, two, golden


def random_boxes(rng: np.random.Generator, count: int) -> NDArray:
    size = rng.uniform(0.1, 2, (count, 3))
    return np.column_stack([rng.uniform(-1, 1, (count, 3)), size, rng.uniform(-4, 4, count)])


def random_pairs(rng: np.random.Generator, count: int) -> tuple[NDArray, NDArray]:
    """Sixteen kinds of pairs: arbitrary (also small or distant), identical, rotated by quarter turns, touching, nested, side by side,
    flat, without size, thin, of negative size."""
    one, two = random_boxes(rng, count), random_boxes(rng, count)
    kind = np.arange(count) % 16
    related = kind >= 6
    two[related] = one[related]
    square = kind == 7
    one[square, 4] = one[square, 3]
    two[square] = one[square]
    two[square | (kind == 8), 6] += rng.integers(-3, 4, (square | (kind == 8)).sum()) * pi / 2
    touching = kind == 9
    along = np.column_stack([np.cos(one[:, 6]), -np.sin(one[:, 6])])
    two[touching, :2] += (along * one[:, 3:4])[touching]
    two[kind == 10, 3:6] *= rng.uniform(0.1, 1, (3,))
    two[kind == 11, :2] += (along * rng.uniform(-1, 1, (count, 1)))[kind == 11]
    two[kind == 12, 3 + rng.integers(3)] = 0
    one[kind == 13, 3:6] = two[kind == 13, 3:6] = 0
    two[kind == 14, 3:5] = one[kind == 14, 3:5] * [1e-3, 1]
    two[kind == 15, 3:6] *= rng.choice([-1, 1], ((kind == 15).sum(), 3))
    one[kind == 4, :6] *= 1e-3
    two[kind == 4, :6] *= 1e-3
    far = (kind == 5) | (kind == 11)
    one[far, :3] += [150, -80, 20]
    two[far, :3] += [150, -80, 20]
    return one, two


def test_golden_intersections() -> None:
    one, two, golden = golden_pairs()
    exact, original = golden["exact_iou3d_iou2d_f64"], golden["iou3d_iou2d_f64"]
    found = np.column_stack([oriented_iou(one, two), plan_iou(one, two)])
    assert np.abs(found - exact).max() < 1e-9
    reliable = golden["original_reliable"] == 1
    assert (~reliable).sum() == 1 and np.abs(found - original)[reliable].max() < 1e-9
    slow = [[f(a, b) for f in (naive.box_iou, naive.plan_iou)] for a, b in zip(one.tolist(), two.tolist(), strict=True)]
    assert np.abs(np.array(slow) - exact).max() < 1e-9


def test_golden_intersections_without_headings() -> None:
    golden = case(GOLDEN, "iou")
    # Sizes belong to the three axes in order, whatever their names.
    one, two = (
        np.column_stack([golden[f"center{i}_cam_f64"], golden[f"size{i}_lwh_f64"], np.zeros(200)]) for i in (1, 2)
    )
    assert np.abs(oriented_iou(one, two) - golden["axis_aligned_f64"]).max() < 1e-9


def test_golden_corners() -> None:
    one, two, golden = golden_pairs()
    for number, boxes in enumerate((one, two), start=1):
        expected = golden[f"corners{number}_f64"]
        assert np.abs(camera_corners(boxes) - expected).max() < 1e-12
        bounds = np.column_stack([expected.min(axis=1), expected.max(axis=1)])
        assert np.abs(extents(boxes) - bounds[:, [0, 2, 4, 3, 5, 1]] * [1, 1, -1, 1, 1, -1]).max() < 1e-12


@pytest.mark.parametrize("old", RELATIVE)
@pytest.mark.parametrize("percent", [10, 25])
@pytest.mark.parametrize("kind", ["pick3d", "pick3d_samecls", "pick2d"])
def test_golden_suppression(kind: str, percent: int, old: str) -> None:
    golden = case(GOLDEN, "nms")
    rows = golden["boxes_minmax_score_class_f64"]
    spans, scores = rows[:, [0, 1, 3, 4] if kind == "pick2d" else slice(6)], rows[:, 6]
    classes = rows[:, 7].astype(int) if kind == "pick3d_samecls" else None
    expected = golden[f"{kind}_thr{percent}_{old}"].tolist()
    assert suppress(spans, scores, percent / 100, classes, RELATIVE[old]).tolist() == expected
    names = None if classes is None else classes.tolist()
    assert naive.suppress(spans.tolist(), scores.tolist(), percent / 100, names, RELATIVE[old]) == expected


def test_intersections_of_random_pairs() -> None:
    one, two = random_pairs(np.random.default_rng(SEED), 4 * CASES)
    for fast, slow in ((oriented_iou, naive.box_iou), (plan_iou, naive.plan_iou)):
        found = fast(one, two)
        expected = np.array([slow(a, b) for a, b in zip(one.tolist(), two.tolist(), strict=True)])
        worst = int(np.abs(found - expected).argmax())
        assert abs(found[worst] - expected[worst]) < 1e-9, f"seed {SEED}: {one[worst]} and {two[worst]}"
        assert (expected == 0).mean() > 0.1 and (expected > 0.999).mean() > 0.1 and len(set(expected.round(6))) > 900


def test_points_and_extents_of_random_boxes() -> None:
    rng = np.random.default_rng(SEED + 1)
    held = 0
    for number, box in enumerate(random_pairs(rng, CASES)[1]):
        xyz = box[:3] + rng.normal(0, 0.5, (10, 3)) * (1e-3 if number % 16 == 4 else 1)
        found = points_inside(xyz, box)
        assert found.tolist() == [naive.inside(p, box.tolist()) for p in xyz.tolist()], f"seed {SEED + 1}: box {number}"
        assert np.abs(extents(box[None])[0] - naive.spans(box.tolist())).max() < 1e-12
        held += found.sum()
    assert CASES < held < 9 * CASES


def test_suppression_of_random_boxes() -> None:
    rng = np.random.default_rng(SEED + 2)
    gone = 0
    for number in range(CASES):
        count, axes = rng.integers(0, 12), rng.integers(1, 4)
        # Integers, so that overlaps often equal the threshold and scores tie; some boxes are flat.
        low = rng.integers(0, 5, (count, axes))
        spans = np.column_stack([low, low + rng.integers(0, 5, (count, axes))]).astype(float)
        scores = rng.integers(0, 5, count) / 4 if number % 2 else rng.random(count)
        classes = rng.integers(0, 3, count) if number % 3 else None
        threshold = float(rng.choice([0.0, 0.1, 0.25, 0.5, 1.0]))
        relative = list(RELATIVE.values())[number % 2]
        found = suppress(spans, scores, threshold, classes, relative).tolist()
        names = None if classes is None else classes.tolist()
        expected = naive.suppress(spans.tolist(), scores.tolist(), threshold, names, relative)
        assert found == expected, f"seed {SEED + 2}: case {number}"
        gone += int(count) - len(found)
    assert gone > CASES / 2


@pytest.mark.parametrize("relative", ["union", "weaker"])
def test_survivors_do_not_overlap_and_each_suppression_is_justified(relative: Relative) -> None:
    rng = np.random.default_rng(SEED + 3)
    for number in range(100):
        spans, scores, threshold = extents(random_boxes(rng, 15)), rng.random(15), rng.uniform(0.05, 0.6)
        alive = suppress(spans, scores, threshold, relative_to=relative).tolist()
        rows = spans.tolist()
        assert (np.diff(scores[alive]) <= 0).all(), f"seed {SEED + 3}: case {number}"
        assert all(naive.span_overlap(rows[a], rows[b], relative) <= threshold for a, b in combinations(alive, 2))
        for row in set(range(15)) - set(alive):
            stronger = [a for a in alive if scores[a] > scores[row]]
            assert any(naive.span_overlap(rows[a], rows[row], relative) > threshold for a in stronger)


def moved(boxes: NDArray, angle: float, shift: NDArray) -> NDArray:
    """The same boxes after rotating the scene about z (clockwise seen from above, as headings) and shifting it."""
    c, s = np.cos(angle), np.sin(angle)
    boxes = boxes.copy()
    boxes[:, :2] = boxes[:, :2] @ [[c, -s], [s, c]]
    boxes[:, :3] += shift
    boxes[:, 6] += angle
    return boxes


@pytest.mark.parametrize("measure", [oriented_iou, plan_iou])
def test_properties_of_intersections(measure: Measure) -> None:
    rng = np.random.default_rng(SEED + 4)
    one, two = random_pairs(rng, CASES)
    found = measure(one, two)
    assert ((found >= 0) & (found <= 1)).all()
    assert np.abs(measure(two, one) - found).max() < 1e-9
    everyone = random_boxes(rng, CASES)
    assert np.abs(measure(everyone, everyone) - 1).max() < 1e-12
    half_turn = everyone + np.array([0, 0, 0, 0, 0, 0, pi])
    assert np.abs(measure(everyone, half_turn) - 1).max() < 1e-9
    # No size of 0: after a rotation its size would be rounding noise.
    one, two = random_boxes(rng, CASES), random_boxes(rng, CASES)
    for _ in range(5):
        angle, shift = rng.uniform(-pi, pi), rng.uniform(-20, 20, 3)
        assert np.abs(measure(moved(one, angle, shift), moved(two, angle, shift)) - measure(one, two)).max() < 1e-9


def exact_area(one: NDArray, two: NDArray) -> float:
    """Common area of two quadrangles in fractions, without rounding."""
    first, second = ([(Fraction(x), Fraction(y)) for x, y in corners[::-1].tolist()] for corners in (one, two))
    return float(naive.area(naive.clip(first, second)))


@pytest.mark.parametrize("kind", ["turned a little", "shifted a little", "minute"])
def test_nearly_equal_and_minute_boxes_in_exact_arithmetic(kind: str) -> None:
    rng = np.random.default_rng(SEED + 5)
    one = random_boxes(rng, 150)
    one[:, 3:6] = np.exp(rng.uniform(np.log(1e-3), np.log(5), (150, 3)))
    two = one.copy()
    if kind == "turned a little":
        two[:, 6] += 10 ** rng.uniform(-16, -2, 150)
    elif kind == "shifted a little":
        two[:, 0] += 10 ** rng.uniform(-16, -2, 150)
    else:
        two[:, :2] += rng.normal(0, 1e-3, (150, 2))
        two[:, 6] += rng.uniform(-4, 4, 150)
        one[:, :5] *= 1e-5
        two[:, :5] *= 1e-5
    first, second = plan_corners(one), plan_corners(two)
    common, whole = plan_overlap(first, second), plan_overlap(first, first)
    for row in range(150):
        expected = exact_area(first[row], second[row])
        assert abs(common[row] - expected) <= 1e-8 * whole[row], f"seed {SEED + 5}: {one[row]} and {two[row]}"


CUBE: list[float] = [0, 0, 0, 1, 1, 1, 0]
BY_HAND: dict[str, tuple[list[float], list[float], float, float | None]] = {
    # name: (one, two, IoU by volume, IoU by area)
    "itself": (CUBE, CUBE, 1, 1),
    # 1/2 in common of 2 - 1/2.
    "shifted by half": (CUBE, [0.5, 0, 0, 1, 1, 1, 0], 1 / 3, 1 / 3),
    # 1/4 in common of 2 - 1/4.
    "shifted by half along two axes": (CUBE, [0.5, 0.5, 0, 1, 1, 1, 0], 1 / 7, 1 / 7),
    # 1/8 in common of 2 - 1/8.
    "shifted by half along all axes": (CUBE, [0.5, 0.5, 0.5, 1, 1, 1, 0], 1 / 15, 1 / 7),
    # 1 in common of 2, and exactly so.
    "half of a box": ([0.5, 0, 0, 2, 1, 1, 0], CUBE, 0.5, 0.5),
    # A square turned by 45 degrees over itself: an octagon of 2 (sqrt 2 - 1), of 2 less that: 1 / sqrt 2.
    "turned by 45 degrees": (CUBE, [0, 0, 0, 1, 1, 1, pi / 4], 1 / sqrt(2), 1 / sqrt(2)),
    # A square with diagonal 1 stands on its corner inside the unit square: area 1/2.
    "diamond inside": (CUBE, [0, 0, 0, sqrt(0.5), sqrt(0.5), 1, pi / 4], 0.5, 0.5),
    # Its corner (1/2 from its centre) reaches 1/4 deep into the square: a triangle of 1/4 * 1/2 / 2 = 1/16, of 3/2 - 1/16.
    "diamond at the side": (CUBE, [0.75, 0, 0, sqrt(0.5), sqrt(0.5), 1, pi / 4], 1 / 23, 1 / 23),
    "square turned by 90 degrees": (CUBE, [0, 0, 0, 1, 1, 1, pi / 2], 1, 1),
    "sides exchanged and turned": ([0, 0, 0, 2, 1, 1, 0], [0, 0, 0, 1, 2, 1, pi / 2], 1, 1),
    # A cross: 1 in common of 3 + 3 - 1.
    "cross": ([0, 0, 0, 3, 1, 1, 0], [0, 0, 0, 3, 1, 1, pi / 2], 0.2, 0.2),
    "common side": (CUBE, [1, 0, 0, 1, 1, 1, 0], 0, 0),
    "common corner": (CUBE, [1, 1, 1, 1, 1, 1, 0], 0, 0),
    "one above the other": (CUBE, [0, 0, 2, 1, 1, 1, 0.3], 0, None),
    # 3/4 of the height in common: 3/4 of 5/4.
    "a quarter higher": (CUBE, [0, 0, 0.25, 1, 1, 1, 0], 0.6, 1),
    # 1 of 8 inside.
    "nested": (CUBE, [0.5, 0.5, 0.5, 2, 2, 2, 0], 1 / 8, 1 / 4),
    "no height": (CUBE, [0, 0, 0, 1, 1, 0, 0], 0, 1),
    "no size": ([0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0], 0, 0),
    # A negative length is the box mirrored: 1 of 2.5 in common.
    "negative length": ([0, 0, 0, -1, 1, 1, 0], [0, 0, 0, 1, 1, 2.5, 0], 0.4, 1),
    "negative height": ([0, 0, 0, 1, 1, -1, 0], CUBE, 0, 1),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_intersections_by_hand(name: str) -> None:
    one, two, volume, area = BY_HAND[name]
    for a, b in ((one, two), (two, one)):
        first, second = np.array([a], float), np.array([b], float)
        assert abs(oriented_iou(first, second)[0] - volume) < 1e-12 and abs(naive.box_iou(a, b) - volume) < 1e-12
        if area is not None:
            assert abs(plan_iou(first, second)[0] - area) < 1e-12 and abs(naive.plan_iou(a, b) - area) < 1e-12


def test_half_of_a_box_is_exactly_half() -> None:
    # A strict comparison with 0.5 must not be affected by rounding.
    one, two, *_ = BY_HAND["half of a box"]
    assert oriented_iou(np.array([one]), np.array([two]))[0] == 0.5 == naive.box_iou(one, two)


def test_a_positive_heading_goes_clockwise() -> None:
    # The end (2, 0) of a long thin box goes to 2 (cos 45, -sin 45); turned by 90 degrees it lies along y.
    middle = plan_corners(np.array([[0, 0, 0, 4, 0, 1, pi / 4]]))[0].round(12)
    assert {tuple(c) for c in middle.tolist()} == {(v, -v) for v in (round(sqrt(2), 12), -round(sqrt(2), 12))}
    assert np.allclose(extents(np.array([[1, 2, 3, 4, 2, 6, pi / 2]])), [[0, 0, 0, 2, 4, 6]])
    box = np.array([0, 0, 0, 4, 0.1, 1, pi / 4])
    assert points_inside(np.array([[1, -1, 0], [1, 1, 0]]), box).tolist() == [True, False]


def test_borders_are_inside() -> None:
    xyz = np.array([[0.5, 0.5, 0.5], [-0.5, 0, 0], [0.5, 0.5, np.nextafter(0.5, 1)], [0, 0, 0]])
    assert points_inside(xyz, np.array(CUBE, float)).tolist() == [True, True, False, True]


def test_suppression_by_hand() -> None:
    # [0, 5] and [3, 8] share 2 of 8, exactly a quarter: both stay. [0, 4] and [2, 6] share 2 of 6: the weaker goes.
    # Relative to the weaker box, the first pair overlaps by 2 / 5.
    exact, more = np.array([[0, 5], [3, 8.0]]), np.array([[0, 4], [2, 6.0]])
    scores = np.array([0.4, 0.6])
    assert suppress(exact, scores, 0.25).tolist() == [1, 0]
    assert suppress(more, scores, 0.25).tolist() == [1]
    assert suppress(exact, scores, 0.25, relative_to="weaker").tolist() == [1]
    assert suppress(more, scores, 0.25, np.array([0, 1])).tolist() == [1, 0]
    # A suppressed box suppresses no others: the first of three suppresses the middle one, so the last stays.
    chain = np.array([[0, 4], [2, 6], [4, 8.0]])
    assert suppress(chain, np.array([0.9, 0.8, 0.7]), 0.25).tolist() == [0, 2]
    # Of equal scores, the later box is kept.
    assert suppress(np.array([[0, 1], [0, 1.0]]), np.array([0.5, 0.5]), 0.25).tolist() == [1]
    assert suppress(np.zeros((0, 6)), np.zeros(0), 0.25).tolist() == []
