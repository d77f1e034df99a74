"""Scorers on handmade scenes: perfect, wrong and damaged predictions, and the pitfalls of spec F.2."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pretrain_bench.benchmarks.metrics import predictions
from pretrain_bench.benchmarks.metrics.scorer import (
    DetectionScorer,
    InstanceScorer,
    SemanticScorer,
    confusion_of_counts,
    scorer_of,
)
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.harness.planning.catalog import find

CLASSES = ("clutter", "floor", "bookcase", "chair")
VOXEL = 0.1


def write(view: Path, scene: str, **arrays: np.ndarray) -> None:
    for part, names in (("unlabelled", ("xyz", "rgb")), ("labelled", ("semantic", "instance", "boxes"))):
        (view / part / scene).mkdir(parents=True)
        for name in names:
            if name in arrays:
                np.save(view / part / scene / f"{name}.npy", arrays[name])


@pytest.fixture
def view(tmp_path: Path) -> Path:
    """One point per voxel: 20 of clutter (class 0, instance 0), 30 of floor, 15 each of two chairs, 5 of a small one, 5 unlabelled."""
    count = 90
    xyz = np.column_stack([np.arange(count) * VOXEL + 0.05, np.zeros(count), np.zeros(count)]).astype(np.float32)
    sizes = [20, 30, 15, 15, 5, 5]
    write(
        tmp_path,
        "room",
        xyz=xyz,
        rgb=np.zeros((count, 3), np.uint8),
        semantic=np.repeat([0, 1, 3, 3, 3, 255], sizes).astype(np.uint8),
        instance=np.repeat([0, 1, 2, 3, 4, 0], sizes).astype(np.int32),
    )
    return tmp_path


def instances(*found: tuple[int, float, range]) -> dict[str, np.ndarray]:
    rows = [np.array(list(r), np.int32) for *_, r in found]
    return {
        "classes": np.repeat([0, 1, 3, 3], [20, 30, 35, 5]).astype(np.uint8),
        "voxels": np.concatenate([np.zeros(0, np.int32), *rows]),
        "starts": np.cumsum([0, *map(len, rows)]).astype(np.int32),
        "instance_classes": np.array([c for c, *_ in found], np.uint8),
        "confidences": np.array([s for _, s, _ in found], np.float32),
    }


def scorer(view: Path) -> InstanceScorer:
    return InstanceScorer(view, ("room",), VOXEL, 4, (0, 2, 3), 10)


def test_perfect_instances_get_everything(view: Path) -> None:
    said = instances((0, 0.9, range(20)), (3, 0.8, range(50, 65)), (3, 0.7, range(65, 80)))
    metrics = scorer(view).score({"room": said})
    assert metrics["ap"] == metrics["ap50"] == metrics["ap25"] == 1.0
    # Class 0 counts (the original drops it), and no bookcase was invented where instances are void (spec F.2).
    assert metrics["ap50/0"] == metrics["ap50/3"] == 1.0 and metrics["ap50/2"] is None


def test_void_and_small_instances_do_no_harm(view: Path) -> None:
    good = [(0, 0.9, range(20)), (3, 0.8, range(50, 65)), (3, 0.7, range(65, 80))]
    void = instances(*good, (3, 0.99, range(20, 35)), (2, 0.99, range(85, 90)), (3, 0.99, range(80, 85)))
    assert scorer(view).score({"room": void})["ap50"] == 1.0
    wrong = instances(*good, (2, 0.99, range(50, 65)), (3, 0.99, range(0, 15)))
    metrics = scorer(view).score({"room": wrong})
    assert metrics["ap50/2"] is None, "no bookcase to find: it is left out of the mean"
    # Three chairs by decreasing confidence: wrong, right, right. Average precision: (1/2 + 2/3) / 2 at the recall steps.
    assert metrics["ap50/3"] is not None and 0.4 < metrics["ap50/3"] < 0.8


def test_half_an_instance_is_none(view: Path) -> None:
    metrics = scorer(view).score({"room": instances((0, 0.9, range(10)))})
    assert metrics["ap50/0"] == 0.0 and metrics["ap25/0"] == 1.0, "an overlap of exactly a half does not exceed a half"


def test_the_constant_predictor_is_no_match(view: Path) -> None:
    own = scorer(view)
    metrics = own.score({"room": own.constant("room")})
    assert metrics["ap50"] == 0.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"starts": np.array([0, 30, 20], np.int32)}, "non-decreasing numbers"),
        ({"starts": np.array([5, 20, 35], np.int32)}, "non-decreasing numbers"),
        ({"voxels": np.full(35, 90, np.int32)}, "a row outside 0..89"),
        ({"voxels": np.zeros(35, np.int32)}, "lists a voxel twice"),
        ({"confidences": np.array([0.5, np.nan], np.float32)}, "not all are finite"),
        ({"confidences": np.array([0.5], np.float32)}, "confidences"),
        ({"classes": np.zeros(89, np.uint8)}, r"expected format 1, uint8 \(90,\)"),
        ({"voxels": np.zeros(35, np.int64)}, "int64"),
        ({"extra": np.zeros(1)}, "predictions of kind instance hold"),
    ],
)
def test_damaged_instances_are_refused(view: Path, tmp_path: Path, change: dict[str, np.ndarray], words: str) -> None:
    good = instances((0, 0.9, range(20)), (3, 0.8, range(50, 65)))
    predictions.write(tmp_path / "p", {"room": good})
    assert scorer(view).read(tmp_path / "p", "room").keys() == good.keys()
    predictions.write(tmp_path / "p", {"room": {**good, **change}})
    with pytest.raises(DataError, match=words):
        scorer(view).read(tmp_path / "p", "room")


def boxes(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 8)


@pytest.fixture
def detector(tmp_path: Path) -> DetectionScorer:
    points = {"xyz": np.zeros((1, 3), np.float32), "rgb": np.zeros((1, 3), np.uint8)}
    write(tmp_path, "one", **points, boxes=boxes([0, 0, 0, 2, 1, 1, 0.3, 0], [5, 0, 0, 1, 1, 1, 0, 1]))
    write(tmp_path, "two", **points, boxes=boxes([0, 3, 0, 2, 1, 1, -0.3, 0]))
    write(tmp_path, "none", **points, boxes=boxes())
    return DetectionScorer(tmp_path, ("one", "two", "none"), 3)


def said(*rows: tuple[list[float], float, int]) -> dict[str, np.ndarray]:
    return {
        "boxes": np.array([r[0] for r in rows], np.float32).reshape(-1, 7),
        "objectness": np.array([r[1] for r in rows], np.float32),
        "probabilities": np.eye(3, dtype=np.float32)[[r[2] for r in rows]].reshape(-1, 3),
    }


def test_perfect_boxes_get_everything(detector: DetectionScorer) -> None:
    found = {
        "one": said(([0, 0, 0, 2, 1, 1, 0.3 + np.pi], 0.9, 0), ([5, 0, 0, 1, 1, 1, np.pi / 2], 0.9, 1)),
        "two": said(([0, 3, 0, 2, 1, 1, -0.3], 0.8, 0)),
        "none": said(),
    }
    metrics = detector.score(found)
    assert metrics["map25"] == metrics["map50"] == metrics["recall50"] == 1.0
    assert metrics["ap50/2"] is None, "no object of the third class"
    turned = {**found, "two": said(([0, 3, 0, 2, 1, 1, 0.3], 0.8, 0))}
    assert detector.score(turned)["ap50/0"] == 1.0 and detector.score(turned)["ap25/0"] == 1.0
    crossed = {**found, "two": said(([0, 3, 0, 2, 1, 1, -0.3 + np.pi / 2], 0.8, 0))}
    # Two crossed bars of 2 x 1: IoU 1/3, so a match at 25 % only.
    assert detector.score(crossed)["ap25/0"] == 1.0 and detector.score(crossed)["ap50/0"] == 0.5


def test_a_second_box_on_an_object_is_wrong(detector: DetectionScorer) -> None:
    one = ([0, 0, 0, 2, 1, 1, 0.3], 0.9, 0)
    metrics = detector.score({"one": said(one, one), "two": said(), "none": said()})
    assert metrics["ap50/0"] == 0.5, "half of the objects at full precision"
    late = ([0, 3, 0, 2, 1, 1, -0.3], 0.1, 0)
    metrics = detector.score({"one": said(one, one), "two": said(late), "none": said()})
    assert metrics["ap50/0"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"boxes": np.full((1, 7), np.nan, np.float32)}, "not all numbers are finite"),
        ({"boxes": np.array([[0, 0, 0, 1, -1, 1, 0]], np.float32)}, "a negative size"),
        ({"boxes": np.zeros((1, 8), np.float32)}, r"expected format 1, float32 \(1, 7\)|float32 \(K, 7\)"),
        ({"objectness": np.zeros(2, np.float32)}, "objectness"),
        ({"probabilities": np.zeros((1, 4), np.float32)}, "probabilities"),
    ],
)
def test_damaged_boxes_are_refused(
    detector: DetectionScorer, tmp_path: Path, change: dict[str, np.ndarray], words: str
) -> None:
    good = said(([0, 0, 0, 1, 1, 1, 0], 0.5, 0))
    predictions.write(tmp_path / "p", {"one": {**good, **change}})
    with pytest.raises(DataError, match=words):
        detector.read(tmp_path / "p", "one")


def test_a_file_that_unpacks_to_too_much_is_refused(detector: DetectionScorer, view: Path, tmp_path: Path) -> None:
    predictions.write(tmp_path / "p", {"one": said(), "room": instances()})
    big = {**said(), "boxes": np.zeros((100_000, 7), np.float32)}
    predictions.write(tmp_path / "p", {"one": big})
    with pytest.raises(DataError, match="bytes unpacked, expected at most"):
        detector.read(tmp_path / "p", "one")


def test_the_confusion_of_several_scenes(view: Path) -> None:
    semantic = SemanticScorer(view, ("room",), VOXEL, 4)
    counts = semantic.counts("room", {"classes": np.ones(90, np.uint8)})
    twice = confusion_of_counts([counts, counts])
    assert np.array(twice["voxel"]).sum() == 2 * 85 and twice["voxel"][3][1] == 2 * 35
    assert confusion_of_counts([]) == {} and confusion_of_counts([{"boxes": []}]) == {}


def test_every_task_of_headline_counts_the_classes_of_the_paper(tmp_path: Path) -> None:
    """J-19: ten classes of S3DIS; `official` all thirteen. ScanNet: 18, without wall and floor."""
    s3dis, scannet = find(Dataset, "s3dis"), find(Dataset, "scannet")
    for profile, dataset, task, number in (
        ("headline", s3dis, "s3dis-inst", 10),
        ("official", s3dis, "s3dis-inst", 13),
        ("headline", scannet, "scannet-inst", 18),
    ):
        recipe = find(Profile, profile).tasks[task]
        found = scorer_of(recipe, dataset.classes, dataset.thing_classes, tmp_path, ())
        assert isinstance(found, InstanceScorer) and len(found.counted) == number
