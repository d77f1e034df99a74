"""What a run said about one test scene, as a picture and as a coloured point file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.datasets.drawing import Picture, below, draw_boxes, draw_cloud, palette, view_of
from pretrain_bench.benchmarks.datasets.views import Labels, load_aligned_cloud, load_boxes, load_cloud, load_labels
from pretrain_bench.benchmarks.input.boxes import oriented_iou, points_inside
from pretrain_bench.benchmarks.input.transforms import evaluation_voxels
from pretrain_bench.benchmarks.input.voxelise import IGNORE, Voxels, voxel_labels
from pretrain_bench.benchmarks.metrics.predictions import Prediction
from pretrain_bench.benchmarks.metrics.scorer import scorer_of, voxel_instances
from pretrain_bench.benchmarks.specs.recipes import DetectionRecipe, InstanceRecipe, SemanticRecipe
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.contract.stage import DataView, StageSpec

TILE = (480, 360)
RIGHT, WRONG, MISSED, VOID = (60, 160, 75), (215, 60, 50), (40, 90, 200), (200, 200, 200)
CUT = 0.75
"""Of the height of a room: what is above would hide the rest."""
SURE = 0.5
"""Objectness from which on a box is drawn."""
MATCH = {"instance": 0.5, "detection": 0.25}
"""Overlap from which on something counts as found in a picture."""


class Drawn(NamedTuple):
    """A tile: places (N, 3) with colours (N, 3), boxes (K, 7) with colours (K, 3), and what it shows."""

    title: str
    xyz: NDArray[np.floating]
    colours: Picture
    boxes: NDArray[np.floating]
    box_colours: Picture


class Shown(NamedTuple):
    """The four tiles of a scene, a legend of names and colours, the columns of its point file, and how far places lie apart."""

    tiles: tuple[Drawn, ...]
    legend: tuple[tuple[str, tuple[int, int, int]], ...]
    columns: dict[str, NDArray[Any]]
    spacing_metres: float = 0.0


def check_tested(spec: StageSpec, scene: str) -> None:
    """Raises WrongUse for a scene that was not tested; reads no data."""
    tested = spec.split.test if spec.split else ()
    if scene not in tested:
        listed = ", ".join(tested[:5])
        raise WrongUse(
            f"scene {scene!r}: not a test scene of this run; it has {len(tested)}: {listed}, ...; --scene list names all"
        )


def show_scene(spec: StageSpec, view: Path, scene: str, predictions: Path) -> Shown:
    """Input, ground truth, prediction and errors of a test scene; `view` is the folder of the prepared data, `predictions` that
    of one checkpoint. Raises WrongUse for a scene that was not tested, DataError for predictions that cannot be read."""
    assert spec.split is not None and spec.data is not None
    check_tested(spec, scene)
    recipe = spec.task_recipe
    scorer = scorer_of(recipe, spec.data.classes, spec.data.things, view, (scene,))
    prediction = scorer.read(predictions, scene)
    if isinstance(recipe, DetectionRecipe):
        return _boxes(spec.data, view, scene, prediction)
    assert isinstance(recipe, SemanticRecipe)
    cloud, labels = load_cloud(view, scene), load_labels(view, scene)
    voxels = evaluation_voxels(np.asarray(cloud.xyz), recipe.voxel_metres)
    xyz, rgb = (
        np.asarray(cloud.xyz)[voxels.representative],
        np.asarray(cloud.rgb)[voxels.representative].astype(np.uint8),
    )
    semantic = voxel_labels(np.asarray(labels.semantic), voxels)
    if isinstance(recipe, InstanceRecipe):
        truth = _true_instances(spec.data, recipe, semantic, labels, voxels)
        shown = _instances(xyz, rgb, semantic, truth, prediction)
    else:
        shown = _classes(spec.data.classes, xyz, rgb, semantic, prediction["classes"])
    return shown._replace(spacing_metres=recipe.voxel_metres)


def _classes(
    names: tuple[str, ...], xyz: NDArray, rgb: Picture, semantic: NDArray[np.uint8], said: NDArray[np.uint8]
) -> Shown:
    colours = palette(len(names))
    known = semantic != IGNORE
    right = semantic == said
    errors = _painted(len(xyz), VOID)
    errors[known & right], errors[known & ~right] = RIGHT, WRONG
    share = right[known].mean() if known.any() else float("nan")
    tiles = (
        _tile("input", xyz, rgb),
        _tile("ground truth", xyz, colours[np.minimum(semantic, len(names))]),
        _tile("prediction", xyz, colours[np.minimum(said, len(names))]),
        _tile(f"errors ({100 * share:.0f} % of the labelled voxels right)", xyz, errors),
    )
    seen = sorted({*semantic[known].tolist(), *said.tolist()})
    legend = tuple((names[c], _rgb(colours[c])) for c in seen if c < len(names))
    return Shown(tiles, (*legend, *_verdicts("voxel", False)), {"label": semantic, "prediction": said})


def _true_instances(
    data: DataView, recipe: InstanceRecipe, semantic: NDArray[np.uint8], labels: Labels, voxels: Voxels
) -> NDArray[np.int32]:
    counted = recipe.counted_classes(data.classes, data.things)
    truth = voxel_instances(np.asarray(labels.semantic), np.asarray(labels.instance), voxels, counted)
    return np.where(np.isin(semantic, counted), truth, np.int32(-1))


def _instances(
    xyz: NDArray, rgb: Picture, semantic: NDArray[np.uint8], truth: NDArray[np.int32], prediction: Prediction
) -> Shown:
    starts, classes = prediction["starts"], prediction["instance_classes"]
    surest_first = np.argsort(-prediction["confidences"], kind="stable")
    said = np.full(len(xyz), -1, np.int32)
    errors = _painted(len(xyz), VOID)
    numbers, objects = np.unique(truth[truth >= 0]), {}
    for number in numbers:
        objects[int(number)] = np.flatnonzero(truth == number)
        errors[objects[int(number)]] = MISSED
    wrong, found = [], set()
    for row in surest_first:
        mine = prediction["voxels"][starts[row] : starts[row + 1]]
        said[mine] = np.where(said[mine] < 0, row, said[mine])  # a voxel that is part of several belongs to the surest
        overlaps = {
            n: len(np.intersect1d(mine, theirs)) / len(np.union1d(mine, theirs))
            for n, theirs in objects.items()
            if semantic[theirs[0]] == classes[row] and n not in found
        }
        best = max(overlaps, key=lambda n: overlaps[n], default=None)
        if best is not None and overlaps[best] > MATCH["instance"]:
            found.add(best)
            errors[np.union1d(mine, objects[best])] = RIGHT
        else:
            wrong.append(mine)
    for mine in wrong:
        errors[mine] = WRONG
    tiles = (
        _tile("input", xyz, rgb),
        _tile(f"ground truth, {len(objects)} instances", xyz, _by_number(truth)),
        _tile(f"prediction, {len(classes)} instances", xyz, _by_number(said)),
        _tile(f"errors ({len(found)} of {len(objects)} found at an overlap of 50 %)", xyz, errors),
    )
    return Shown(tiles, _verdicts("instance"), {"label": semantic, "instance": truth, "prediction": said})


def _boxes(data: DataView, view: Path, scene: str, prediction: Prediction) -> Shown:
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
        Drawn(f"ground truth, {len(objects)} boxes", xyz, pale, objects[:, :7], colours[objects[:, 7].astype(int)]),
        Drawn(f"prediction, {len(boxes)} boxes of objectness {SURE:g} or more", xyz, pale, boxes, colours[classes]),
        Drawn(
            f"errors ({int((~free).sum())} of {len(objects)} found at an overlap of 25 %)",
            xyz,
            pale,
            np.concatenate([boxes, missed[:, :7]]),
            np.concatenate([verdict, _painted(len(missed), MISSED)]),
        ),
    )
    seen = sorted({*objects[:, 7].astype(int).tolist(), *classes.tolist()})
    legend = (*((data.classes[c], _rgb(colours[c])) for c in seen), *_verdicts("box"))
    inside = np.full(len(xyz), -1, np.int32)
    for row, box in enumerate(boxes):
        inside[points_inside(xyz, box)] = row
    return Shown(tiles, legend, {"prediction": inside})


def picture(shown: Shown, title: str) -> Any:
    """A PIL image: the tiles side by side, two and two, with a legend."""
    from PIL import Image, ImageDraw

    head, caption, columns = 26, 20, 6
    legend = 12 + 18 * -(-len(shown.legend) // columns)
    sheet = Image.new("RGB", (2 * TILE[0], head + 2 * (TILE[1] + caption) + legend), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((8, 7), title, fill="black")
    view = view_of(_visible(shown.tiles[0].xyz), TILE)
    dot = int(np.clip(np.ceil(shown.spacing_metres * view.scale), 2, 16))
    for number, tile in enumerate(shown.tiles):
        left, top = (number % 2) * TILE[0], head + (number // 2) * (TILE[1] + caption)
        draw.text((left + 8, top + 3), tile.title, fill="black")
        keep = below(tile.xyz, CUT)
        image = Image.fromarray(draw_cloud(tile.xyz[keep], tile.colours[keep], view=view, dot=dot))
        draw_boxes(image, view, tile.boxes, tile.box_colours)
        sheet.paste(image, (left, top + caption))
    for number, (name, colour) in enumerate(shown.legend):
        x = 8 + (number % columns) * (sheet.width // columns)
        y = head + 2 * (TILE[1] + caption) + 6 + 18 * (number // columns)
        draw.rectangle((x, y, x + 12, y + 12), fill=colour)
        draw.text((x + 18, y), name, fill="black")
    return sheet


def write_ply(shown: Shown, path: Path) -> None:
    """The places with the colours of the prediction, and label and prediction as numbers; boxes as vertices along their edges."""
    from plyfile import PlyData, PlyElement

    from pretrain_bench.benchmarks.datasets.drawing import EDGES
    from pretrain_bench.benchmarks.input.boxes import corners

    tile = shown.tiles[2]
    kinds = [(n, "f4") for n in "xyz"] + [(n, "u1") for n in ("red", "green", "blue")]
    kinds += [(name, "i4") for name in shown.columns]
    edges, colours = [np.zeros((0, 3))], [np.zeros((0, 3), np.uint8)]
    for places, colour in zip(corners(tile.boxes), tile.box_colours, strict=True):
        for a, b in EDGES:
            edges.append(np.linspace(places[a], places[b], 40))
            colours.append(np.repeat(colour[None], 40, axis=0))
    along, painted = np.concatenate(edges), np.concatenate(colours)
    rows = np.zeros(len(tile.xyz) + len(along), kinds)
    for axis, name in enumerate("xyz"):
        rows[name] = np.concatenate([tile.xyz[:, axis], along[:, axis]])
    for channel, name in enumerate(("red", "green", "blue")):
        rows[name] = np.concatenate([tile.colours[:, channel], painted[:, channel]])
    for name, values in shown.columns.items():
        rows[name] = np.concatenate([values.astype(np.int32), np.full(len(along), -1)])
    PlyData([PlyElement.describe(rows, "vertex")]).write(str(path))


def _tile(title: str, xyz: NDArray[np.floating], colours: Picture) -> Drawn:
    return Drawn(title, xyz, colours, np.zeros((0, 7)), np.zeros((0, 3), np.uint8))


def _visible(xyz: NDArray[np.floating]) -> NDArray[np.floating]:
    return xyz[below(xyz, CUT)]


def _painted(count: int, colour: tuple[int, int, int]) -> Picture:
    return np.tile(np.array(colour, np.uint8), (count, 1))


def _by_number(numbers: NDArray[np.integer]) -> Picture:
    """A colour for each instance, grey for none."""
    known, which = np.unique(numbers, return_inverse=True)
    colours = palette(len(known))[:-1]
    colours[known < 0] = VOID
    return colours[which.reshape(-1)]


def _rgb(colour: NDArray[np.uint8]) -> tuple[int, int, int]:
    red, green, blue = (int(c) for c in colour)
    return red, green, blue


def _verdicts(what: str, missed: bool = True) -> tuple[tuple[str, tuple[int, int, int]], ...]:
    lost = ((f"{what} missed", MISSED),) if missed else (("not labelled", VOID),)
    return ((f"{what} right", RIGHT), (f"{what} wrong", WRONG), *lost)
