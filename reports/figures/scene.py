"""Input, ground truth, prediction and errors of one test scene."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.datasets.drawing import Picture, palette
from pretrain_bench.benchmarks.datasets.views import Labels, load_aligned_cloud, load_boxes, load_cloud, load_labels
from pretrain_bench.benchmarks.input.boxes import oriented_iou, points_inside
from pretrain_bench.benchmarks.input.transforms import evaluation_voxels
from pretrain_bench.benchmarks.input.voxelise import IGNORE, Voxels, voxel_labels
from pretrain_bench.benchmarks.metrics.predictions import Prediction
from pretrain_bench.benchmarks.metrics.scorer import scorer_of, voxel_instances
from pretrain_bench.benchmarks.specs.recipes import DetectionRecipe, InstanceRecipe, SemanticRecipe
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.contract.stage import DataView, StageSpec

RIGHT, WRONG, MISSED, VOID = (60, 160, 75), (215, 60, 50), (40, 90, 200), (200, 200, 200)
SURE = 0.5
"""Least objectness of drawn boxes."""
MATCH = {"instance": 0.5, "detection": 0.25}
"""Overlap above which an instance or box counts as correct."""


class Tile(NamedTuple):
    """One view of the scene: points (N, 3) with colours (N, 3), boxes (K, 7) with colours (K, 3), and a title."""

    title: str
    xyz: NDArray[np.floating]
    colours: Picture
    boxes: NDArray[np.floating]
    box_colours: Picture


class SceneTiles(NamedTuple):
    """The four tiles of a scene, a legend of names and colours, the columns of its point file, and its point spacing."""

    tiles: tuple[Tile, ...]
    legend: tuple[tuple[str, tuple[int, int, int]], ...]
    columns: dict[str, NDArray[Any]]
    spacing_metres: float = 0.0


def check_tested(spec: StageSpec, scene: str) -> None:
    """Raise WrongUse for a scene that was not tested, without reading data."""
    tested = spec.split.test if spec.split else ()
    if scene not in tested:
        listed = ", ".join(tested[:5])
        raise WrongUse(
            f"scene {scene!r}: not a test scene of this run, which has {len(tested)}: {listed}, ...; list all with --scene list"
        )


def show_scene(spec: StageSpec, view: Path, scene: str, predictions: Path) -> SceneTiles:
    """Make tiles of input, ground truth, prediction and errors of a test scene. `view` is the folder of the prepared data,
    `predictions` the folder of one checkpoint's predictions.

    Raises WrongUse for a scene that was not tested, and DataError for unreadable predictions.
    """
    assert spec.split is not None and spec.data is not None
    check_tested(spec, scene)
    recipe = spec.task_recipe
    scorer = scorer_of(recipe, spec.data.classes, spec.data.things, view, (scene,), spec.data.label_ids)
    prediction = scorer.read(predictions, scene)
    if isinstance(recipe, DetectionRecipe):
        return _boxes(spec.data, view, scene, prediction)
    assert isinstance(recipe, SemanticRecipe)
    cloud, labels = load_cloud(view, scene), load_labels(view, scene, spec.data.label_ids)
    voxels = evaluation_voxels(np.asarray(cloud.xyz), recipe.voxel_metres)
    xyz = np.asarray(cloud.xyz)[voxels.representative]
    rgb = np.asarray(cloud.rgb)[voxels.representative].astype(np.uint8)
    semantic = voxel_labels(np.asarray(labels.semantic), voxels)
    if isinstance(recipe, InstanceRecipe):
        truth = _true_instances(spec.data, recipe, semantic, labels, voxels)
        shown = _instances(xyz, rgb, semantic, truth, prediction)
    else:
        shown = _classes(spec.data.classes, xyz, rgb, semantic, prediction["classes"])
    return shown._replace(spacing_metres=recipe.voxel_metres)


def _classes(
    names: tuple[str, ...], xyz: NDArray, rgb: Picture, semantic: NDArray[np.uint8], predicted: NDArray[np.uint8]
) -> SceneTiles:
    colours = palette(len(names))
    known = semantic != IGNORE
    right = semantic == predicted
    errors = _painted(len(xyz), VOID)
    errors[known & right], errors[known & ~right] = RIGHT, WRONG
    share = right[known].mean() if known.any() else float("nan")
    tiles = (
        _tile("input", xyz, rgb),
        _tile("ground truth", xyz, colours[np.minimum(semantic, len(names))]),
        _tile("prediction", xyz, colours[np.minimum(predicted, len(names))]),
        _tile(f"errors ({100 * share:.0f} % of the labelled voxels right)", xyz, errors),
    )
    present = sorted({*semantic[known].tolist(), *predicted.tolist()})
    legend = tuple((names[c], _rgb(colours[c])) for c in present if c < len(names))
    return SceneTiles(tiles, (*legend, *_verdict_legend("voxel", False)), {"label": semantic, "prediction": predicted})


def _true_instances(
    data: DataView, recipe: InstanceRecipe, semantic: NDArray[np.uint8], labels: Labels, voxels: Voxels
) -> NDArray[np.int32]:
    counted = recipe.counted_classes(data.classes, data.things)
    truth = voxel_instances(np.asarray(labels.semantic), np.asarray(labels.instance), voxels, counted)
    return np.where(np.isin(semantic, counted), truth, np.int32(-1))


def _instances(
    xyz: NDArray, rgb: Picture, semantic: NDArray[np.uint8], truth: NDArray[np.int32], prediction: Prediction
) -> SceneTiles:
    starts, classes = prediction["starts"], prediction["instance_classes"]
    surest_first = np.argsort(-prediction["confidences"], kind="stable")
    predicted = np.full(len(xyz), -1, np.int32)
    errors = _painted(len(xyz), VOID)
    numbers, objects = np.unique(truth[truth >= 0]), {}
    for number in numbers:
        objects[int(number)] = np.flatnonzero(truth == number)
        errors[objects[int(number)]] = MISSED
    wrong, matched = [], set()
    for row in surest_first:
        mine = prediction["voxels"][starts[row] : starts[row + 1]]
        predicted[mine] = np.where(predicted[mine] < 0, row, predicted[mine])  # the most confident of several wins
        overlaps = {
            n: len(np.intersect1d(mine, theirs)) / len(np.union1d(mine, theirs))
            for n, theirs in objects.items()
            if semantic[theirs[0]] == classes[row] and n not in matched
        }
        best = max(overlaps, key=lambda n: overlaps[n], default=None)
        if best is not None and overlaps[best] > MATCH["instance"]:
            matched.add(best)
            errors[np.union1d(mine, objects[best])] = RIGHT
        else:
            wrong.append(mine)
    for mine in wrong:
        errors[mine] = WRONG
    tiles = (
        _tile("input", xyz, rgb),
        _tile(f"ground truth, {len(objects)} instances", xyz, _by_number(truth)),
        _tile(f"prediction, {len(classes)} instances", xyz, _by_number(predicted)),
        _tile(f"errors ({len(matched)} of {len(objects)} found at an overlap of 50 %)", xyz, errors),
    )
    return SceneTiles(
        tiles, _verdict_legend("instance"), {"label": semantic, "instance": truth, "prediction": predicted}
    )


def _boxes(data: DataView, view: Path, scene: str, prediction: Prediction) -> SceneTiles:
    xyz, colours_seen = load_aligned_cloud(view, scene)
    rgb = colours_seen.astype(np.uint8)
    objects = np.asarray(load_boxes(view, scene), np.float64)
    sure = prediction["objectness"] >= SURE
    boxes = prediction["boxes"][sure].astype(np.float64)
    classes = prediction["probabilities"][sure].argmax(axis=1)
    colours = palette(len(data.classes))
    free = np.ones(len(objects), bool)
    verdict = _painted(len(boxes), WRONG)
    for row in np.argsort(-prediction["objectness"][sure], kind="stable"):
        overlap = oriented_iou(np.repeat(boxes[row : row + 1], len(objects), axis=0), objects[:, :7])
        overlap = np.where(free & (objects[:, 7] == classes[row]), overlap, 0)
        if len(overlap) and overlap.max() > MATCH["detection"]:
            free[overlap.argmax()] = False
            verdict[row] = RIGHT
    pale = (rgb // 2 + 120).astype(np.uint8)
    missed = objects[free]
    tiles = (
        _tile("input", xyz, rgb),
        Tile(f"ground truth, {len(objects)} boxes", xyz, pale, objects[:, :7], colours[objects[:, 7].astype(int)]),
        Tile(f"prediction, {len(boxes)} boxes of objectness {SURE:g} or more", xyz, pale, boxes, colours[classes]),
        Tile(
            f"errors ({int((~free).sum())} of {len(objects)} found at an overlap of 25 %)",
            xyz,
            pale,
            np.concatenate([boxes, missed[:, :7]]),
            np.concatenate([verdict, _painted(len(missed), MISSED)]),
        ),
    )
    present = sorted({*objects[:, 7].astype(int).tolist(), *classes.tolist()})
    legend = (*((data.classes[c], _rgb(colours[c])) for c in present), *_verdict_legend("box"))
    inside = np.full(len(xyz), -1, np.int32)
    for row, box in enumerate(boxes):
        inside[points_inside(xyz, box)] = row
    return SceneTiles(tiles, legend, {"prediction": inside})


def _tile(title: str, xyz: NDArray[np.floating], colours: Picture) -> Tile:
    return Tile(title, xyz, colours, np.zeros((0, 7)), np.zeros((0, 3), np.uint8))


def _painted(count: int, colour: tuple[int, int, int]) -> Picture:
    return np.tile(np.array(colour, np.uint8), (count, 1))


def _by_number(numbers: NDArray[np.integer]) -> Picture:
    """One colour for each instance, grey for none."""
    known, which = np.unique(numbers, return_inverse=True)
    colours = palette(len(known))[:-1]
    colours[known < 0] = VOID
    return colours[which.reshape(-1)]


def _rgb(colour: NDArray[np.uint8]) -> tuple[int, int, int]:
    red, green, blue = (int(c) for c in colour)
    return red, green, blue


def _verdict_legend(unit: str, missed: bool = True) -> tuple[tuple[str, tuple[int, int, int]], ...]:
    others = ((f"{unit} missed", MISSED),) if missed else (("not labelled", VOID),)
    return ((f"{unit} right", RIGHT), (f"{unit} wrong", WRONG), *others)
