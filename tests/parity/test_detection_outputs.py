"""From a detector's outputs to AP, against results of the original code and a plain second implementation."""

from __future__ import annotations

from functools import cache
from math import pi
from typing import Any

import numpy as np
import pytest
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
from tests.parity.test_boxes import camera_corners
from tests.parity.vectors import case, load

GOLDEN = load("detection_ap")
FIELDS = (
    "center",
    "heading_scores",
    "heading_residuals",
    "size_scores",
    "size_residuals",
    "sem_cls_scores",
    "objectness_scores",
)
VARIANTS: dict[str, tuple[dict[str, Any], bool]] = {
    # name in the archive: (how survivors are chosen, whether every box counts for every class)
    "csc": ({}, True),
    "argmaxcls": ({}, False),
    "nms_anyclass": ({"within_class": False}, True),
    "nms_2d": ({"within_class": False, "in_plan": True}, True),
}
CASES = 1000
SEED = 61


@cache
def golden(name: str) -> dict[str, NDArray]:
    return case(GOLDEN, f"det_{name}")


@cache
def golden_detections(name: str) -> list[Detections]:
    arrays = golden(name)
    return [decode(RawBoxes(*(arrays[f][s] for f in FIELDS)), arrays["mean_sizes_f64"]) for s in range(24)]


@cache
def golden_proposals(name: str) -> list[list[naive.Proposal]]:
    arrays, mean_sizes = golden(name), golden(name)["mean_sizes_f64"].tolist()
    return [
        [naive.proposal(mean_sizes, *(arrays[f][s, p].tolist() for f in FIELDS)) for p in range(40)] for s in range(24)
    ]


@cache
def golden_objects(name: str) -> list[tuple[NDArray, NDArray]]:
    """For each scene, the (G, 7) labelled boxes and their classes."""
    arrays = golden(name)
    bins = arrays["heading_scores"].shape[2]
    heading = arrays["heading_class_label"] * (2 * pi / bins) + arrays["heading_residual_label"]
    heading = np.where(heading > pi, heading - 2 * pi, heading) if bins > 1 else 0 * heading
    size = arrays["mean_sizes_f64"][arrays["size_class_label"]] + arrays["size_residual_label"]
    boxes = np.concatenate([arrays["center_label"], size, heading[..., None]], axis=2)
    real = arrays["box_label_mask"] > 0
    return [(boxes[s][real[s]], arrays["sem_cls_label"][s][real[s]]) for s in range(24)]


def mask(rows: list[int]) -> list[int]:
    return [int(row in rows) for row in range(40)]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["sun", "scannet"])
def test_golden_average_precision(name: str, variant: str) -> None:
    (choice, every_class), arrays, objects = VARIANTS[variant], golden(name), golden_objects(name)
    classes = len(arrays["mean_sizes_f64"])
    said = []
    for scene, found in enumerate(golden_detections(name)):
        rows = survivors(found, **choice)
        assert mask(rows.tolist()) == arrays[f"{variant}_nms_mask"][scene].tolist()
        rows = rows[found.objectness[rows] > 0.05]
        strong = Detections(*(field[rows] for field in found))
        said.append(scored(strong, every_class))
        if choice == {}:
            assert all(np.array_equal(a, b) for a, b in zip(kept(found), strong, strict=True))
    for scenes, part in ((24, ""), (3, "first3scenes_")):
        verdicts = [
            [scene_verdicts(*said[s][c], objects[s][0][objects[s][1] == c]) for s in range(scenes)]
            for c in range(classes)
        ]
        for place, percent in enumerate((25, 50)):
            results = np.array([average_precision(joined(v[place] for v in verdicts[c])) for c in range(classes)])
            prefix = f"{variant}_{part}iou{percent}"
            for column, what in enumerate(("ap", "recall")):
                expected = arrays[f"{prefix}_{what}_f64"]
                assert np.allclose(results[:, column], expected, rtol=0, atol=1e-9, equal_nan=True)
            labelled = np.array([any((objects[s][1] == c).any() for s in range(scenes)) for c in range(classes)])
            assert (np.isnan(results[:, 0]) == ~labelled).all() and labelled.all() == (scenes == 24)
            mean = np.nanmean(results[:, 0])
            assert abs(mean - arrays[f"{prefix}_map_over_classes_with_gt_f64"]) < 1e-9
            # The original averages over classes that are labelled or predicted, with NaN if nothing is labelled.
            seen = labelled | [any(len(said[s][c][0]) for s in range(scenes)) for c in range(classes)]
            original = arrays[f"{prefix}_map_ar_original_f64"]
            assert np.allclose(results[seen].mean(axis=0), original, rtol=0, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["sun", "scannet"])
def test_golden_average_precision_of_the_plain_definition(name: str, variant: str) -> None:
    (choice, every_class), arrays, objects = VARIANTS[variant], golden(name), golden_objects(name)
    strong = []
    for scene, proposals in enumerate(golden_proposals(name)):
        rows = naive.surviving(proposals, **choice)
        assert mask(rows) == arrays[f"{variant}_nms_mask"][scene].tolist()
        strong.append([proposals[row] for row in rows if proposals[row].objectness > 0.05])
    for c in range(len(arrays["mean_sizes_f64"])):
        scenes = [
            (naive.said(proposals, c, every_class), boxes[classes == c].tolist())
            for proposals, (boxes, classes) in zip(strong, objects, strict=True)
        ]
        for part, count in (("", 24), ("first3scenes_", 3)):
            for percent in (25, 50):
                found = naive.detection_ap(scenes[:count], percent / 100)
                expected = [arrays[f"{variant}_{part}iou{percent}_{what}_f64"][c] for what in ("ap", "recall")]
                assert np.allclose(found, expected, rtol=0, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("name", ["sun", "scannet"])
def test_golden_boxes_scores_and_counts(name: str) -> None:
    arrays, objects = golden(name), golden_objects(name)
    found = kept(golden_detections(name)[0])
    boxes, scores = scored(found)[0]
    assert np.abs(camera_corners(boxes) - arrays["scene0_class0_corners_cam_f64"]).max() < 1e-6
    assert np.abs(scores - arrays["scene0_class0_scores_f64"]).max() < 1e-6
    assert np.abs(camera_corners(objects[0][0]) - arrays["scene0_gt_corners_cam_f64"]).max() < 1e-6
    everything = np.concatenate([classes for _, classes in objects])
    counts = np.bincount(everything, minlength=len(arrays["mean_sizes_f64"]))
    assert np.array_equal(counts, arrays["num_gt_per_class"])


@pytest.mark.parametrize("name", ["sun", "scannet"])
def test_golden_removal_of_empty_boxes(name: str) -> None:
    arrays = golden(name)
    for scene, expected in enumerate(arrays["removeempty_first8_nms_mask"].tolist()):
        xyz = arrays["points_first8"][scene]
        assert mask(survivors(golden_detections(name)[scene], xyz=xyz).tolist()) == expected
        assert mask(naive.surviving(golden_proposals(name)[scene], points=xyz.tolist())) == expected


def test_golden_area_under_the_envelope() -> None:
    golden = case(GOLDEN, "vocap")
    recall, precision = golden["recall_f64"], golden["precision_f64"]
    assert abs(envelope_area(recall, precision) - golden["ap_f64"]) < 1e-12
    assert abs(naive.envelope(recall.tolist(), precision.tolist()) - golden["ap_f64"]) < 1e-12


def random_outputs(rng: np.random.Generator) -> tuple[RawBoxes, NDArray]:
    """A detector's outputs for a few crowded proposals, some of them identical, and the mean sizes."""
    count, bins, sizes, classes = rng.integers(0, 9), rng.choice([1, 2, 12]), rng.integers(1, 4), rng.integers(1, 5)
    raw = RawBoxes(
        rng.uniform(-0.6, 0.6, (count, 3)).astype(np.float32),
        rng.normal(size=(count, bins)),
        rng.uniform(-pi / bins, pi / bins, (count, bins)),
        rng.normal(size=(count, sizes)).astype(np.float32),
        rng.normal(0, 0.3, (count, sizes, 3)),
        rng.normal(0, 3, (count, classes)),
        rng.normal(0, 3, (count, 2)).astype(np.float32),
    )
    if count > 2 and rng.random() < 0.5:
        # A duplicated proposal; a duplicated objectness.
        for field in raw:
            field[1] = field[0]
        raw.objectness_scores[2] = raw.objectness_scores[0]
    return raw, rng.uniform(0.5, 1.5, (sizes, 3))


def near(found: NDArray, expected: list) -> bool:
    """Whether rows are equal; an empty list equals any array without rows."""
    return len(found) == len(expected) and (not expected or bool(np.abs(found - expected).max() < 1e-12))


def test_random_outputs() -> None:
    rng = np.random.default_rng(SEED)
    gone, empty = 0, 0
    for number in range(CASES):
        raw, mean_sizes = random_outputs(rng)
        found, message = decode(raw, mean_sizes), f"seed {SEED}: case {number}"
        count = len(found.boxes)
        sizes = mean_sizes.tolist()
        slow = [naive.proposal(sizes, *(field[p].tolist() for field in raw)) for p in range(count)]
        assert near(found.boxes, [p.box for p in slow]), message
        assert near(found.objectness, [p.objectness for p in slow]), message
        assert near(found.classes, [p.names for p in slow]), message
        for choice, _ in VARIANTS.values():
            rows = survivors(found, **choice).tolist()
            assert rows == naive.surviving(slow, **choice), message
            gone += count - len(rows)
        xyz = rng.uniform(-1, 1, (20, 3))
        rows = survivors(found, xyz=xyz).tolist()
        assert rows == naive.surviving(slow, points=xyz.tolist()), message
        empty += count - len(rows)
        strong = [slow[row] for row in naive.surviving(slow) if slow[row].objectness > 0.05]
        for every_class in (True, False):
            for c, (boxes, scores) in enumerate(scored(kept(found), every_class)):
                expected = naive.said(strong, c, every_class)
                assert near(boxes, [b for b, _ in expected]) and near(scores, [s for _, s in expected]), message
    assert gone > CASES and empty > CASES
